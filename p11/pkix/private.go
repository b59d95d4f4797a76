package pkix

import (
	"bytes"
	"crypto/ed25519"
	"encoding/asn1"

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

// addAlgorithm adds an AlgorithmIdentifier.
func addAlgorithm(b *cryptobyte.Builder, oid string, params []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(parseOID(oid))
		b.AddBytes(params)
	})
}

// unsupportedKey is the error for a key of another algorithm.
func unsupportedKey(oid string) error {
	switch oid {
	case oidRSAPSS, oidRSAOAEP:
		return p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key that is limited to one scheme (algorithm %s) is not supported", oid)
	}
	return p11.Errorf(p11.CKR_DATA_INVALID, "keys of algorithm %s are not supported: RSA, EC and Ed25519 are", clip(oid))
}

// readPKCS8 takes a PrivateKeyInfo or OneAsymmetricKey (RFC 5958 §2) apart.
func readPKCS8(der []byte) (alg algorithm, key []byte, ok bool) {
	var s, octets cryptobyte.String
	var version int64
	in := cryptobyte.String(der)
	if !in.ReadASN1(&s, cbasn1.SEQUENCE) || !in.Empty() ||
		!s.ReadASN1Integer(&version) || version < 0 || version > 1 {
		return alg, nil, false
	}
	if alg, ok = readAlgorithm(&s); ok {
		ok = s.ReadASN1(&octets, cbasn1.OCTET_STRING)
	}
	return alg, octets, ok
}

// pkcs8 reads a private key of any algorithm.
func (p *parser) pkcs8(der []byte, label string) error {
	alg, key, ok := readPKCS8(der)
	if !ok {
		return invalid(formPKCS8)
	}
	switch alg.oid {
	case oidRSA:
		return p.rsaPrivate(key, label)
	case oidEC:
		return p.ecPrivate(key, alg.params, label)
	case oidEd25519:
		in := cryptobyte.String(key)
		var seed cryptobyte.String
		if !in.ReadASN1(&seed, cbasn1.OCTET_STRING) || !in.Empty() || len(seed) != ed25519.SeedSize {
			return invalid(formPKCS8)
		}
		return p.edPrivate(seed, label)
	}
	return unsupportedKey(alg.oid)
}

// rsaPrivate reads an RSAPrivateKey.
func (p *parser) rsaPrivate(der []byte, label string) error {
	priv, err := readRSAPrivate(der)
	if err != nil {
		return err
	}
	n, e, err := RSAPublic(priv)
	if err == nil && e.BitLen() > 31 {
		err = p11.Errorf(p11.CKR_DATA_INVALID, "an RSA key with a public exponent above 31 bits is not supported")
	}
	if err != nil {
		priv.Wipe()
		return err
	}
	pub, id := rsaPublicTemplate(n, e)
	return p.addPair(id, label, priv, pub)
}

// ecPrivate reads an ECPrivateKey. params are those of PKCS#8, nil if the structure
// stands alone.
func (p *parser) ecPrivate(der, params []byte, label string) error {
	priv, point, err := readECPrivate(der, params)
	if err != nil {
		return dataInvalid(err)
	}
	params, _ = priv.Get(p11.CKA_EC_PARAMS)
	pub, id := ecPublicTemplate(p11.CKK_EC, params, point)
	return p.addPair(id, label, priv, pub)
}

// dataInvalid is an error of a file.
func dataInvalid(err error) error {
	if p11.RVOf(err) == p11.CKR_DATA_LEN_RANGE {
		return err
	}
	return p11.Errorf(p11.CKR_DATA_INVALID, "%v", err)
}

// readECPrivate reads an ECPrivateKey (RFC 5915 §3) into attributes, and returns the
// public point beside them.
func readECPrivate(der, params []byte) (priv p11.Attributes, point []byte, err error) {
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
	if hasParams {
		if params != nil && !bytes.Equal(params, field) {
			return nil, nil, p11.Errorf(p11.CKR_DATA_INVALID, "the EC key names two different curves")
		}
		params = field
	}
	if hasPoint && (!bits.ReadASN1BitStringAsBytes(&point) || !bits.Empty()) {
		return nil, nil, invalid(formSEC1)
	}
	c, err := curveByOID(params)
	if err != nil {
		return nil, nil, err
	}
	value, point, err := filePrivate(c, d, point)
	if err != nil {
		return nil, nil, err
	}
	priv.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC))
	priv.Set(p11.CKA_EC_PARAMS, bytes.Clone(params))
	priv.Set(p11.CKA_VALUE, value)
	return priv, point, nil
}

// DecodePrivateKey reads the PrivateKeyInfo of an RSA or EC key into the key type
// and the attributes of its value. Errors wrap CKR_DATA_INVALID,
// CKR_DATA_LEN_RANGE, CKR_DOMAIN_PARAMS_INVALID or CKR_CURVE_NOT_SUPPORTED.
func DecodePrivateKey(der []byte) (p11.Attributes, error) {
	alg, key, ok := readPKCS8(der)
	switch {
	case !ok:
		return nil, invalid(formPKCS8)
	case alg.oid == oidRSA:
		return readRSAPrivate(key)
	case alg.oid == oidEC:
		a, _, err := readECPrivate(key, alg.params)
		return a, err
	}
	return nil, unsupportedKey(alg.oid)
}

// EncodePrivateKey is the PrivateKeyInfo of the attributes of an RSA or EC private
// key (PKCS#11 v3.1 §6.7, RFC 5208), to be wiped by the caller. Another type gives
// CKR_KEY_TYPE_INCONSISTENT. The standard library's would refuse short RSA keys and
// curves that a token only stores.
func EncodePrivateKey(attrs p11.Attributes) ([]byte, error) {
	switch kt, _ := attrs.KeyType(); kt {
	case p11.CKK_RSA:
		k, err := RSAPrivate(attrs)
		if err != nil {
			return nil, err
		}
		defer k.Wipe()
		return buildPKCS8(oidRSA, []byte{0x05, 0x00}, k.write)
	case p11.CKK_EC:
		params, _ := attrs.Get(p11.CKA_EC_PARAMS)
		value, _ := attrs.Get(p11.CKA_VALUE)
		var point []byte
		if c, err := CurveOf(params); err == nil && c.Elliptic != nil {
			scalar, own, err := ECPrivate(c, value)
			if err != nil {
				return nil, err
			}
			defer secret.Wipe(scalar)
			params, value, point = c.Params(), scalar, own
		}
		return buildPKCS8(oidEC, params, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			b.AddASN1OctetString(value)
			if point != nil {
				b.AddASN1(cbasn1.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1BitString(point) })
			}
		})
	default:
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "private keys of type %s have no PKCS#8 here", kt)
	}
}

// buildPKCS8 puts a PrivateKeyInfo together.
func buildPKCS8(oid string, params []byte, key func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		addAlgorithm(b, oid, params)
		b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, key) })
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "private key: %v", err)
	}
	return der, nil
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
