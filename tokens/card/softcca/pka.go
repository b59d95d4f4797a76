package softcca

import (
	"bytes"
	"context"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens/card/cca"
)

// The sizes of RSA keys.
const (
	minRSABits, maxRSABits = 512, 8192
	// A key that does not say its exponent may have any, to this size.
	maxAnyExponent = 2048
	usualExponent  = 65537
)

// CSNDPKB builds a skeleton for a key to be made or brought in, or a public key's token.
func (d *domain) CSNDPKB(_ context.Context, rules, values []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	word, err := r.One("RSA-CRT", "RSA-PUBL", "ECC-PAIR", "ECC-PUBL")
	if err != nil || r.Only(word, "KEY-MGMT", "SIG-ONLY", "KM-ONLY", "ECC-VER1") != nil {
		return nil, cca.ErrKeyword
	}
	s := cca.Skeleton{Rules: r}
	switch word {
	case "ECC-PUBL":
		v, err := cca.ParseECPublicValues(values)
		if err != nil {
			return nil, err
		}
		return cca.PKA{Curve: v.Curve, Point: v.Point}.Bytes(), nil
	case "RSA-PUBL":
		v, err := cca.ParseRSAPublicValues(values)
		if err != nil {
			return nil, err
		}
		return cca.PKA{N: v.N, E: v.E}.Bytes(), nil
	case "RSA-CRT":
		v, err := cca.ParseRSAValues(values)
		if err != nil {
			return nil, err
		}
		defer v.Wipe()
		s.Values = v.Bytes()
	default:
		v, err := cca.ParseECValues(values)
		if err != nil {
			return nil, err
		}
		defer v.Wipe()
		s.Values = v.Bytes()
	}
	defer secret.Wipe(s.Values)
	b := s.Bytes()
	if len(b) > cca.MaxPKA {
		secret.Wipe(b)
		return nil, cca.ErrValues
	}
	return b, nil
}

// CSNDPKG makes the key of a skeleton.
func (d *domain) CSNDPKG(ctx context.Context, rules, token []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil || !r.Has("MASTER") || r.Only("MASTER") != nil {
		return nil, cca.ErrKeyword
	}
	s, err := cca.ParseSkeleton(token)
	if err != nil {
		return nil, err
	}
	if s.Rules.Has("ECC-PAIR") {
		return d.generateEC(ctx, s.Values)
	}
	return d.generateRSA(ctx, s.Values)
}

func (d *domain) generateRSA(ctx context.Context, values []byte) ([]byte, error) {
	v, err := cca.ParseRSAValues(values)
	if err != nil {
		return nil, err
	}
	e := new(big.Int).SetBytes(v.E)
	switch {
	case v.Bits < minRSABits || v.Bits > maxRSABits || len(v.N) > 0:
		return nil, cca.ErrValues
	case e.Sign() == 0 && v.Bits <= maxAnyExponent:
		e.SetInt64(usualExponent)
	case e.Cmp(big.NewInt(3)) != 0 && e.Cmp(big.NewInt(usualExponent)) != 0:
		return nil, cca.ErrValues
	}
	public := p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(v.Bits))}, {Type: p11.CKA_PUBLIC_EXPONENT, Value: e.Bytes()}}
	pub, priv, err := d.crypto.GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, public, nil)
	if err != nil {
		return nil, cardError(err)
	}
	defer priv.Wipe()
	n, _ := pub.Get(p11.CKA_MODULUS)
	p, _ := priv.Get(p11.CKA_PRIME_1)
	return d.sealPKA(cca.PKA{N: n, E: e.Bytes()}, p, Current)
}

func (d *domain) generateEC(ctx context.Context, values []byte) ([]byte, error) {
	v, err := cca.ParseECValues(values)
	if err != nil {
		return nil, err
	}
	if len(v.Scalar) > 0 {
		return nil, cca.ErrValues
	}
	m := p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}
	if v.Curve.KeyType == p11.CKK_EC_EDWARDS {
		m.Type = p11.CKM_EC_EDWARDS_KEY_PAIR_GEN
	}
	public := p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: v.Curve.Params()}}
	pub, priv, err := d.crypto.GenerateKeyPair(ctx, m, public, nil)
	if err != nil {
		return nil, cardError(err)
	}
	defer priv.Wipe()
	scalar, _ := priv.Get(p11.CKA_VALUE)
	der, _ := pub.Get(p11.CKA_EC_POINT)
	point, err := pkix.OctetPoint(v.Curve, der)
	if v.Curve.KeyType == p11.CKK_EC {
		point, err = pkix.ECPublic(d.crypto.Arithmetic(), v.Curve, der)
	}
	if err != nil {
		return nil, cca.ErrValues
	}
	return d.sealPKA(cca.PKA{Curve: v.Curve, Point: point}, scalar, Current)
}

