package swtok

import (
	"crypto"
	"crypto/subtle"
	"errors"
)

// digestInfoPrefix is the DER of a DigestInfo up to the digest itself (RFC 8017
// §9.2, note 1), nil for a hash that has none here.
func digestInfoPrefix(h crypto.Hash) []byte {
	switch h {
	case crypto.MD5:
		return []byte{0x30, 0x20, 0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05, 0x05, 0x00, 0x04, 0x10}
	case crypto.SHA1:
		return []byte{0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}
	case crypto.SHA224:
		return sha2Prefix(4, 28)
	case crypto.SHA256:
		return sha2Prefix(1, 32)
	case crypto.SHA384:
		return sha2Prefix(2, 48)
	case crypto.SHA512:
		return sha2Prefix(3, 64)
	}
	return nil
}

// sha2Prefix is the prefix for the hash 2.16.840.1.101.3.4.2.arc.
func sha2Prefix(arc, size byte) []byte {
	return []byte{0x30, 0x11 + size, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00, 0x04, size}
}

// pkcs1Overhead is the least padding of PKCS#1 v1.5: 00 BT, 8 bytes, 00.
const pkcs1Overhead = 11

// padSignature is the block type 1 padding of k bytes around tbs (RFC 8017
// §9.2), for a tbs of at most k - pkcs1Overhead bytes.
func padSignature(tbs []byte, k int) []byte {
	em := make([]byte, k)
	em[1] = 1
	end := k - len(tbs)
	for i := 2; i < end-1; i++ {
		em[i] = 0xff
	}
	copy(em[end:], tbs)
	return em
}

// unpadSignature takes block type 1 padding off a verified signature. Nothing
// in it is secret.
func unpadSignature(em []byte) ([]byte, bool) {
	if len(em) < pkcs1Overhead || em[0] != 0 || em[1] != 1 {
		return nil, false
	}
	i := 2
	for i < len(em) && em[i] == 0xff {
		i++
	}
	if i < 10 || i == len(em) || em[i] != 0 {
		return nil, false
	}
	return em[i+1:], true
}

var errPadding = errors.New("decryption error")

// unpadPKCS1 takes block type 2 padding off a decrypted message (RFC 8017
// §7.2.2, step 3). Up to the answer, which PKCS#11 makes public, the time does
// not depend on em.
func unpadPKCS1(em []byte) ([]byte, error) {
	if len(em) < pkcs1Overhead {
		return nil, errPadding
	}
	good := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeByteEq(em[1], 2)
	looking, at := 1, 0
	for i := 2; i < len(em); i++ {
		zero := subtle.ConstantTimeByteEq(em[i], 0)
		at = subtle.ConstantTimeSelect(looking&zero, i, at)
		looking = subtle.ConstantTimeSelect(zero, 0, looking)
	}
	good &= 1 ^ looking
	good &= subtle.ConstantTimeLessOrEq(10, at)
	if good != 1 {
		return nil, errPadding
	}
	return append([]byte(nil), em[at+1:]...), nil
}
