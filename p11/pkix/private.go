package pkix

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"p11fs/p11"
	"p11fs/secret"
)

// Algorithms of keys.
const (
	oidRSA     = "1.2.840.113549.1.1.1"
	oidRSAPSS  = "1.2.840.113549.1.1.10"
	oidRSAOAEP = "1.2.840.113549.1.1.7"
	oidEC      = "1.2.840.10045.2.1"
	oidEd25519 = "1.3.101.112"
)

// algorithm is an AlgorithmIdentifier: the OID in dots, and the whole element of
// the parameters, empty if absent.
type algorithm struct {
	oid    string
	params []byte
}

func readAlgorithm(s *cryptobyte.String) (a algorithm, ok bool) {
	var in cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&in, cbasn1.SEQUENCE) || !in.ReadASN1ObjectIdentifier(&oid) {
		return a, false
	}
	a.oid = oid.String()
	if in.Empty() {
		return a, true
	}
	var params cryptobyte.String
	var tag cbasn1.Tag
	if !in.ReadAnyASN1Element(&params, &tag) || !in.Empty() {
		return a, false
	}
	a.params = params
	return a, true
}

// unsupportedKey is the error for a key of another algorithm.
func unsupportedKey(oid string) error {
	switch oid {
	case oidRSAPSS, oidRSAOAEP:
		return p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key that is limited to one scheme (algorithm %s) is not supported", oid)
	}
	return p11.Errorf(p11.CKR_DATA_INVALID, "keys of algorithm %s are not supported: RSA, EC and Ed25519 are", clip(oid))
}

// pkcs8 reads a PrivateKeyInfo or OneAsymmetricKey (RFC 5958 §2).
func (p *parser) pkcs8(der []byte, label string) error {
	var s, key cryptobyte.String
	var version int64
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() ||
		!s.ReadASN1Integer(&version) || version < 0 || version > 1 {
		return invalid(formPKCS8)
	}
	alg, ok := readAlgorithm(&s)
	if !ok || !s.ReadASN1(&key, cbasn1.OCTET_STRING) {
		return invalid(formPKCS8)
	}
	switch alg.oid {
	case oidRSA:
		return p.rsaPrivate(key, label)
	case oidEC:
		return p.ecPrivate(key, alg.params, label)
	case oidEd25519:
		var seed cryptobyte.String
		if !key.ReadASN1(&seed, cbasn1.OCTET_STRING) || !key.Empty() || len(seed) != ed25519.SeedSize {
			return invalid(formPKCS8)
		}
		return p.edPrivate(seed, label)
	}
	return unsupportedKey(alg.oid)
}

// rsaPrivate reads an RSAPrivateKey (RFC 8017 §A.1.2).
func (p *parser) rsaPrivate(der []byte, label string) error {
	var s cryptobyte.String
	var version, n big.Int
	in := cryptobyte.String(der)
	if len(der) > maxKeyDER {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the RSA key is longer than %d bits", maxRSABits)
	}
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !s.ReadASN1Integer(&version) || !s.ReadASN1Integer(&n) {
		return invalid(formPKCS1Private)
	}
	if n.BitLen() > maxRSABits {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "the RSA key is longer than %d bits", maxRSABits)
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return p11.Errorf(p11.CKR_DATA_INVALID, "%s: %v", formPKCS1Private, err)
	}
	if len(key.Primes) != 2 {
		return p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key of more than two primes is not supported")
	}
	key.Precompute()
	secrets := []*big.Int{key.D, key.Primes[0], key.Primes[1], key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}
	defer func() {
		for _, v := range secrets {
			clear(v.Bits())
		}
	}()

	var priv p11.Attributes
	priv.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_RSA))
	priv.Set(p11.CKA_MODULUS, key.N.Bytes())
	priv.Set(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes())
	for i, t := range []p11.AttributeType{
		p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2,
		p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT,
	} {
		priv.Set(t, secrets[i].Bytes())
	}
	pub, id := rsaPublicTemplate(key.N, int64(key.E))
	return p.addPair(id, label, priv, pub)
}

// ecPrivate reads an ECPrivateKey (RFC 5915 §3). params are those of PKCS#8, nil
// if the structure stands alone.
func (p *parser) ecPrivate(der, params []byte, label string) error {
	var s, d, field, bits cryptobyte.String
	var version int64
	var hasParams, hasPoint bool
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() ||
		!s.ReadASN1Integer(&version) || version != 1 ||
		!s.ReadASN1(&d, cbasn1.OCTET_STRING) || len(d) == 0 ||
		!s.ReadOptionalASN1(&field, &hasParams, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!s.ReadOptionalASN1(&bits, &hasPoint, cbasn1.Tag(1).ContextSpecific().Constructed()) {
		return invalid(formSEC1)
	}
	if hasParams {
		if params != nil && !bytes.Equal(params, field) {
			return p11.Errorf(p11.CKR_DATA_INVALID, "the EC key names two different curves")
		}
		params = field
	}
	var point []byte
	if hasPoint && (!bits.ReadASN1BitStringAsBytes(&point) || !bits.Empty()) {
		return invalid(formSEC1)
	}
	c, err := readCurve(params)
	if err != nil {
		return err
	}
	value, point, err := c.privateKey(d, point)
	if err != nil {
		return err
	}
	var priv p11.Attributes
	priv.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC))
	priv.Set(p11.CKA_EC_PARAMS, bytes.Clone(params))
	priv.Set(p11.CKA_VALUE, value)
	pub, id := ecPublicTemplate(p11.CKK_EC, params, point)
	return p.addPair(id, label, priv, pub)
}

// edPrivate makes an Ed25519 key of its seed (RFC 8032 §5.1.5).
func (p *parser) edPrivate(seed []byte, label string) error {
	key := ed25519.NewKeyFromSeed(seed)
	defer secret.Wipe(key)
	params := ed25519Params()
	var priv p11.Attributes
	priv.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC_EDWARDS))
	priv.Set(p11.CKA_EC_PARAMS, params)
	priv.Set(p11.CKA_VALUE, bytes.Clone(seed))
	pub, id := ecPublicTemplate(p11.CKK_EC_EDWARDS, params, key[ed25519.SeedSize:])
	return p.addPair(id, label, priv, pub)
}

// addPair takes over both templates.
func (p *parser) addPair(id []byte, label string, priv, pub p11.Attributes) error {
	if err := p.add(p11.CKO_PRIVATE_KEY, id, label, priv); err != nil {
		return err
	}
	return p.add(p11.CKO_PUBLIC_KEY, id, label, pub)
}
