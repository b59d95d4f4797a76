package softcca

import (
	"context"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card/cca"
)

// underRSA says how a rule array has a symmetric key go under one of RSA: keys of AES, or
// of DES, all of which are of three parts, so that what is no key gives another one and not
// an error.
func underRSA(rules []byte) (m p11.Mechanism, kt p11.KeyType, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return m, 0, err
	}
	word, err := r.One("AES", "DES")
	if err != nil {
		return m, 0, err
	}
	kt = map[string]p11.KeyType{"AES": p11.CKK_AES, "DES": p11.CKK_DES3}[word]
	padding, err := r.One("PKCS-1.2", "PKCSOAEP")
	if err != nil {
		return m, 0, err
	}
	rest := cca.Rules{padding}
	if padding == "PKCSOAEP" {
		h, err := r.One("SHA-1", "SHA-256")
		if err != nil {
			return m, 0, err
		}
		rest = append(rest, h)
	}
	if err := r.Only(append(rest, word)...); err != nil {
		return m, 0, err
	}
	m, err = scheme(rest.Bytes())
	return m, kt, err
}

// CSNDSYX gives a key of AES or DES under a public key of RSA.
func (d *domain) CSNDSYX(ctx context.Context, rules, source, exporter []byte) ([]byte, error) {
	m, kt, err := underRSA(rules)
	if err != nil {
		return nil, err
	}
	with, k, err := d.public(exporter)
	if err != nil || k.N == nil {
		return nil, cca.ErrToken
	}
	s, w, err := d.openSymmetric(source)
	if err != nil {
		return nil, err
	}
	a := attributes(p11.CKO_SECRET_KEY, kt, p11.Attribute{Type: p11.CKA_VALUE, Value: w.key})
	key, wrapping := tokens.NewObject(0, "", a), tokens.NewObject(0, "", with)
	defer key.Drop()
	defer wrapping.Drop()
	if s.AES != (kt == p11.CKK_AES) || !usable(w.at) {
		return nil, cca.ErrToken
	}
	if kt == p11.CKK_DES3 && s.Size != 24 {
		return nil, cca.ErrValues
	}
	out, err := d.crypto.WrapKey(ctx, m, wrapping, key)
	if err != nil {
		return nil, cardError(err)
	}
	return out, nil
}

// CSNDSYI takes one in that is under the public half of an RSA key.
func (d *domain) CSNDSYI(ctx context.Context, rules, wrapped, importer []byte) ([]byte, error) {
	m, kt, err := underRSA(rules)
	if err != nil {
		return nil, err
	}
	a, k, err := d.private(importer)
	if err != nil {
		return nil, err
	}
	o := tokens.NewObject(0, "", a)
	defer o.Drop()
	if k.N == nil {
		return nil, cca.ErrToken
	}
	got, err := d.crypto.UnwrapKey(ctx, m, o, wrapped, attributes(p11.CKO_SECRET_KEY, kt))
	if err != nil {
		return nil, cardError(err)
	}
	defer got.Wipe()
	value, _ := got.Get(p11.CKA_VALUE)
	if !fits(len(value), kt == p11.CKK_AES) {
		return nil, cca.ErrData
	}
	return d.sealSymmetric(kt == p11.CKK_AES, value, Current)
}

// CSNDEDH agrees on an AES key with a public key: the secret of both goes through the
// function of ANS X9.63 with a hash and what the parties say of themselves.
func (d *domain) CSNDEDH(ctx context.Context, rules, private, public, party []byte, bits uint64, skeleton []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	_, name, err := hashOf(r)
	if err != nil || name == "SHA-1" || !r.Has("DERIV02") || !r.Has("KEY-AES") || r.Only("DERIV02", "KEY-AES", name) != nil {
		return nil, cca.ErrKeyword
	}
	s, err := cca.ParseSymmetric(skeleton)
	if err != nil || !s.AES || s.Key {
		return nil, cca.ErrToken
	}
	if bits != uint64(8*s.Size) {
		return nil, cca.ErrValues
	}
	a, own, err := d.private(private)
	if err != nil {
		return nil, err
	}
	base := tokens.NewObject(0, "", a)
	defer base.Drop()
	peer, err := cca.ParsePKA(public)
	if err != nil || own.N != nil || own.Curve.KeyType != p11.CKK_EC || peer.Curve.Name != own.Curve.Name {
		return nil, cca.ErrToken
	}
	kdf := map[string]p11.KDF{"SHA-224": p11.CKD_SHA224_KDF, "SHA-256": p11.CKD_SHA256_KDF, "SHA-384": p11.CKD_SHA384_KDF, "SHA-512": p11.CKD_SHA512_KDF}[name]
	m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: kdf, SharedData: party, PublicData: pkix.DERPoint(peer.Point)}}
	template := attributes(p11.CKO_SECRET_KEY, p11.CKK_AES)
	template.SetUlong(p11.CKA_VALUE_LEN, uint64(s.Size))
	got, err := d.crypto.DeriveKey(ctx, m, base, template)
	if err != nil {
		return nil, cardError(err)
	}
	defer got.Wipe()
	value, _ := got.Get(p11.CKA_VALUE)
	defer secret.Wipe(value)
	return d.sealSymmetric(true, value, Current)
}
