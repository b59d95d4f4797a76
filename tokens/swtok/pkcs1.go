package swtok

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"math/big"
	"math/bits"
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

// Implicit rejection (draft-irtf-cfrg-rsa-guidance §7.3, as OpenSSL has it from 3.2 on):
// whoever decrypts something whose padding is wrong gets a message all the same, of a
// length and with bytes that depend on the key and on the ciphertext alone, in the same
// time. So a program that decrypts or unwraps for others tells nobody whether the padding
// was right, and what others have encrypted cannot be found by asking (Bleichenbacher).

// newRejecter is the key that the messages of a private key d, with a modulus of k bytes,
// come from.
func newRejecter(d *big.Int, k int) []byte {
	b := d.FillBytes(make([]byte, k))
	defer wipe(b)
	sum := sha256.Sum256(b)
	return sum[:]
}

// rejected begins the messages of a ciphertext. It gives n bytes by their label.
func (k *rsaPrivate) rejected(ct []byte) func(label string, n int) []byte {
	h := hmac.New(sha256.New, k.rejecter)
	h.Write(ct)
	of := hmac.New(sha256.New, h.Sum(nil))
	return func(label string, n int) []byte {
		out := make([]byte, 0, n+sha256.Size)
		for i := uint16(0); len(out) < n; i++ {
			of.Reset()
			of.Write(binary.BigEndian.AppendUint16(nil, i))
			of.Write([]byte(label))
			of.Write(binary.BigEndian.AppendUint16(nil, uint16(8*n)))
			out = of.Sum(out)
		}
		return out[:n]
	}
}

// rejectedLength is how long the message is that stands for none: one of lengths, or, if
// there are none, anything from least to most.
func rejectedLength(random []byte, least, most int, lengths []int) int {
	if len(lengths) > 0 {
		at, n := int(random[0])*len(lengths)>>8, 0
		for i, l := range lengths {
			n = subtle.ConstantTimeSelect(subtle.ConstantTimeEq(int32(i), int32(at)), l, n)
		}
		return n
	}
	mask := 1<<bits.Len(uint(most)) - 1
	n := least
	for ; len(random) > 1; random = random[2:] {
		try := int(binary.BigEndian.Uint16(random)) & mask
		good := subtle.ConstantTimeLessOrEq(least, try) & subtle.ConstantTimeLessOrEq(try, most)
		n = subtle.ConstantTimeSelect(good, try, n)
	}
	return n
}

// unpadPKCS1 takes block type 2 padding off em, the decryption of ct (RFC 8017 §7.2.2,
// step 3). The message is to have at least least bytes and, if there are lengths, one of
// these, which all fit; where it has not, another one comes. The time depends on the length
// of what comes.
func (k *rsaPrivate) unpadPKCS1(em, ct []byte, least int, lengths []int) []byte {
	random := k.rejected(ct)
	other := random("message", k.k)
	defer wipe(other)
	n := rejectedLength(random("length", 256), least, k.k-pkcs1Overhead, lengths)

	good := subtle.ConstantTimeByteEq(em[0], 0) & subtle.ConstantTimeByteEq(em[1], 2)
	looking, end := 1, 0
	for i := 2; i < len(em); i++ {
		zero := subtle.ConstantTimeByteEq(em[i], 0)
		end = subtle.ConstantTimeSelect(looking&zero, i, end)
		looking = subtle.ConstantTimeSelect(zero, 0, looking)
	}
	length := k.k - end - 1
	good &= 1 ^ looking
	good &= subtle.ConstantTimeLessOrEq(10, end) & subtle.ConstantTimeLessOrEq(least, length)
	if len(lengths) > 0 {
		fits := 0
		for _, l := range lengths {
			fits |= subtle.ConstantTimeEq(int32(length), int32(l))
		}
		good &= fits
	}
	subtle.ConstantTimeCopy(good, other, em)
	return bytes.Clone(other[k.k-subtle.ConstantTimeSelect(good, length, n):])
}

// unpadZeros takes zeros off the front of em, the decryption of ct, that leave the one
// length there is. Where there is something else, it is another key that comes.
func (k *rsaPrivate) unpadZeros(em, ct []byte, lengths []int) []byte {
	other := k.rejected(ct)("message", k.k)
	defer wipe(other)
	spare := k.k - lengths[0]
	var any byte
	for _, b := range em[:spare] {
		any |= b
	}
	subtle.ConstantTimeCopy(subtle.ConstantTimeByteEq(any, 0), other, em)
	return bytes.Clone(other[spare:])
}
