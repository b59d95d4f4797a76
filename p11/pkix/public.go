package pkix

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/pem"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// keyID is the CKA_ID of a key: see the package comment.
func keyID(publicBits []byte) []byte {
	sum := sha1.Sum(publicBits)
	return sum[:]
}

// rsaPublicTemplate returns the template of an RSA public key and its CKA_ID.
func rsaPublicTemplate(n, e *big.Int) (p11.Attributes, []byte) {
	var pub p11.Attributes
	pub.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	pub.Set(p11.CKA_MODULUS, n.Bytes())
	pub.Set(p11.CKA_PUBLIC_EXPONENT, e.Bytes())
	return pub, keyID(rsaPublicDER(n, e))
}

// ecPublicTemplate does so for the keys that are a point on a curve.
func ecPublicTemplate(t p11.KeyType, params, point []byte) (p11.Attributes, []byte) {
	var pub p11.Attributes
	pub.SetUlong(p11.CKA_KEY_TYPE, uint64(t))
	pub.Set(p11.CKA_EC_PARAMS, bytes.Clone(params))
	pub.Set(p11.CKA_EC_POINT, DERPoint(point))
	return pub, keyID(point)
}

// rsaPublic reads an RSAPublicKey.
func (p *parser) rsaPublic(der []byte) error {
	n, e, err := readRSAPublic(der)
	if err != nil {
		return err
	}
	pub, id := rsaPublicTemplate(n, e)
	return p.add(p11.CKO_PUBLIC_KEY, id, "", pub)
}

// spki reads a SubjectPublicKeyInfo (RFC 5280 §4.1).
func (p *parser) spki(der []byte) error {
	alg, bits, ok := readSPKI(der)
	if !ok {
		return invalid(formSPKI)
	}
	switch alg.oid {
	case oidRSA:
		return p.rsaPublic(bits)
	case oidEC:
		c, err := curveByOID(alg.params)
		if err != nil {
			return dataInvalid(err)
		}
		point, err := filePoint(c, bits)
		if err != nil {
			return err
		}
		pub, id := ecPublicTemplate(p11.CKK_EC, alg.params, point)
		return p.add(p11.CKO_PUBLIC_KEY, id, "", pub)
	case oidEd25519:
		if len(bits) != ed25519.PublicKeySize {
			return invalid(formSPKI)
		}
		pub, id := ecPublicTemplate(p11.CKK_EC_EDWARDS, ed25519Params(), bits)
		return p.add(p11.CKO_PUBLIC_KEY, id, "", pub)
	}
	return unsupportedKey(alg.oid)
}

// readSPKI takes a SubjectPublicKeyInfo apart.
func readSPKI(der []byte) (alg algorithm, bits []byte, ok bool) {
	var s cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() {
		return alg, nil, false
	}
	if alg, ok = readAlgorithm(&s); !ok {
		return alg, nil, false
	}
	ok = s.ReadASN1BitStringAsBytes(&bits) && s.Empty()
	return alg, bits, ok
}

// PublicPEM prints the public key of a public key, a private key or a
// certificate as a PEM block of SubjectPublicKeyInfo. A private key prints if
// its attributes tell the public half: an RSA key does; an EC key by
// CKA_EC_POINT or CKA_PUBLIC_KEY_INFO only, since its value is a secret. It
// returns CKR_KEY_TYPE_INCONSISTENT for what has no public half, and
// CKR_ATTRIBUTE_TYPE_INVALID when it is not told.
func PublicPEM(attrs p11.Attributes) ([]byte, error) {
	der, err := publicDER(attrs)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// publicDER returns the SubjectPublicKeyInfo.
func publicDER(attrs p11.Attributes) ([]byte, error) {
	class, _ := attrs.Class()
	switch class {
	case p11.CKO_CERTIFICATE:
		cert, err := objectCertificate(attrs)
		if err != nil {
			return nil, err
		}
		return cert.RawSubjectPublicKeyInfo, nil
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
	default:
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "an object of class %s has no public key", class.Short())
	}
	if info, ok := attrs.Get(p11.CKA_PUBLIC_KEY_INFO); ok && len(info) > 0 {
		if _, _, ok := readSPKI(info); ok {
			return info, nil
		}
	}
	t, _ := attrs.KeyType()
	switch t {
	case p11.CKK_RSA:
		n, okN := attrs.Get(p11.CKA_MODULUS)
		e, okE := attrs.Get(p11.CKA_PUBLIC_EXPONENT)
		if !okN || !okE || len(n) == 0 || len(e) == 0 {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its modulus and public exponent")
		}
		return rsaSPKI(new(big.Int).SetBytes(n), new(big.Int).SetBytes(e))
	case p11.CKK_EC, p11.CKK_EC_EDWARDS:
		params, okP := attrs.Get(p11.CKA_EC_PARAMS)
		raw, okQ := attrs.Get(p11.CKA_EC_POINT)
		if !okP || !okQ || len(params) == 0 || len(raw) == 0 {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "the key does not tell its public point: see the public key object with the same id")
		}
		c, _ := curveByOID(params) // a point of a curve that is not known stands for itself
		point, ok := rawPoint(c, raw)
		if !ok {
			point = raw
		}
		if t == p11.CKK_EC_EDWARDS {
			return edSPKI(params, point)
		}
		if _, ok := firstElement(params); !ok {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_PARAMS is damaged")
		}
		return buildSPKI(oidEC, params, point)
	}
	return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "no public key file for keys of type %s", t.Short())
}

// edSPKI prints an Edwards key, whose curve is named by OID or by name (PKCS#11
// v3.1 §6.3.5).
func edSPKI(params, point []byte) ([]byte, error) {
	name := []byte("\x13\x0cedwards25519")
	if !bytes.Equal(params, ed25519Params()) && !bytes.Equal(params, name) {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "no public key file for this Edwards curve")
	}
	if len(point) != ed25519.PublicKeySize {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT is not %d bytes", ed25519.PublicKeySize)
	}
	return buildSPKI(oidEd25519, nil, point)
}

// publicKey returns the key in Go's types: *rsa.PublicKey, *ecdsa.PublicKey on a
// NIST curve, or ed25519.PublicKey.
func publicKey(attrs p11.Attributes) (any, error) {
	der, err := publicDER(attrs)
	if err != nil {
		return nil, err
	}
	alg, bits, ok := readSPKI(der)
	if !ok {
		return nil, invalid(formSPKI)
	}
	switch alg.oid {
	case oidRSA:
		n, e, err := readRSAPublic(bits)
		if err != nil {
			return nil, err
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case oidEC:
		c, err := curveByOID(alg.params)
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
	case oidEd25519:
		return ed25519.PublicKey(bits), nil
	}
	return nil, unsupportedKey(alg.oid)
}

// buildSPKI puts a SubjectPublicKeyInfo together.
func buildSPKI(oid string, params, bits []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, oid, params)
		b.AddASN1BitString(bits)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public key: %v", err)
	}
	return der, nil
}

// parseOID reads an object identifier in its dotted form.
func parseOID(s string) (oid asn1.ObjectIdentifier) {
	n := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			oid, n = append(oid, n), 0
			continue
		}
		n = n*10 + int(s[i]-'0')
	}
	return oid
}
