package swtok

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"slices"
)

// pkcs1Overhead is the least padding of PKCS#1 v1.5: 00 BT, 8 bytes, 00.
const pkcs1Overhead = 11

// padSignature is the block type 1 padding of k bytes around tbs (RFC 8017
// §9.2), for a tbs of at most k - pkcs1Overhead bytes.
func padSignature(tbs []byte, k int) []byte {
	return slices.Concat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, k-len(tbs)-3), []byte{0}, tbs)
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
	return bytes.Clone(em[at+1:]), nil
}
