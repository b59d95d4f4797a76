package swtok

import (
	"crypto"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
)

// EMSA-PSS (RFC 8017 §9.1). Signing uses the provider's where it can; this one
// checks every signature, and signs with the salts and masks that providers do
// not take: no salt at all, and a mask with another hash.

// pssEncode returns the encoded message of emBits bits for digest and salt.
func pssEncode(h, mgf crypto.Hash, digest, salt []byte, emBits int) ([]byte, error) {
	emLen := (emBits + 7) / 8
	hLen := h.Size()
	if emLen < hLen+len(salt)+2 {
		return nil, errors.New("salt too long for the key")
	}
	em := make([]byte, emLen)
	db, trailer := em[:emLen-hLen-1], em[emLen-hLen-1:]
	copy(trailer, pssHash(h.New(), digest, salt))
	trailer[hLen] = 0xbc
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt)
	mgf1XOR(db, mgf.New(), trailer[:hLen])
	em[0] &= 0xff >> (8*emLen - emBits)
	return em, nil
}

// pssVerify says whether em, of emBits bits in (emBits+7)/8 bytes, encodes
// digest with a salt of saltLen bytes. em is overwritten.
func pssVerify(h, mgf crypto.Hash, digest, em []byte, emBits, saltLen int) bool {
	emLen := (emBits + 7) / 8
	hLen := h.Size()
	if len(em) != emLen || emLen < hLen+saltLen+2 || em[emLen-1] != 0xbc {
		return false
	}
	top := byte(0xff) >> (8*emLen - emBits)
	if em[0]&^top != 0 {
		return false
	}
	db, want := em[:emLen-hLen-1], em[emLen-hLen-1:emLen-1]
	mgf1XOR(db, mgf.New(), want)
	db[0] &= top
	zeros := len(db) - saltLen - 1
	for _, b := range db[:zeros] {
		if b != 0 {
			return false
		}
	}
	if db[zeros] != 1 {
		return false
	}
	return subtle.ConstantTimeCompare(pssHash(h.New(), digest, db[zeros+1:]), want) == 1
}

// pssHash is H of eight zeros, the digest and the salt.
func pssHash(h hash.Hash, digest, salt []byte) []byte {
	h.Write(make([]byte, 8))
	h.Write(digest)
	h.Write(salt)
	return h.Sum(nil)
}

// mgf1XOR xors the mask of MGF1 (RFC 8017 §B.2.1) into out.
func mgf1XOR(out []byte, h hash.Hash, seed []byte) {
	var counter [4]byte
	mask := make([]byte, 0, h.Size())
	for i := uint32(0); len(out) > 0; i++ {
		h.Reset()
		h.Write(seed)
		binary.BigEndian.PutUint32(counter[:], i)
		h.Write(counter[:])
		mask = h.Sum(mask[:0])
		n := subtle.XORBytes(out, out, mask)
		out = out[n:]
	}
}
