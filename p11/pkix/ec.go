package pkix

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// maxField is the longest field element taken, in bytes (P-521).
const maxField = 66

// CurveOf returns the curve that CKA_EC_PARAMS names: by its object identifier, or,
// since PKCS#11 v3.0, as a PrintableString (v3.1 §6.3.3). Of a curve that the table
// does not have it returns the OID alone.
func CurveOf(params []byte) (p11.Curve, error) {
	var name cryptobyte.String
	in := cryptobyte.String(params)
	if !in.ReadASN1(&name, cbasn1.PrintableString) || !in.Empty() {
		return curveByOID(params)
	}
	c, ok := p11.CurveNamed(string(name))
	if !ok {
		return c, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %q is not known", clip(string(name)))
	}
	return c, nil
}

// curveByOID is CurveOf for the files that name curves by object identifiers only.
func curveByOID(params []byte) (p11.Curve, error) {
	var oid asn1.ObjectIdentifier
	in := cryptobyte.String(params)
	switch {
	case len(params) == 0:
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the EC key does not name its curve")
	case in.PeekASN1Tag(cbasn1.SEQUENCE):
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "an EC key with explicit curve parameters is not supported, only named curves")
	case !in.ReadASN1ObjectIdentifier(&oid) || !in.Empty():
		return p11.Curve{}, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "the curve of the EC key is damaged")
	}
	if c, ok := p11.CurveOf(params); ok {
		return c, nil
	}
	return p11.Curve{OID: oid.String()}, nil
}

// ECPrivate checks the private value of an EC key on a curve whose arithmetic Go
// has. It returns the value in its full length, to be wiped by the caller, and the
// uncompressed point that belongs to it. Old writers drop or add zeros in front.
func ECPrivate(c p11.Curve, value []byte) (scalar, point []byte, err error) {
	size := (c.Elliptic.Params().N.BitLen() + 7) / 8
	short := bytes.TrimLeft(value, "\x00")
	if len(short) > size {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is too long for the curve")
	}
	scalar = make([]byte, size)
	copy(scalar[size-len(short):], short)
	if key, err := ecdsa.ParseRawPrivateKey(c.Elliptic, scalar); err == nil {
		if point, err = key.PublicKey.Bytes(); err == nil {
			return scalar, point, nil
		}
	}
	clear(scalar)
	return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is no private key of the curve")
}

// ECPublic returns the uncompressed point in b, the value of CKA_EC_POINT or what
// the other side of a key agreement sent: bare, or in a DER OCTET STRING. It must
// lie on the curve, whose arithmetic Go has.
func ECPublic(c p11.Curve, b []byte) ([]byte, error) {
	point, ok := rawPoint(c, b)
	if !ok || len(point) != 1+2*c.Size() {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is no uncompressed point of %s", c.Name)
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(c.Elliptic, point); err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is not on the curve")
	}
	return point, nil
}

// rawPoint takes a point out of the OCTET STRING that CKA_EC_POINT should be
// (PKCS#11 v3.1 §6.3.3). Some tokens store the bare point, which for EC begins
// with the tag of OCTET STRING by chance: on a known curve its length tells.
func rawPoint(c p11.Curve, b []byte) (point []byte, ok bool) {
	switch {
	case c.KeyType == p11.CKK_EC && len(b) == 1+2*c.Size() && b[0] == 4:
		return b, true
	case len(b) == 0:
		return nil, false
	}
	var s cryptobyte.String
	in := cryptobyte.String(b)
	if in.ReadASN1(&s, cbasn1.OCTET_STRING) && in.Empty() && len(s) > 0 {
		return s, true
	}
	if c.KeyType == p11.CKK_EC_EDWARDS || c.KeyType == p11.CKK_EC_MONTGOMERY {
		return b, len(b) == 32 || len(b) == 56 || len(b) == 57
	}
	return b, b[0] >= 2 && b[0] <= 4
}

// DERPoint is CKA_EC_POINT of a point: a DER OCTET STRING (PKCS#11 v3.1 §6.3.3).
func DERPoint(point []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1OctetString(point)
	return b.BytesOrPanic() // one string always fits
}

