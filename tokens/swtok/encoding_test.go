package swtok

import (
	"bytes"
	"crypto"
	"testing"
)

// Every way in which a PSS encoding can be wrong is found, for moduli whose
// encoding has no spare bits, some, and a byte less than the modulus.
func TestPSSEncoding(t *testing.T) {
	digest, salt := bytes.Repeat([]byte{1}, 32), []byte("some salt")
	for _, bits := range []int{1016, 1017, 1020, 1023} {
		good, err := pssEncode(crypto.SHA256, crypto.SHA1, digest, salt, bits)
		if err != nil {
			t.Fatal(err)
		}
		verify := func(em []byte, bits, saltLen int) bool {
			return pssVerify(crypto.SHA256, crypto.SHA1, digest, bytes.Clone(em), bits, saltLen)
		}
		if !verify(good, bits, len(salt)) {
			t.Errorf("%d bits: a good encoding is refused", bits)
		}
		for i := range good {
			for _, bit := range []byte{0x80, 1} {
				em := bytes.Clone(good)
				em[i] ^= bit
				if verify(em, bits, len(salt)) {
					t.Errorf("%d bits: a change of byte %d by %#x is accepted", bits, i, bit)
				}
			}
		}
		for name, ok := range map[string]bool{
			"a shorter salt":   verify(good, bits, len(salt)-1),
			"a longer salt":    verify(good, bits, len(salt)+1),
			"too long a salt":  verify(good, bits, 1000),
			"another size":     verify(good, bits+8, len(salt)),
			"another mask":     pssVerify(crypto.SHA256, crypto.SHA256, digest, bytes.Clone(good), bits, len(salt)),
			"another hash":     pssVerify(crypto.SHA512_256, crypto.SHA1, digest, bytes.Clone(good), bits, len(salt)),
			"another digest":   pssVerify(crypto.SHA256, crypto.SHA1, salt, bytes.Clone(good), bits, len(salt)),
			"a cut encoding":   verify(good[1:], bits, len(salt)),
			"padding not zero": verify(encodeBadly(digest, salt, bits), bits, len(salt)),
		} {
			if ok {
				t.Errorf("%d bits: %s is accepted", bits, name)
			}
		}
	}
	if _, err := pssEncode(crypto.SHA256, crypto.SHA256, digest, make([]byte, 95), 1023); err == nil {
		t.Error("a salt that does not fit is encoded")
	}
}

// encodeBadly is pssEncode with one byte of padding that is not zero, under a
// hash and mask that are right for it.
func encodeBadly(digest, salt []byte, bits int) []byte {
	em := make([]byte, (bits+7)/8)
	db, trailer := em[:len(em)-33], em[len(em)-33:]
	copy(trailer, pssHash(crypto.SHA256.New(), digest, salt))
	trailer[32] = 0xbc
	db[5] = 7
	db[len(db)-len(salt)-1] = 1
	copy(db[len(db)-len(salt):], salt)
	mgf1XOR(db, crypto.SHA1.New(), trailer[:32])
	em[0] &= 0xff >> (8*len(em) - bits)
	return em
}
