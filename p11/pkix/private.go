package pkix

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// readPKCS8 takes a PrivateKeyInfo or OneAsymmetricKey (RFC 5958 §2) apart.
func readPKCS8(der []byte) (t keyType, alg algorithm, key []byte, err error) {
	alg, key, ok := splitPKCS8(der)
	if !ok {
		return t, alg, nil, invalid(formPKCS8)
	}
	t, err = keyTypeByOID(alg.oid)
	return t, alg, key, err
}

// splitPKCS8 is readPKCS8 for an algorithm that may be any.
func splitPKCS8(der []byte) (alg algorithm, key []byte, ok bool) {
	var s cryptobyte.String
	var version int64
	in := cryptobyte.String(der)
	ok = in.ReadASN1(&s, asn1.SEQUENCE) && in.Empty() &&
		s.ReadASN1Integer(&version) && version >= 0 && version <= 1
	if ok {
		alg, ok = readAlgorithm(&s)
	}
	ok = ok && s.ReadASN1((*cryptobyte.String)(&key), asn1.OCTET_STRING)
	return alg, key, ok
}

// pkcs8 reads a private key of any algorithm.
func (p *parser) pkcs8(der []byte, label string) error {
	t, alg, key, err := readPKCS8(der)
	if err != nil {
		return err
	}
	return p.private(t, alg, key, label)
}

// private reads a private key.
func (p *parser) private(t keyType, alg algorithm, key []byte, label string) error {
	priv, pub, err := t.readPrivate(alg, key)
	if err == nil && pub == nil { // without it there is no CKA_ID to find the key by
		pub, err = p.publicHalf(&priv)
	}
	if err != nil {
		priv.Wipe()
		return dataInvalid(err)
	}
	return p.addKeys(t, label, priv, pub)
}

// publicHalf makes the public half of an EC key on a curve that Go has not the arithmetic
// of.
func (p *parser) publicHalf(priv *p11.Attributes) (p11.Attributes, error) {
	params, _ := priv.Get(p11.CKA_EC_PARAMS)
	c, err := CurveOf(params)
	if err != nil {
		return nil, err
	}
	if p.arithmetic == nil || !p.arithmetic.HasCurve(c) {
		return nil, p11.Errorf(p11.CKR_DATA_INVALID, "an EC key on curve %s needs its public key beside it", clip(c.OID))
	}
	value, _ := priv.Get(p11.CKA_VALUE)
	scalar, point, err := ECPrivate(p.arithmetic, c, value)
	if err != nil {
		return nil, err
	}
	secret.Wipe(scalar)
	pub := pointAttributes(params, point)
	*priv = priv.Merge(pub)
	return pub, nil
}

// DecodePrivateKey reads a PrivateKeyInfo into the key type and the attributes of
// its value. Errors wrap CKR_DATA_INVALID, CKR_DATA_LEN_RANGE,
// CKR_DOMAIN_PARAMS_INVALID or CKR_CURVE_NOT_SUPPORTED.
func DecodePrivateKey(der []byte) (p11.Attributes, error) {
	t, alg, key, err := readPKCS8(der)
	if err != nil {
		return nil, err
	}
	a, _, err := t.readPrivate(alg, key)
	if err != nil {
		return nil, err
	}
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(t.kt))
	return a, nil
}

// EncodePrivateKey is the PrivateKeyInfo of a private key's attributes (PKCS#11
// v3.1 §6.7, RFC 5208), to be wiped by the caller. A type that has none here gives
// CKR_KEY_TYPE_INCONSISTENT. It is not the standard library's, which would refuse
// short RSA keys and curves that a token only stores.
func EncodePrivateKey(attrs p11.Attributes) ([]byte, error) {
	kt, _ := attrs.KeyType()
	t := keyTypeOf(kt)
	if t.writePrivate == nil {
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "private keys of type %s have no PKCS#8 here", kt)
	}
	return t.writePrivate(attrs)
}

// buildPKCS8 puts a PrivateKeyInfo together; key adds the fields of the algorithm's
// own structure.
func buildPKCS8(alg algorithm, key func(*cryptobyte.Builder)) ([]byte, error) {
	return buildPKCS8Of(alg, func(b *cryptobyte.Builder) { b.AddASN1(asn1.SEQUENCE, key) })
}

// buildPKCS8Of is buildPKCS8 for an algorithm whose private key is not a structure of
// fields; key adds all of it.
func buildPKCS8Of(alg algorithm, key func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		addAlgorithm(b, alg)
		b.AddASN1(asn1.OCTET_STRING, key)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "private key: %v", err)
	}
	return der, nil
}
