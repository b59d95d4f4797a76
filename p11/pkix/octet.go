package pkix

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"

	"github.com/cloudflare/circl/dh/x448"
	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// octetTypes are the keys of Ed25519, Ed448, X25519 and X448, which are strings of
// bytes (RFC 8410). The curve is the algorithm, which in PKCS#11 is one of two key types
// with CKA_EC_PARAMS (PKCS#11 v3.1 §6.3.5 to §6.3.8).
func octetTypes() (list []keyType) {
	for _, c := range p11.Curves() {
		if c.KeySize() != 0 {
			list = append(list, octetType(c))
		}
	}
	return list
}

func octetType(c p11.Curve) keyType {
	return keyType{
		kt: c.KeyType, oid: c.OID,
		// These three go by the attributes, which may be of the other curve of the type.
		complete: completeOctet, info: octetInfo, writePrivate: writeOctet,
		readPublic: func(_ algorithm, bits []byte) (p11.Attributes, error) {
			if len(bits) != c.KeySize() {
				return nil, invalid(formSPKI)
			}
			return pointAttributes(c.Params(), bits), nil
		},
		readPrivate: func(_ algorithm, key []byte) (priv, pub p11.Attributes, err error) {
			in := cryptobyte.String(key)
			var value cryptobyte.String
			if !in.ReadASN1(&value, cbasn1.OCTET_STRING) || !in.Empty() {
				return nil, nil, invalid(formPKCS8)
			}
			point, err := OctetPublic(c, value)
			if err != nil {
				return nil, nil, invalid(formPKCS8)
			}
			priv.Set(p11.CKA_EC_PARAMS, c.Params())
			priv.Set(p11.CKA_VALUE, bytes.Clone(value))
			return priv, pointAttributes(c.Params(), point), nil
		},
		golang: func(_ algorithm, bits []byte) (any, error) {
			if c.Name != "ed25519" {
				return nil, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "OpenSSH has no form for this key")
			}
			return ed25519.PublicKey(bits), nil
		},
	}
}

// OctetCurve finds the curve that params, the value of CKA_EC_PARAMS, name, which must
// be one of kt: CKK_EC_EDWARDS or CKK_EC_MONTGOMERY. Errors are those of CurveOf.
func OctetCurve(kt p11.KeyType, params []byte) (p11.Curve, error) {
	c, err := CurveOf(params)
	switch {
	case err != nil:
		return c, err
	case c.Name == "":
		return c, p11.Errorf(p11.CKR_CURVE_NOT_SUPPORTED, "the curve %s is not supported", clip(c.OID))
	case c.KeyType != kt:
		return c, p11.Errorf(p11.CKR_DOMAIN_PARAMS_INVALID, "ec-params: %s is no curve of %s keys", c.Name, kt.Short())
	}
	return c, nil
}

// OctetPublic computes the public key of a private key on a curve of RFC 7748 or RFC
// 8032, of Curve.KeySize bytes each. A private key of another length gives
// CKR_ATTRIBUTE_VALUE_INVALID.
func OctetPublic(c p11.Curve, private []byte) ([]byte, error) {
	if n := c.KeySize(); n == 0 || len(private) != n {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is not the %d bytes of a private key of %s", n, c.Name)
	}
	switch c.Name {
	case "ed25519":
		whole := ed25519.NewKeyFromSeed(private)
		defer secret.Wipe(whole)
		return bytes.Clone(whole[len(private):]), nil
	case "ed448":
		whole := ed448.NewKeyFromSeed(private)
		defer secret.Wipe(whole)
		return bytes.Clone(whole[len(private):]), nil
	case "x448":
		var public, scalar x448.Key
		copy(scalar[:], private)
		defer secret.Wipe(scalar[:])
		x448.KeyGen(&public, &scalar)
		return public[:], nil
	}
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: %v", err)
	}
	return k.PublicKey().Bytes(), nil
}

