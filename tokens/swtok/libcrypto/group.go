//go:build cgo

package libcrypto

// #include "lib.h"
import "C"

import "unsafe"

// A Group is a named elliptic curve, with what EVP does not do: it takes the public half
// of a key as it is given, and has no way from a private half to it.
type Group struct {
	l *Library
	c unsafe.Pointer
}

// Group finds a curve by its object identifier in dots.
func (l *Library) Group(oid string) (*Group, error) {
	c, err := l.fetch(oid, func(n *C.char) unsafe.Pointer { return C.group_find(l.c, n) })
	return &Group{l, c}, err
}

// maxPoint is the longest uncompressed point, in bytes: libcrypto's biggest field has 661
// bits (OPENSSL_ECC_MAX_FIELD_BITS).
const maxPoint = 1 + 2*83

// Point is, uncompressed, the point that encoded is, compressed or not (SEC 1 §2.3.4). It
// fails for what is not on the curve, and gives one byte for the point at infinity.
func (g *Group) Point(encoded []byte) ([]byte, error) {
	out := make([]byte, maxPoint)
	n := C.group_point(g.l.c, g.c, pointer(encoded), C.size_t(len(encoded)), pointer(out), maxPoint)
	if n == 0 {
		return nil, failed("the reading of a point")
	}
	return out[:n], nil
}

// Multiply is the point, uncompressed, of a private key, which is a big-endian number of
// at most 66 bytes. It fails for 0 and for what is not below the order.
func (g *Group) Multiply(number []byte) ([]byte, error) {
	out := make([]byte, maxPoint)
	n := C.group_multiply(g.l.c, g.c, pointer(number), C.size_t(len(number)), pointer(out), maxPoint)
	if n == 0 {
		return nil, failed("the multiplication of a point")
	}
	return out[:n], nil
}
