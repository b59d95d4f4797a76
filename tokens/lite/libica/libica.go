//go:build cgo

// Package libica is a thin binding of what libica does with the accelerator cards of IBM
// Z: RSA with the primes of the key. The library is loaded at run time.
package libica

// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "lib.h"
import "C"

import (
	"errors"
	"fmt"
	"math/big"
	"unsafe"

	"p11fs/p11/pkix"
	"p11fs/secret"
)

// A Library is a libica that was loaded, with cards that do RSA. It stays loaded, and
// may be used by several goroutines at once.
type Library struct{ c *C.library }

// errNoCards is that of a machine whose cards do no RSA, or that has none: there libica
// has software like everybody.
var errNoCards = errors.New("libica has no cards for RSA")

// Load loads the library of that file name. Its list of functions is to say that cards do
// ica_rsa_crt.
func Load(file string) (*Library, error) {
	name := C.CString(file)
	defer C.free(unsafe.Pointer(name))
	l := &Library{(*C.library)(C.calloc(1, C.sizeof_library))}
	missing := C.libica_load(l.c, name)
	if missing == nil && C.libica_has_cards(l.c) != 0 {
		return l, nil
	}
	defer C.free(unsafe.Pointer(l.c))
	C.libica_close(l.c)
	if missing == nil {
		return nil, errNoCards
	}
	return nil, fmt.Errorf("%s cannot be used: %s is missing", file, C.GoString(missing))
}

// The moduli that cards take, in bits.
const (
	minBits = 512
	maxBits = 4096
)

// spare is how many bytes more than half of the modulus there are for one prime's
// numbers.
const spare = 8

// Fits says whether a key is of a form that cards take: two primes of half the modulus.
func Fits(k *pkix.RSANumbers) bool {
	n := k.N.BitLen()
	half := 8 * ((bytesOf(n) + 1) / 2)
	return n >= minBits && n <= maxBits && k.P.BitLen() <= half && k.Q.BitLen() <= half
}

func bytesOf(bits int) int { return (bits + 7) / 8 }

// An RSAKey is a private key of a modulus of size bytes.
type RSAKey struct {
	lib              *Library
	size             int
	p, q, dp, dq, qi []byte
}

// NewRSAKey makes a key of numbers that fit, all of them present.
func (l *Library) NewRSAKey(k *pkix.RSANumbers) *RSAKey {
	p, q, dp, dq, qInv := k.P, k.Q, k.DP, k.DQ, k.QInv
	if p.Cmp(q) < 0 { // cards want the larger one first
		p, q, dp, dq, qInv = q, p, dq, dp, new(big.Int).ModInverse(p, q)
		defer clear(qInv.Bits())
	}
	size := bytesOf(k.N.BitLen())
	half := (size + 1) / 2
	first := func(n *big.Int) []byte { return n.FillBytes(make([]byte, spare+half)) }
	second := func(n *big.Int) []byte { return n.FillBytes(make([]byte, half)) }
	return &RSAKey{lib: l, size: size, p: first(p), q: second(q), dp: first(dp), dq: second(dq), qi: first(qInv)}
}

// Raw is in^d mod n in as many bytes as n has, for in of so many bytes and below n. The
// result is not checked.
func (k *RSAKey) Raw(in []byte) ([]byte, error) {
	if len(in) != k.size {
		return nil, fmt.Errorf("%d bytes for a modulus of %d", len(in), k.size)
	}
	at := func(b []byte) *C.uchar { return (*C.uchar)(unsafe.Pointer(&b[0])) }
	out := make([]byte, k.size)
	if rc := C.libica_rsa_crt(k.lib.c, at(in), C.uint(k.size), at(k.p), at(k.q), at(k.dp), at(k.dq), at(k.qi), at(out)); rc != 0 {
		return nil, fmt.Errorf("libica fails at RSA with error %d", uint(rc))
	}
	return out, nil
}

// Close wipes the key.
func (k *RSAKey) Close() {
	for _, b := range [][]byte{k.p, k.q, k.dp, k.dq, k.qi} {
		secret.Wipe(b)
	}
}
