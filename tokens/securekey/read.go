package securekey

import (
	"bytes"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
)

// MaxBlob is the longest blob that there is: stock's buffer for one.
const MaxBlob = 16 << 10

// Blobs are the attributes that have one: that of the key, the one under the wrapping key
// that comes next, and the one before.
func Blobs() []p11.AttributeType {
	return []p11.AttributeType{p11.CKA_IBM_OPAQUE, p11.CKA_IBM_OPAQUE_REENC, p11.CKA_IBM_OPAQUE_OLD}
}

// Blob is what a card knows a key by: CKA_IBM_OPAQUE. It is false for an object without.
func Blob(a p11.Attributes) ([]byte, bool) {
	v, _ := a.Get(p11.CKA_IBM_OPAQUE)
	return v, len(v) > 0
}

// Secured says that attributes are those of a key whose values are in its blob alone.
func Secured(a p11.Attributes) bool {
	class, _ := a.Class()
	_, ok := Blob(a)
	return ok && (class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY)
}

// Read is an object of a token directory as it is meant. Stock writes the values of a key
// that is a blob as nothing, or as zeros, the length of a private key's value as noise, the
// numbers that it does not know as nothing, points without DER, some with a byte behind
// them, and of a private key of DSA the subprime as the prime. a becomes the result, and what
// is left out of it is wiped.
func Read(a p11.Attributes) p11.Attributes {
	if class, _ := a.Class(); class == p11.CKO_PUBLIC_KEY || class == p11.CKO_PRIVATE_KEY {
		if point, ok := a.Get(p11.CKA_EC_POINT); ok {
			a.Set(p11.CKA_EC_POINT, pointOf(a, point))
		}
	}
	if !Secured(a) {
		return a
	}
	class, _ := a.Class()
	if kt, _ := a.KeyType(); class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_DSA {
		if prime, ok := a.Get(p11.CKA_PRIME); ok && len(bytes.TrimLeft(prime, "\x00")) <= maxSubprime {
			a.Set(p11.CKA_SUBPRIME, bytes.Clone(prime))
			a.Delete(p11.CKA_PRIME)
		}
	}
	if length, ok := a.Ulong(p11.CKA_VALUE_LEN); class == p11.CKO_SECRET_KEY && (!ok || length == 0) {
		zeros, _ := a.Get(p11.CKA_VALUE) // as many as the key has bytes
		a.SetUlong(p11.CKA_VALUE_LEN, uint64(len(zeros)))
	}
	return slices.DeleteFunc(a, func(one p11.Attribute) bool {
		switch one.Type {
		case p11.CKA_VALUE_LEN:
			length, err := p11.ToUlong(one.Value)
			return class == p11.CKO_PRIVATE_KEY || err != nil || length == 0
		case p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT:
			return len(one.Value) == 0
		}
		if value(one.Type) {
			secret.Wipe(one.Value)
			return true
		}
		return false
	})
}

// maxSubprime is the longest subprime of DSA, in bytes.
const maxSubprime = 32

// value says whether an attribute has, in other tokens, a part of a key.
func value(t p11.AttributeType) bool {
	return p11.SecretValue(t) && !slices.Contains(Blobs(), t)
}

// Written is a as stock has such an object: with an empty CKA_VALUE where it looks for one.
// It shares its values with a.
func Written(a p11.Attributes) p11.Attributes {
	if kt, _ := a.KeyType(); !Secured(a) || kt == p11.CKK_RSA || a.Has(p11.CKA_VALUE) {
		return a
	}
	return append(slices.Clip(a), p11.Attribute{Type: p11.CKA_VALUE, Value: []byte{}})
}

// pointOf is CKA_EC_POINT in DER of a point that is so already, or bare, with up to one byte
// behind it. What is no such point stays what it is.
func pointOf(a p11.Attributes, b []byte) []byte {
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	c, err := pkix.CurveOf(params)
	if err != nil || c.Bits == 0 {
		return b
	}
	size := c.KeySize()
	if size == 0 {
		size = 1 + 2*c.Size()
	}
	// A bare point may begin as DER does. Its length tells, as DER is longer by two at least.
	if len(b) == size || len(b) == size+1 {
		if c.KeySize() == 0 && b[0] != 4 {
			return b
		}
		return pkix.DERPoint(b[:size])
	}
	var point cryptobyte.String
	rest := cryptobyte.String(b)
	if rest.ReadASN1(&point, cbasn1.OCTET_STRING) && len(rest) <= 1 {
		return bytes.Clone(b[:len(b)-len(rest)])
	}
	return b
}
