// Package tpm12 is what the store of stock openCryptoki's tpm token keeps for a TPM 1.2:
// keys as the chip wraps them, data that is bound to one, and the root keys in PEM.
//
//	the storage root key, in the TPM
//	├─ PUBLIC ROOT KEY    storage, no secret; PUBLIC_ROOT_KEY.pem under the SO's PIN
//	│  ├─ PUBLIC LEAF KEY binding, its secret is SHA-1 of the SO's PIN
//	│  └─ keys of sessions without the user's login
//	└─ PRIVATE ROOT KEY   likewise, PRIVATE_ROOT_KEY.pem under the user's PIN
//	   ├─ PRIVATE LEAF KEY likewise, of the user's PIN
//	   └─ keys of the user's sessions
//
// A key of a login has a random secret, which lies beside it, bound to the leaf key. The
// root keys are made in software, so that they can be wrapped again for another TPM.
//
// Everything here is bytes: nothing is asked of a TPM. A key can be wrapped for a parent
// without one, and unwrapped where the parent's private key is known.
//
// github.com/google/go-tpm has a package for TPM 1.2, which knows no parent but the
// storage root key, and neither binding nor changes of secrets; so the structures are
// here.
package tpm12