// CSNDPKI brings in the key of a skeleton with all its numbers.
func (d *domain) CSNDPKI(_ context.Context, rules, source []byte) ([]byte, error) {
	if len(rules) > 0 {
		return nil, cca.ErrKeyword
	}
	s, err := cca.ParseSkeleton(source)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(s.Values)
	if s.Rules.Has("ECC-PAIR") {
		return d.importEC(s.Values)
	}
	v, err := cca.ParseRSAValues(s.Values)
	if err != nil {
		return nil, err
	}
	defer v.Wipe()
	k := &pkix.RSANumbers{}
	for _, part := range []struct {
		to   **big.Int
		from []byte
	}{{&k.N, v.N}, {&k.E, v.E}, {&k.P, v.P}, {&k.Q, v.Q}} {
		if len(part.from) == 0 {
			return nil, cca.ErrValues
		}
		*part.to = new(big.Int).SetBytes(part.from)
	}
	defer k.Wipe()
	if err := k.Complete(); err != nil {
		return nil, cca.ErrValues
	}
	p := k.P.Bytes()
	defer secret.Wipe(p)
	return d.sealPKA(cca.PKA{N: k.N.Bytes(), E: k.E.Bytes()}, p, Current)
}

func (d *domain) importEC(values []byte) ([]byte, error) {
	v, err := cca.ParseECValues(values)
	if err != nil {
		return nil, err
	}
	defer v.Wipe()
	scalar := bytes.Clone(v.Scalar)
	point, err := pkix.OctetPublic(v.Curve, scalar)
	if v.Curve.KeyType == p11.CKK_EC {
		scalar, point, err = pkix.ECPrivate(d.crypto.Arithmetic(), v.Curve, v.Scalar)
	}
	if err != nil {
		return nil, cca.ErrValues
	}
	defer secret.Wipe(scalar)
	if !bytes.Equal(point, v.Point) {
		return nil, cca.ErrValues
	}
	return d.sealPKA(cca.PKA{Curve: v.Curve, Point: point}, scalar, Current)
}

// private is the key object of an internal token.
func (d *domain) private(token []byte) (p11.Attributes, cca.PKA, error) {
	k, w, err := d.openPKA(token)
	if err != nil {
		return nil, k, err
	}
	if !usable(w.at) {
		secret.Wipe(w.key)
		return nil, k, cca.ErrToken
	}
	if k.N == nil {
		return attributes(p11.CKO_PRIVATE_KEY, k.Curve.KeyType, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: k.Curve.Params()}, p11.Attribute{Type: p11.CKA_VALUE, Value: w.key}), k, nil
	}
	defer secret.Wipe(w.key)
	n := &pkix.RSANumbers{N: new(big.Int).SetBytes(k.N), E: new(big.Int).SetBytes(k.E), P: new(big.Int).SetBytes(w.key)}
	defer n.Wipe()
	if n.Q, err = quotient(n.N, n.P); err != nil {
		return nil, k, err
	}
	if err := n.Complete(); err != nil {
		return nil, k, cca.ErrToken
	}
	a := attributes(p11.CKO_PRIVATE_KEY, p11.CKK_RSA)
	return a, k, n.Put(&a)
}

// quotient is the other prime.
func quotient(n, p *big.Int) (*big.Int, error) {
	if p.Sign() <= 0 {
		return nil, cca.ErrToken
	}
	return new(big.Int).Div(n, p), nil
}

// public is the key object of the public half of a token, an internal one or not.
func (d *domain) public(token []byte) (p11.Attributes, cca.PKA, error) {
	k, err := cca.ParsePKA(token)
	if err != nil {
		return nil, k, err
	}
	if k.N == nil {
		return attributes(p11.CKO_PUBLIC_KEY, k.Curve.KeyType, p11.Attribute{Type: p11.CKA_EC_PARAMS, Value: k.Curve.Params()}, p11.Attribute{Type: p11.CKA_EC_POINT, Value: pkix.DERPoint(k.Point)}), k, nil
	}
	return attributes(p11.CKO_PUBLIC_KEY, p11.CKK_RSA, p11.Attribute{Type: p11.CKA_MODULUS, Value: k.N}, p11.Attribute{Type: p11.CKA_PUBLIC_EXPONENT, Value: k.E}), k, nil
}