// OctetPoint returns the bytes of a public key out of b, the value of CKA_EC_POINT or
// what the other side of a key agreement sent. PKCS#11 v3.0 §2.3.5 has it in DER, where
// tokens and programs take an OCTET STRING and some a BIT STRING; v3.1 §6.3.5, and
// openCryptoki, as it is. The length tells which.
func OctetPoint(c p11.Curve, b []byte) ([]byte, error) {
	point, ok := octetPoint(c, b)
	if !ok {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is not the %d bytes of a public key of %s", c.KeySize(), c.Name)
	}
	return point, nil
}

func octetPoint(c p11.Curve, b []byte) (point []byte, ok bool) {
	n := c.KeySize()
	if len(b) == n {
		return b, true
	}
	var s cryptobyte.String
	in := cryptobyte.String(b)
	if in.PeekASN1Tag(cbasn1.BIT_STRING) {
		ok = in.ReadASN1BitStringAsBytes((*[]byte)(&s))
	} else {
		ok = in.ReadASN1(&s, cbasn1.OCTET_STRING)
	}
	return s, ok && in.Empty() && len(s) == n
}

// completeOctet checks the public key, or computes it from the private one, and returns
// CKA_PUBLIC_KEY_INFO, nil for a public key without its point. Any bytes of the length
// are a public key: those that are no point verify nothing.
func completeOctet(attrs *p11.Attributes, class p11.ObjectClass) ([]byte, error) {
	params, ok := attrs.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, missing(p11.CKA_EC_PARAMS)
	}
	kt, _ := attrs.KeyType()
	c, err := OctetCurve(kt, params)
	if err != nil {
		return nil, err
	}
	attrs.Set(p11.CKA_EC_PARAMS, c.Params())
	var point []byte
	if given, _ := attrs.Get(p11.CKA_EC_POINT); len(given) > 0 {
		if point, err = OctetPoint(c, given); err != nil {
			return nil, err
		}
	}
	if class == p11.CKO_PRIVATE_KEY {
		value, ok := attrs.Get(p11.CKA_VALUE)
		if !ok {
			return nil, missing(p11.CKA_VALUE)
		}
		own, err := OctetPublic(c, value)
		switch {
		case err != nil:
			return nil, err
		case point != nil && !bytes.Equal(point, own):
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: does not belong to the value")
		}
		point = own
	}
	if point == nil {
		return nil, nil
	}
	attrs.Set(p11.CKA_EC_POINT, DERPoint(point))
	return buildSPKI(algorithm{oid: c.OID}, point)
}

// octetOf finds the curve of a key to be written.
func octetOf(attrs p11.Attributes) (p11.Curve, error) {
	params, _ := attrs.Get(p11.CKA_EC_PARAMS)
	c, err := CurveOf(params)
	if err != nil || c.KeySize() == 0 {
		return c, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "no key file for this curve")
	}
	return c, nil
}

// octetInfo is the SubjectPublicKeyInfo of a key that tells its public half.
func octetInfo(attrs p11.Attributes) ([]byte, error) {
	_, point, err := ownPoint(attrs)
	if err != nil {
		return nil, err
	}
	c, err := octetOf(attrs)
	switch {
	case err != nil:
		return nil, err
	case len(point) != c.KeySize():
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ec-point: is not %d bytes", c.KeySize())
	}
	return buildSPKI(algorithm{oid: c.OID}, point)
}

// writeOctet returns the PrivateKeyInfo of a key: in its first version, which has no
// place for the public half and which every program reads.
func writeOctet(attrs p11.Attributes) ([]byte, error) {
	value, _ := attrs.Get(p11.CKA_VALUE)
	c, err := octetOf(attrs)
	switch {
	case err != nil:
		return nil, err
	case len(value) != c.KeySize():
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value: is not %d bytes", c.KeySize())
	}
	return buildPKCS8Of(algorithm{oid: c.OID}, func(b *cryptobyte.Builder) { b.AddASN1OctetString(value) })
}
