package swtok

import (
	"bytes"
	"crypto/ecdh"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// A Curve is a named prime curve with cofactor 1.
type Curve struct {
	// Name is the name in FIPS 186, such as "P-256".
	Name string
	// Bits is the length of the field and of the order.
	Bits int
	// Size is the length in bytes of a coordinate, and of r and of s.
	Size int

	oid    asn1.ObjectIdentifier
	params []byte // CKA_EC_PARAMS
	ecdh   ecdh.Curve
	sign   elliptic.Curve
}

// curves are the curves that both providers do in constant time, for signing
// and for key agreement. P-224 is not among them: Go's library does not agree
// on keys with it.
var curves = [...]*Curve{ //nolint:gochecknoglobals // a table, never written
	newCurve("P-256", 256, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, ecdh.P256(), elliptic.P256()),
	newCurve("P-384", 384, asn1.ObjectIdentifier{1, 3, 132, 0, 34}, ecdh.P384(), elliptic.P384()),
	newCurve("P-521", 521, asn1.ObjectIdentifier{1, 3, 132, 0, 35}, ecdh.P521(), elliptic.P521()),
}

func newCurve(name string, bits int, oid asn1.ObjectIdentifier, e ecdh.Curve, s elliptic.Curve) *Curve {
	params, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return &Curve{Name: name, Bits: bits, Size: (bits + 7) / 8, oid: oid, params: params, ecdh: e, sign: s}
}

// curveOf finds the curve that CKA_EC_PARAMS names (PKCS#11 v3.1 §6.3.3): an
// object identifier, or since 3.0 a PrintableString.
func curveOf(params []byte) (*Curve, error) {
	for _, c := range curves {
		if bytes.Equal(c.params, params) {
			return c, nil
		}
	}
	in := cryptobyte.String(params)
	var oid asn1.ObjectIdentifier
	if in.ReadASN1ObjectIdentifier(&oid) && in.Empty() {
		return nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %s is not supported; P-256, P-384 and P-521 are", oid)
	}
	in = cryptobyte.String(params)
	var name cryptobyte.String
	if in.ReadASN1(&name, cbasn1.PrintableString) && in.Empty() {
		for _, c := range curves {
			if c.Name == string(name) || curveAlias(string(name)) == c.Name {
				return c, nil
			}
		}
		return nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %q is not supported; P-256, P-384 and P-521 are", string(name))
	}
	return nil, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "CKA_EC_PARAMS does not name a curve")
}

func curveAlias(name string) string {
	switch name {
	case "secp256r1", "prime256v1":
		return "P-256"
	case "secp384r1":
		return "P-384"
	case "secp521r1":
		return "P-521"
	}
	return ""
}

// rawPoint returns the uncompressed point in b, which is a DER OCTET STRING of
// it as CKA_EC_POINT should be, or the bare point as some programs write it.
func (c *Curve) rawPoint(b []byte) ([]byte, bool) {
	n := 1 + 2*c.Size
	if len(b) == n && b[0] == 4 {
		return b, true
	}
	in := cryptobyte.String(b)
	var p cryptobyte.String
	if in.ReadASN1(&p, cbasn1.OCTET_STRING) && in.Empty() && len(p) == n && p[0] == 4 {
		return p, true
	}
	return nil, false
}

// derPoint is CKA_EC_POINT.
func derPoint(point []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1OctetString(point)
	return b.BytesOrPanic()
}

// derSignature turns r and s of size bytes each into the ASN.1 form.
func derSignature(sig []byte, size int) ([]byte, bool) {
	if len(sig) != 2*size {
		return nil, false
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(sig)+12))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[:size]))
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[size:]))
	})
	der, err := b.Bytes()
	return der, err == nil
}

// rawSignature is the reverse.
func rawSignature(der []byte, size int) ([]byte, error) {
	in := cryptobyte.String(der)
	var seq cryptobyte.String
	var r, s []byte
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() ||
		!seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) || !seq.Empty() ||
		len(r) > size || len(s) > size {
		return nil, errors.New("malformed ECDSA signature")
	}
	out := make([]byte, 2*size)
	copy(out[size-len(r):], r)
	copy(out[2*size-len(s):], s)
	return out, nil
}
