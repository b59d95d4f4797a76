// Package tpm is the kind of token whose private keys a TPM 2.0 makes and keeps, and whose
// master key it seals under the PINs. A copy of the token directory is of no use without
// the TPM.
//
// The directory is one of openCryptoki 3.12 but for MK_SO and MK_USER, which hold seals of
// the TPM (keyFile), and for the file TPM2 (record), which says which TPM it is. NVTOK.DAT
// has another length than that of the stock token of a TPM 1.2, which so keeps out.
// Private objects are encrypted under the master key; so are secret keys, which swtok's
// cryptography uses. A private key is a blob that only this TPM opens, and a random
// authorisation beside it, in an object.
//
// # PINs
//
// A PIN is stretched, and what comes of it is the authorisation of a seal. The token counts
// wrong PINs in NVTOK.DAT, as swtok does, before the TPM is asked. With the protection da
// the TPM counts them too, with all other failures on the machine. With pinfail an index in
// the TPM counts for each PIN, also where the directory is put back; a new PIN has a new
// index, and the old one is removed. Which indexes are the token's stands in TPM2 before
// they are made, so that none is forgotten after a crash (keeper.sweep).
package tpm
