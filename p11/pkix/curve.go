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

// A curve is a named elliptic curve. Go knows the arithmetic of the NIST curves
// alone: keys of other curves are taken as they are, if they bring their public
// key.
type curve struct {
	oid   string
	known elliptic.Curve // nil for other curves
}

// maxField is the longest field element taken, in bytes (P-521).
const maxField = 66

// readCurve reads CKA_EC_PARAMS, which must name a curve.
func readCurve(params []byte) (curve, error) {
	var oid asn1.ObjectIdentifier
	in := cryptobyte.String(params)
	switch {
	case len(params) == 0:
		return curve{}, p11.Errorf(p11.CKR_DATA_INVALID, "the EC key does not name its curve")
	case in.PeekASN1Tag(cbasn1.SEQUENCE):
		return curve{}, p11.Errorf(p11.CKR_DATA_INVALID, "an EC key with explicit curve parameters is not supported, only named curves")
	case !in.ReadASN1ObjectIdentifier(&oid) || !in.Empty():
		return curve{}, p11.Errorf(p11.CKR_DATA_INVALID, "the curve of the EC key is damaged")
	}
	c := curve{oid: oid.String()}
	switch c.oid {
	case "1.3.132.0.33":
		c.known = elliptic.P224()
	case "1.2.840.10045.3.1.7":
		c.known = elliptic.P256()
	case "1.3.132.0.34":
		c.known = elliptic.P384()
	case "1.3.132.0.35":
		c.known = elliptic.P521()
	}
	return c, nil
}

// privateKey checks a private value against the public point that came with it,
// which may be nil, and returns copies of both, the point uncompressed.
func (c curve) privateKey(d, point []byte) (value, pub []byte, err error) {
	if c.known == nil {
		if point == nil {
			return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "an EC key on curve %s needs its public key beside it", clip(c.oid))
		}
		if pub, err = c.publicKey(point); err != nil {
			return nil, nil, err
		}
		if len(d) > maxField {
			return nil, nil, p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the EC key is too long")
		}
		return bytes.Clone(d), pub, nil
	}
	// The standard fixes the length; older writers drop or add zeros.
	size := (c.known.Params().N.BitLen() + 7) / 8
	for len(d) > size && d[0] == 0 {
		d = d[1:]
	}
	if len(d) > size {
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the EC private key is out of range")
	}
	value = make([]byte, size)
	copy(value[size-len(d):], d)
	key, err := ecdsa.ParseRawPrivateKey(c.known, value)
	if err != nil {
		clear(value)
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the EC private key is out of range")
	}
	derived, err := key.PublicKey.Bytes()
	if err == nil && point != nil {
		if pub, err = c.publicKey(point); err == nil && !bytes.Equal(pub, derived) {
			err = p11.Errorf(p11.CKR_DATA_INVALID, "the private and the public half of the EC key do not belong together")
		}
	}
	if err != nil {
		clear(value)
		return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "EC key: %v", err)
	}
	return value, derived, nil
}

// publicKey checks a public point and returns a copy, uncompressed where the
// curve is known.
func (c curve) publicKey(point []byte) ([]byte, error) {
	bad := func() error {
		return p11.Errorf(p11.CKR_DATA_INVALID, "the public point of the EC key is not on its curve")
	}
	if len(point) < 2 || len(point) > 1+2*maxField {
		return nil, bad()
	}
	switch compressed := point[0] == 2 || point[0] == 3; {
	case c.known == nil:
		if point[0] != 4 && !compressed || point[0] == 4 && len(point)%2 == 0 {
			return nil, bad()
		}
		return bytes.Clone(point), nil
	case compressed:
		x, y := elliptic.UnmarshalCompressed(c.known, point)
		if x == nil {
			return nil, bad()
		}
		size := (c.known.Params().BitSize + 7) / 8
		out := make([]byte, 1+2*size)
		out[0] = 4
		x.FillBytes(out[1 : 1+size])
		y.FillBytes(out[1+size:])
		return out, nil
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(c.known, point); err != nil {
		return nil, bad()
	}
	return bytes.Clone(point), nil
}

// ed25519Params is CKA_EC_PARAMS of an Ed25519 key: the OID of RFC 8410 §3,
// which PKCS#11 v3.1 §6.3.5 allows beside the curve's name.
func ed25519Params() []byte { return []byte{0x06, 0x03, 0x2b, 0x65, 0x70} }
