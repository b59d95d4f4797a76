package p11

import (
	"crypto"
	_ "crypto/md5" // registers what the table names
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
)

// A Hash is a digest with what the standard builds on it. What there is not is 0.
type Hash struct {
	Type MechanismType
	Size uint64 // of the digest in bytes
	OID  string // object identifier, with dots
	MGF  MGF    // MGF1 over it
	KDF  KDF    // the derivation of ANSI X9.63 with it
	// SP800 is the one-step derivation of NIST SP 800-56C.
	SP800 KDF

	HMAC, HMACGeneral MechanismType
	PKCS1, PSS, ECDSA MechanismType // signatures of data
	MLDSA, SLHDSA     MechanismType // likewise: HashML-DSA, HashSLH-DSA
	DSA               MechanismType // likewise
	KeyGen            MechanismType // makes keys for HMAC alone
	Derive            MechanismType // makes a key of the digest of another's value
	Go                crypto.Hash   // linked; 0 for one that is not computed in software
}

// Hashes returns all hashes, in the order of the table.
func Hashes() []Hash {
	types := hashTypes()
	list := make([]Hash, len(types))
	for i, t := range types {
		list[i], _ = HashOf(t)
	}
	return list
}

// HashSize returns the length in bytes of a digest mechanism's digest, and 0
// for a mechanism that is no digest.
func HashSize(t MechanismType) uint64 {
	h, _ := HashOf(t)
	return h.Size
}

// MGFOf returns the mask generation function MGF1 over a digest, and 0 if there
// is none.
func MGFOf(t MechanismType) MGF {
	h, _ := HashOf(t)
	return h.MGF
}
