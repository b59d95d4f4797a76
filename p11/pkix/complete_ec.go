package pkix

import (
	"bytes"
	"crypto/ecdh"
	"encoding/asn1"

	"p11fs/p11"
)

// completeEC checks the point of an elliptic curve key, computes it from a private
// value where the curve is known, and returns CKA_PUBLIC_KEY_INFO, nil when it
// cannot be made.
func completeEC(attrs *p11.Attributes, t p11.KeyType) ([]byte, error) {
	params, ok := attrs.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, missing(p11.CKA_EC_PARAMS)
	}
	curve := namedCurve(params)
	point, err := ecPoint(*attrs, t)
	if err != nil {
		return nil, err
	}
	if curve != nil && point != nil {
		if _, err := curve.NewPublicKey(point); err != nil {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is not on the curve")
		}
	}
	if class, _ := attrs.Class(); class == p11.CKO_PRIVATE_KEY && curve != nil {
		own, err := publicPoint(*attrs, curve)
		if err != nil {
			return nil, err
		}
		if point != nil && !bytes.Equal(point, own) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: does not belong to the value")
		}
		point = own
	} else if point != nil {
		attrs.Set(p11.CKA_EC_POINT, octetString(point))
	}
	if point == nil {
		return nil, nil
	}
	return ecPublicKeyInfo(params, point, t)
}

// ecPoint returns the point as bytes: CKA_EC_POINT is the DER of an OCTET STRING
// (PKCS#11 v3.1 §6.3.3), but for some makers the bytes themselves.
func ecPoint(attrs p11.Attributes, t p11.KeyType) ([]byte, error) {
	b, ok := attrs.Get(p11.CKA_EC_POINT)
	if !ok || len(b) == 0 {
		return nil, nil
	}
	var point []byte
	if rest, err := asn1.Unmarshal(b, &point); err == nil && len(rest) == 0 {
		return point, nil
	}
	if t == p11.CKK_EC && b[0] >= 2 && b[0] <= 4 || t != p11.CKK_EC && (len(b) == 32 || len(b) == 56 || len(b) == 57) {
		return b, nil
	}
	return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is no point")
}

// namedCurve returns the curve of CKA_EC_PARAMS, nil for one that is not known
// here.
func namedCurve(params []byte) ecdh.Curve {
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil
	}
	switch oid.String() {
	case "1.2.840.10045.3.1.7":
		return ecdh.P256()
	case "1.3.132.0.34":
		return ecdh.P384()
	case "1.3.132.0.35":
		return ecdh.P521()
	}
	return nil
}

// publicPoint computes the point of a private value.
func publicPoint(attrs p11.Attributes, curve ecdh.Curve) ([]byte, error) {
	value, ok := attrs.Get(p11.CKA_VALUE)
	if !ok {
		return nil, missing(p11.CKA_VALUE)
	}
	size := map[ecdh.Curve]int{ecdh.P256(): 32, ecdh.P384(): 48, ecdh.P521(): 66}[curve]
	scalar := bytes.TrimLeft(value, "\x00")
	if len(scalar) > size {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is too long for the curve")
	}
	padded := make([]byte, size)
	defer clear(padded)
	copy(padded[size-len(scalar):], scalar)
	key, err := curve.NewPrivateKey(padded)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is no private key of the curve")
	}
	return key.PublicKey().Bytes(), nil
}

// ecPublicKeyInfo makes CKA_PUBLIC_KEY_INFO (RFC 5480, RFC 8410).
func ecPublicKeyInfo(params, point []byte, t p11.KeyType) ([]byte, error) {
	if t == p11.CKK_EC {
		return buildSPKI(oidEC, params, point)
	}
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(params, &oid); err != nil || len(rest) > 0 {
		return nil, nil // named in words: no algorithm identifier to take over
	}
	return buildSPKI(oid.String(), nil, point)
}
