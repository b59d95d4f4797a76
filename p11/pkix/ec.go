package pkix

import (
	"bytes"
	"crypto/ecdsa"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

const oidEC = "1.2.840.10045.2.1"

// ecType is the keys of Weierstrass curves (RFC 5480, RFC 5915).
func ecType() keyType {
	return keyType{
		kt: p11.CKK_EC, oid: oidEC, complete: completeEC, writePrivate: writeECPrivate,
		readPublic: func(alg algorithm, bits []byte) (p11.Attributes, error) {
			c, err := CurveOf(alg.params)
			if err != nil {
				return nil, err
			}
			point, err := filePoint(c, bits)
			if err != nil {
				return nil, err
			}
			return pointAttributes(curveParams(c, alg.params), point), nil
		},
		readPrivate: readECPrivate,
		info: func(attrs p11.Attributes) ([]byte, error) {
			params, point, err := ownPoint(attrs)
			if err != nil {
				return nil, err
			}
			return buildSPKI(algorithm{oidEC, params}, point)
		},
		golang: func(alg algorithm, bits []byte) (any, error) {
			c, err := CurveOf(alg.params)
			if err != nil {
				return nil, dataInvalid(err)
			}
			if c.Elliptic == nil {
				return nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "curve %s is not supported here", clip(c.OID))
			}
			point, err := filePoint(c, bits)
			if err != nil {
				return nil, err
			}
			return ecdsa.ParseUncompressedPublicKey(c.Elliptic, point)
		},
	}
}

// pointAttributes are those of the public keys that are a point on a curve.
func pointAttributes(params, point []byte) (pub p11.Attributes) {
	pub.Set(p11.CKA_EC_PARAMS, bytes.Clone(params))
	pub.Set(p11.CKA_EC_POINT, DERPoint(point))
	return pub
}

// ownPoint returns the curve and the point that a key tells.
func ownPoint(attrs p11.Attributes) (params, point []byte, err error) {
	params, _ = attrs.Get(p11.CKA_EC_PARAMS)
	value, _ := attrs.Get(p11.CKA_EC_POINT)
	if len(params) == 0 || len(value) == 0 {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its public point")
	}
	c, err := CurveOf(params)
	if err != nil {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-params: %v", err)
	}
	point, ok := rawPoint(c, value)
	if !ok {
		point = value // whatever it is
	}
	return curveParams(c, params), point, nil
}

// filePrivate checks a private value of a file against the public point that came
// with it, which may be nil, and returns copies of both. Keys of curves that Go has
// not the arithmetic of are taken as they are, without a point if they bring none.
func filePrivate(c p11.Curve, d, point []byte) (value, public []byte, err error) {
	if point != nil {
		if public, err = filePoint(c, point); err != nil {
			return nil, nil, err
		}
	}
	if c.Elliptic == nil {
		if len(d) > maxField {
			return nil, nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the EC key is too long")
		}
		return bytes.Clone(d), public, nil
	}
	value, own, err := ECPrivate(GoArithmetic{}, c, d)
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
func completeEC(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
	params, ok := attrs.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, missing(p11.CKA_EC_PARAMS)
	}
	curve, err := CurveOf(params)
	kt, _ := attrs.KeyType()
	switch {
	case err != nil:
		return nil, err
	case curve.Name == "":
		curve.KeyType = kt
	case curve.KeyType != kt:
		return nil, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "ec-params: %s is no curve of %s keys", curve.Name, kt.Short())
	}
	params = curveParams(curve, params)
	attrs.Set(p11.CKA_EC_PARAMS, params)
	value, _ := attrs.Get(p11.CKA_EC_POINT)
	point, ok := rawPoint(curve, value)
	if !ok && len(value) > 0 {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is no point")
	}
	if curve.Elliptic != nil && point != nil {
		if point, err = ECPublic(GoArithmetic{}, curve, point); err != nil {
			return nil, err
		}
	}
	if class == p11.CKO_PRIVATE_KEY && curve.Elliptic != nil {
		value, ok := attrs.Get(p11.CKA_VALUE)
		if !ok {
			return nil, missing(p11.CKA_VALUE)
		}
		scalar, own, err := ECPrivate(GoArithmetic{}, curve, value)
		if err != nil {
			return nil, err
		}
		clear(scalar)
		if point != nil && !bytes.Equal(point, own) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: does not belong to the value")
		}
		point = own
	}
	if point == nil {
		return nil, nil
	}
	attrs.Set(p11.CKA_EC_POINT, DERPoint(point))
	return buildSPKI(algorithm{oidEC, params}, point)
}

// readECPrivate reads an ECPrivateKey (RFC 5915 §3), whose curve alg names where it
// stands in PKCS#8.
func readECPrivate(alg algorithm, der []byte) (priv, pub p11.Attributes, err error) {
	var s, d, field, bits cryptobyte.String
	var version int64
	var hasParams, hasPoint bool
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() ||
		!s.ReadASN1Integer(&version) || version != 1 ||
		!s.ReadASN1(&d, cbasn1.OCTET_STRING) || len(d) == 0 ||
		!s.ReadOptionalASN1(&field, &hasParams, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!s.ReadOptionalASN1(&bits, &hasPoint, cbasn1.Tag(1).ContextSpecific().Constructed()) {
		return nil, nil, invalid(formSEC1)
	}
	params := alg.params
	if params == nil {
		params = field
	}
	c, err := CurveOf(params)
	if hasParams && err == nil {
		if inner, innerErr := CurveOf(field); innerErr != nil || inner.OID != c.OID {
			err = p11.Errorf(p11.CKR_DATA_INVALID, "the EC key names two different curves")
		}
	}
	if err != nil {
		return nil, nil, err
	}
	var point []byte
	if hasPoint && (!bits.ReadASN1BitStringAsBytes(&point) || !bits.Empty()) {
		return nil, nil, invalid(formSEC1)
	}
	value, point, err := filePrivate(c, d, point)
	if err != nil {
		return nil, nil, err
	}
	params = curveParams(c, params)
	priv.Set(p11.CKA_EC_PARAMS, bytes.Clone(params))
	priv.Set(p11.CKA_VALUE, value)
	if point == nil {
		return priv, nil, nil
	}
	if pub = pointAttributes(params, point); c.Elliptic == nil {
		priv = priv.Merge(pub) // the token that takes it looks whether they belong together
	}
	return priv, pub, nil
}

// writeECPrivate returns the PrivateKeyInfo of a key. One of a curve that Go has not the
// arithmetic of has the point that its attributes tell.
func writeECPrivate(attrs p11.Attributes) ([]byte, error) {
	params, _ := attrs.Get(p11.CKA_EC_PARAMS)
	value, _ := attrs.Get(p11.CKA_VALUE)
	var point []byte
	if c, err := CurveOf(params); err == nil && c.Elliptic != nil {
		scalar, own, err := ECPrivate(GoArithmetic{}, c, value)
		if err != nil {
			return nil, err
		}
		defer secret.Wipe(scalar)
		params, value, point = c.Params(), scalar, own
	} else if told, ok := attrs.Get(p11.CKA_EC_POINT); ok {
		point, _ = rawPoint(c, told)
	}
	return buildPKCS8(algorithm{oidEC, params}, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1OctetString(value)
		if point != nil {
			b.AddASN1(cbasn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1BitString(point) })
		}
	})
}
