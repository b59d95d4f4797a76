// Package stocktpm serves the token directories of stock openCryptoki's tpm token, whose
// keys a TPM 1.2 has, beside stock's programs.
//
// What the chip keeps, and how, is for package tpm12 to know. In the directory the keys of
// the hierarchies are objects that are hidden from everybody: one with the public half and
// one with the blob of each. They, and all objects, are those of every user of the machine;
// a user of the machine has the files of the root keys alone, in a directory of that name,
// and a lock and a segment of shared memory (Keys in package store).
//
// # PINs
//
// A PIN is right if the leaf key of its role takes it; the chip says so, once NVTOK.DAT has
// counted the try. A chip counts wrong PINs too, with all other wrong secrets on the
// machine, and after some takes none for a while: CKR_PIN_LOCKED.
//
// A PIN is changed in three steps: the leaf key is stored anew under the new PIN, the file
// of the root key takes the place of the old one, and the old leaf key goes. Where there
// are two, since this was cut off, the PIN that opens the file is the PIN.
//
// C_InitPIN makes a hierarchy for a user, where stock's does nothing. If there is one and
// the file of its root key opens with the PIN, that PIN is unlocked and nothing else is
// done; else a new hierarchy takes the place of the old one, whose keys are lost, as nobody
// but the old PIN opens them.
//
// # Objects
//
// Stock encrypts private objects under a key of zeros, and so does this package, or stock
// could not read them: whoever reads the directory reads them, but for the keys that the
// chip has. These are made in the chip or wrapped for it, and never kept here.
package stocktpm
