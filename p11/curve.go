package p11

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"slices"
	"strings"
)

// A Curve is a named elliptic curve.
type Curve struct {
	Name    string // such as secp256r1
	NIST    string // in FIPS 186, such as P-256; "" if it does not have it
	OID     string // object identifier, with dots
	Bits    int    // of the field
	KeyType KeyType

	Elliptic elliptic.Curve // nil if Go's library does not have it
	ECDH     ecdh.Curve     // nil if Go's library does not have it

	// Numbers tells the curve by its numbers, where Elliptic does not have them: the
	// SHA-256, in hexadecimal, of p, a, b, the order and the x of the base, each as long as
	// the field, and of one byte with the lowest bit of the base's y.
	Numbers string

	params string
	aka    string // more names, in lower case, joined by commas
}

// Params returns CKA_EC_PARAMS: the DER of the object identifier.
func (c Curve) Params() []byte { return []byte(c.params) }

// Size is the length in bytes of an element of the field.
func (c Curve) Size() int { return (c.Bits + 7) / 8 }

// KeySize is the length in bytes of a public and of a private key on a curve of RFC 7748
// or RFC 8032, whose keys are strings of bytes; 0 for other curves.
func (c Curve) KeySize() int {
	switch c.KeyType {
	case CKK_EC_MONTGOMERY:
		return c.Size()
	case CKK_EC_EDWARDS:
		return c.Bits/8 + 1 // an element of the field and a sign (RFC 8032 §3)
	}
	return 0
}

// CurveNamed returns the curve by one of its usual names, in any case.
func CurveNamed(name string) (Curve, bool) {
	name = strings.ToLower(name)
	return curveWhere(func(c Curve) bool {
		return name != "" && (name == c.Name || name == strings.ToLower(c.NIST) || slices.Contains(strings.Split(c.aka, ","), name))
	})
}

// CurveOf returns the curve of CKA_EC_PARAMS: an object identifier, or, since
// PKCS#11 v3.0, a name as a PrintableString (PKCS#11 v3.1 §6.3.3).
func CurveOf(params []byte) (Curve, bool) {
	const printableString = 0x13
	if len(params) > 2 && params[0] == printableString && int(params[1]) == len(params)-2 {
		return CurveNamed(string(params[2:]))
	}
	return curveWhere(func(c Curve) bool { return string(params) == c.params })
}

func curveWhere(is func(Curve) bool) (Curve, bool) {
	list := Curves()
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	return Curve{}, false
}

// CurveName returns the name of the curve whose CKA_EC_PARAMS is the object
// identifier der, such as secp256r1, or "".
func CurveName(der []byte) string {
	c, _ := curveWhere(func(c Curve) bool { return string(der) == c.params })
	return c.Name
}

// CurveParams returns the CKA_EC_PARAMS of a curve by one of its usual names.
func CurveParams(name string) ([]byte, bool) {
	c, ok := CurveNamed(name)
	if !ok {
		return nil, false
	}
	return c.Params(), true
}
