// Package keywrap is AES key wrap (RFC 3394) and with padding (RFC 5649). Go's library
// has neither; both share one loop over the block cipher.
package keywrap

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"p11fs/secret"
)

// The initial values that the RFCs give.
const (
	IV       = 0xa6a6a6a6a6a6a6a6 // RFC 3394 §2.2.3.1
	PaddedIV = 0xa65959a6         // RFC 5649 §3
)

// ErrUnwrap is the error of what was not wrapped with that key and initial value.
var ErrUnwrap = errors.New("the wrapped key is no key")

// loop is the wrapping process W of NIST SP 800-38F §6.1 in place: r is the
// 8-byte register A and at least two blocks of 8 bytes.
func loop(b cipher.Block, r []byte) {
	n := len(r)/8 - 1
	var buf [16]byte
	a := binary.BigEndian.Uint64(r)
	for t := uint64(1); t <= uint64(6*n); t++ {
		block := r[8*((t-1)%uint64(n)+1):][:8]
		binary.BigEndian.PutUint64(buf[:], a)
		copy(buf[8:], block)
		b.Encrypt(buf[:], buf[:])
		a = binary.BigEndian.Uint64(buf[:]) ^ t
		copy(block, buf[8:])
	}
	binary.BigEndian.PutUint64(r, a)
	clear(buf[:])
}

// unloop is its inverse.
func unloop(b cipher.Block, r []byte) {
	n := len(r)/8 - 1
	var buf [16]byte
	a := binary.BigEndian.Uint64(r)
	for t := uint64(6 * n); t >= 1; t-- {
		block := r[8*((t-1)%uint64(n)+1):][:8]
		binary.BigEndian.PutUint64(buf[:], a^t)
		copy(buf[8:], block)
		b.Decrypt(buf[:], buf[:])
		a = binary.BigEndian.Uint64(buf[:])
		copy(block, buf[8:])
	}
	binary.BigEndian.PutUint64(r, a)
	clear(buf[:])
}

// Wrap is RFC 3394 §2.2.1 for a key of a multiple of 8 bytes, at least 16. b is AES.
// The result has 8 bytes more.
func Wrap(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
	if len(key)%8 != 0 || len(key) < 16 {
		return nil, errors.New("not a multiple of 8 bytes, at least 16")
	}
	out := make([]byte, 8+len(key))
	binary.BigEndian.PutUint64(out, iv)
	copy(out[8:], key)
	loop(b, out)
	return out, nil
}

// Unwrap is RFC 3394 §2.2.2, or returns ErrUnwrap.
func Unwrap(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, ErrUnwrap
	}
	r := append([]byte(nil), wrapped...)
	unloop(b, r)
	var want [8]byte
	binary.BigEndian.PutUint64(want[:], iv)
	if subtle.ConstantTimeCompare(r[:8], want[:]) != 1 {
		secret.Wipe(r)
		return nil, ErrUnwrap
	}
	return r[8:], nil
}

// WrapPadded is RFC 5649 §4.1 for a key of at least one byte.
func WrapPadded(b cipher.Block, iv uint64, key []byte) ([]byte, error) {
	if len(key) == 0 || uint64(len(key)) > 1<<31 {
		return nil, errors.New("length out of range")
	}
	padded := (len(key) + 7) &^ 7
	out := make([]byte, 8+padded)
	binary.BigEndian.PutUint64(out, iv<<32|uint64(len(key)))
	copy(out[8:], key)
	if padded == 8 {
		b.Encrypt(out, out)
	} else {
		loop(b, out)
	}
	return out, nil
}

// UnwrapPadded is RFC 5649 §4.2, or returns ErrUnwrap.
func UnwrapPadded(b cipher.Block, iv uint64, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 16 {
		return nil, ErrUnwrap
	}
	r := append([]byte(nil), wrapped...)
	if len(r) == 16 {
		b.Decrypt(r, r)
	} else {
		unloop(b, r)
	}
	// The register is a pseudorandom function of all of the input: a failure
	// tells nothing, wherever it is found.
	length := int64(binary.BigEndian.Uint32(r[4:]))
	pad := int64(len(r)) - 8 - length
	ok := uint64(binary.BigEndian.Uint32(r)) == iv && pad >= 0 && pad <= 7
	for i := int64(0); ok && i < pad; i++ {
		ok = r[8+length+i] == 0
	}
	if !ok {
		secret.Wipe(r)
		return nil, ErrUnwrap
	}
	return r[8 : 8+length], nil
}