// CSNDPKX is the token of the public half.
func (d *domain) CSNDPKX(_ context.Context, rules, key []byte) ([]byte, error) {
	k, err := cca.ParsePKA(key)
	if err != nil {
		return nil, err
	}
	if len(rules) > 0 {
		return nil, cca.ErrKeyword
	}
	return k.Public(), nil
}

// scheme is the way to encrypt with RSA of a rule array.
func scheme(rules []byte) (p11.Mechanism, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return p11.Mechanism{}, err
	}
	word, err := r.One("PKCS-1.2", "ZERO-PAD", "PKCSOAEP")
	if err != nil {
		return p11.Mechanism{}, err
	}
	if word != "PKCSOAEP" {
		return p11.Mechanism{Type: map[string]p11.MechanismType{"PKCS-1.2": p11.CKM_RSA_PKCS, "ZERO-PAD": p11.CKM_RSA_X_509}[word]}, r.Only(word)
	}
	h, name, err := hashOf(r)
	if err != nil || r.Only(word, name) != nil {
		return p11.Mechanism{}, cca.ErrKeyword
	}
	for _, one := range p11.Hashes() {
		if one.Go == h {
			return p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: one.Type, MGF: one.MGF}}, nil
		}
	}
	return p11.Mechanism{}, cca.ErrKeyword
}

// CSNDPKE encrypts with the public half of an RSA key.
func (d *domain) CSNDPKE(ctx context.Context, rules, data, key []byte) ([]byte, error) {
	m, err := scheme(rules)
	if err != nil {
		return nil, err
	}
	a, k, err := d.public(key)
	if err != nil || k.N == nil {
		return nil, cca.ErrToken
	}
	return d.do(ctx, p11.CKF_ENCRYPT, m, a, data, nil)
}

// CSNDPKD decrypts with an RSA key.
func (d *domain) CSNDPKD(ctx context.Context, rules, data, key []byte) ([]byte, error) {
	m, err := scheme(rules)
	if err != nil {
		return nil, err
	}
	a, k, err := d.private(key)
	switch {
	case err != nil:
		return nil, err
	case k.N == nil:
		a.Wipe()
		return nil, cca.ErrToken
	}
	return d.do(ctx, p11.CKF_DECRYPT, m, a, data, nil)
}

// signatures is the mechanism of a rule array, for a key.
func signatures(rules []byte, k cca.PKA) (p11.Mechanism, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return p11.Mechanism{}, err
	}
	word, err := r.One("PKCS-1.1", "ZERO-PAD", "ECDSA", "EDDSA")
	if err == nil && word == "EDDSA" && r.Has("ED-HASH") && r.Has("MESSAGE") {
		err = r.Only(word, "ED-HASH", "MESSAGE")
	} else if err == nil {
		err = r.Only(word)
	}
	if err != nil || word == "EDDSA" && len(r) != 3 {
		return p11.Mechanism{}, cca.ErrKeyword
	}
	kt := p11.CKK_RSA
	if k.N == nil {
		kt = k.Curve.KeyType
	}
	m, ok := map[string]map[p11.KeyType]p11.MechanismType{
		"PKCS-1.1": {p11.CKK_RSA: p11.CKM_RSA_PKCS}, "ZERO-PAD": {p11.CKK_RSA: p11.CKM_RSA_X_509},
		"ECDSA": {p11.CKK_EC: p11.CKM_ECDSA}, "EDDSA": {p11.CKK_EC_EDWARDS: p11.CKM_EDDSA},
	}[word][kt]
	if !ok {
		return p11.Mechanism{}, cca.ErrToken
	}
	return p11.Mechanism{Type: m}, nil
}

// CSNDDSG signs: with RSA what hash is, a DigestInfo for PKCS-1.1, with ECDSA a digest, and
// with EDDSA the message.
func (d *domain) CSNDDSG(ctx context.Context, rules, key, hash []byte) ([]byte, error) {
	a, k, err := d.private(key)
	if err != nil {
		return nil, err
	}
	m, err := signatures(rules, k)
	if err != nil {
		a.Wipe()
		return nil, err
	}
	return d.do(ctx, p11.CKF_SIGN, m, a, hash, nil)
}

// CSNDDSV checks a signature.
func (d *domain) CSNDDSV(ctx context.Context, rules, key, hash, signature []byte) error {
	a, k, err := d.public(key)
	if err != nil {
		return err
	}
	m, err := signatures(rules, k)
	if err != nil {
		return err
	}
	_, err = d.do(ctx, p11.CKF_VERIFY, m, a, hash, signature)
	return err
}