// filePoint checks a public point of a file and returns a copy, uncompressed where
// Go has the curve's arithmetic.
func filePoint(c p11.Curve, point []byte) ([]byte, error) {
	bad := func() error {
		return p11.Errorf(p11.CKR_DATA_INVALID, "the public point of the EC key is not on its curve")
	}
	if len(point) < 2 || len(point) > 1+2*maxField {
		return nil, bad()
	}
	switch compressed := point[0] == 2 || point[0] == 3; {
	case c.Elliptic == nil:
		if point[0] != 4 && !compressed || point[0] == 4 && len(point)%2 == 0 {
			return nil, bad()
		}
		return bytes.Clone(point), nil
	case compressed:
		x, y := elliptic.UnmarshalCompressed(c.Elliptic, point)
		if x == nil {
			return nil, bad()
		}
		out := make([]byte, 1+2*c.Size())
		out[0] = 4
		x.FillBytes(out[1 : 1+c.Size()])
		y.FillBytes(out[1+c.Size():])
		return out, nil
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(c.Elliptic, point); err != nil {
		return nil, bad()
	}
	return bytes.Clone(point), nil
}

// filePrivate checks a private value of a file against the public point that came
// with it, which may be nil, and returns copies of both. Keys of curves that Go has
// not the arithmetic of are taken as they are, if they bring their point.
func filePrivate(c p11.Curve, d, point []byte) (value, public []byte, err error) {
	if point != nil {
		if public, err = filePoint(c, point); err != nil {
			return nil, nil, err
		}
	}
	if c.Elliptic == nil {
		switch {
		case point == nil:
			return nil, nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "an EC key on curve %s needs its public key beside it", clip(c.OID))
		case len(d) > maxField:
			return nil, nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the EC key is too long")
		}
		return bytes.Clone(d), public, nil
	}
	value, own, err := ECPrivate(c, d)
	switch {
	case err != nil:
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the EC private key is out of range")
	case point != nil && !bytes.Equal(public, own):
		clear(value)
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the private and the public half of the EC key do not belong together")
	}
	return value, own, nil
}

// completeEC checks the point of an elliptic curve key, computes it from a private
// value where the curve is known, and returns CKA_PUBLIC_KEY_INFO, nil when it
// cannot be made.
func completeEC(attrs *p11.Attributes, t p11.KeyType) ([]byte, error) {
	params, ok := attrs.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, missing(p11.CKA_EC_PARAMS)
	}
	curve, _ := curveByOID(params) // what names no curve is stored as it is
	if curve.Name == "" {
		curve.KeyType = t
	}
	value, _ := attrs.Get(p11.CKA_EC_POINT)
	point, ok := rawPoint(curve, value)
	if !ok && len(value) > 0 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is no point")
	}
	if curve.Elliptic != nil && point != nil {
		var err error
		if point, err = ECPublic(curve, point); err != nil {
			return nil, err
		}
	}
	if class, _ := attrs.Class(); class == p11.CKO_PRIVATE_KEY && curve.Elliptic != nil {
		value, ok := attrs.Get(p11.CKA_VALUE)
		if !ok {
			return nil, missing(p11.CKA_VALUE)
		}
		scalar, own, err := ECPrivate(curve, value)
		if err != nil {
			return nil, err
		}
		clear(scalar)
		if point != nil && !bytes.Equal(point, own) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: does not belong to the value")
		}
		point = own
	} else if point != nil {
		attrs.Set(p11.CKA_EC_POINT, DERPoint(point))
	}
	if point == nil {
		return nil, nil
	}
	return ecSPKI(params, point, t)
}

// ecSPKI makes CKA_PUBLIC_KEY_INFO (RFC 5480, RFC 8410).
func ecSPKI(params, point []byte, t p11.KeyType) ([]byte, error) {
	if t == p11.CKK_EC {
		return buildSPKI(oidEC, params, point)
	}
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil, nil // named in words: no algorithm identifier to take over
	}
	return buildSPKI(oid.String(), nil, point)
}

// ed25519Params is CKA_EC_PARAMS of an Ed25519 key: the OID of RFC 8410 §3,
// which PKCS#11 v3.1 §6.3.5 allows beside the curve's name.
func ed25519Params() []byte { return []byte{0x06, 0x03, 0x2b, 0x65, 0x70} }
