package pkix

import (
	"crypto/sha1"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
)

// keyID is the CKA_ID of a key: see the package comment.
func keyID(publicBits []byte) []byte {
	sum := sha1.Sum(publicBits)
	return sum[:]
}

// KeyID is the CKA_ID that a key has where nobody gives it another: the one of its
// public half by CKA_PUBLIC_KEY_INFO.
func KeyID(attrs p11.Attributes) (id []byte, ok bool) {
	info, _ := attrs.Get(p11.CKA_PUBLIC_KEY_INFO)
	_, bits, ok := readSPKI(info)
	if !ok {
		return nil, false
	}
	return keyID(bits), true
}

// spki reads a SubjectPublicKeyInfo (RFC 5280 §4.1).
func (p *parser) spki(der []byte) error {
	alg, bits, ok := readSPKI(der)
	if !ok {
		return invalid(formSPKI)
	}
	return p.public(alg, bits)
}

// public reads a public key.
func (p *parser) public(alg algorithm, bits []byte) error {
	t, err := keyTypeByOID(alg.oid)
	if err != nil {
		return err
	}
	pub, err := t.readPublic(alg, bits)
	if err != nil {
		return dataInvalid(err)
	}
	return p.addKeys(t, "", nil, pub)
}

// addKeys takes over the templates of a pair, or of a public key alone.
func (p *parser) addKeys(t keyType, label string, priv, pub p11.Attributes) error {
	info, err := t.info(pub)
	if err != nil {
		priv.Wipe()
		return err
	}
	_, bits, _ := readSPKI(info)
	id := keyID(bits)
	if priv != nil {
		priv.SetUlong(p11.CKA_KEY_TYPE, uint64(t.kt))
		if err := p.add(p11.CKO_PRIVATE_KEY, id, label, priv); err != nil {
			return err
		}
	}
	pub.SetUlong(p11.CKA_KEY_TYPE, uint64(t.kt))
	return p.add(p11.CKO_PUBLIC_KEY, id, label, pub)
}

// dataInvalid is an error of a file.
func dataInvalid(err error) error {
	if p11.RVOf(err) == p11.CKR_DATA_LEN_RANGE {
		return err
	}
	return p11.Errorf(p11.CKR_DATA_INVALID, "%v", err)
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
		value, err := certificateDER(attrs)
		if err != nil {
			return nil, err
		}
		c, _, ok := readCertificate(value)
		if !ok {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s that is damaged", formCertificate)
		}
		return c.spki, nil
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
	default:
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "an object of class %s has no public key", class.Short())
	}
	if info, ok := attrs.Get(p11.CKA_PUBLIC_KEY_INFO); ok && len(info) > 0 {
		if t, pub, ok := publicAttributes(info); ok {
			return t.info(pub) // with the curve named as every program reads it
		}
		if _, _, ok := readSPKI(info); ok {
			return info, nil
		}
	}
	kt, _ := attrs.KeyType()
	t := keyTypeOf(kt)
	if t.info == nil {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "no public key file for keys of type %s", kt.Short())
	}
	return t.info(attrs)
}

// PublicAttributes reads a SubjectPublicKeyInfo into the key type and the attributes of a
// public key's value. Errors wrap CKR_DATA_INVALID.
func PublicAttributes(info []byte) (p11.Attributes, error) {
	_, pub, ok := publicAttributes(info)
	if !ok {
		return nil, invalid(formSPKI)
	}
	return pub, nil
}

// publicAttributes reads a SubjectPublicKeyInfo of a key type that is known.
func publicAttributes(info []byte) (t keyType, pub p11.Attributes, ok bool) {
	alg, bits, ok := readSPKI(info)
	t, err := keyTypeByOID(alg.oid)
	if !ok || err != nil {
		return t, nil, false
	}
	if pub, err = t.readPublic(alg, bits); err != nil {
		return t, nil, false
	}
	pub.SetUlong(p11.CKA_KEY_TYPE, uint64(t.kt))
	return t, pub, true
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
	t, err := keyTypeByOID(alg.oid)
	if err != nil {
		return nil, err
	}
	return t.golang(alg, bits)
}

// buildSPKI puts a SubjectPublicKeyInfo together.
func buildSPKI(alg algorithm, bits []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, alg)
		b.AddASN1BitString(bits)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public key: %v", err)
	}
	return der, nil
}
