package ccatok

import (
	"context"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
)

var (
	_ tokens.KeyWrapper = (*token)(nil)
	_ tokens.KeyDeriver = (*token)(nil)
)

// underRSA are the rules by which a secret key goes under one of RSA.
func underRSA(m p11.Mechanism, kt p11.KeyType) (cca.Rules, error) {
	words := map[p11.KeyType]string{p11.CKK_AES: "AES", p11.CKK_DES3: "DES"}
	p, ok := m.Param.(*p11.OAEPParams)
	if m.Type != p11.CKM_RSA_PKCS && (m.Type != p11.CKM_RSA_PKCS_OAEP || !ok) {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the card has no mechanism %s for this", m.Type.Short())
	}
	word, ok := words[kt]
	if !ok {
		return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "the card puts keys of AES and DES3 under one of RSA, and none of type %s", kt.Short())
	}
	if m.Type == p11.CKM_RSA_PKCS {
		return cca.Rules{word, "PKCS-1.2"}, nil
	}
	hash, ok := map[p11.MechanismType]string{p11.CKM_SHA_1: "SHA-1", p11.CKM_SHA256: "SHA-256"}[p.Hash]
	if h, _ := p11.HashOf(p.Hash); !ok || h.MGF != p.MGF || len(p.Label) > 0 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the card takes OAEP with SHA-1 or SHA-256, MGF1 with the same, and no label")
	}
	return cca.Rules{word, "PKCSOAEP", hash}, nil
}

// WrapKey is tokens.KeyWrapper: the card puts a secret key of its own under a public key.
func (t *token) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) (out []byte, err error) {
	with, err := wrapping.Acquire()
	if err != nil {
		return nil, err
	}
	defer wrapping.Release()
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	defer key.Release()
	kt, _ := a.KeyType()
	rules, err := underRSA(m, kt)
	if err != nil {
		return nil, err
	}
	class, _ := with.Class()
	n, _ := with.Get(p11.CKA_MODULUS)
	e, _ := with.Get(p11.CKA_PUBLIC_EXPONENT)
	if by, _ := with.KeyType(); class != p11.CKO_PUBLIC_KEY || by != p11.CKK_RSA {
		return nil, p11.Errorf(p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT, "%s wraps under a public key of RSA", m.Type.Short())
	}
	// Stock's objects have the token of the private half; the numbers say what it is.
	public := cca.PKA{N: new(big.Int).SetBytes(n).Bytes(), E: new(big.Int).SetBytes(e).Bytes()}.Public()
	err = t.link.withKey(ctx, a, func(via card.Transport, source []byte) (err error) {
		out, err = cca.CSNDSYX(ctx, via, nil, rules.Bytes(), source, public)
		return err
	})
	return out, err
}

// UnwrapKey is tokens.KeyWrapper: the card takes a secret key in.
func (t *token) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	with, err := unwrapping.Acquire()
	if err != nil {
		return nil, err
	}
	defer unwrapping.Release()
	kt, _ := template.KeyType()
	rules, err := underRSA(m, kt)
	if err != nil {
		if p11.RVOf(err) == p11.CKR_KEY_NOT_WRAPPABLE {
			err = p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%w", err)
		}
		return nil, err
	}
	if class, _ := template.Class(); class != p11.CKO_SECRET_KEY {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the card unwraps secret keys only")
	}
	if by, _ := with.KeyType(); by != p11.CKK_RSA || !securekey.Secured(with) {
		return nil, p11.Errorf(p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, "%s unwraps with a private key of RSA", m.Type.Short())
	}
	var key []byte
	err = t.link.withKey(ctx, with, func(via card.Transport, importer []byte) (err error) {
		key, err = takeKey(ctx, via, m, rules, wrapped, importer, template)
		return err
	})
	if err != nil {
		return nil, err
	}
	return secretMade(template, kt, key)
}

// takeKey has the card take a key in. The template may say how long it is. That what came
// under PKCS #1 v1.5 is of another length is not told: whoever may send many messages would
// learn by it which of them are keys, and so what somebody else has sent. Such a message gives
// a key that nobody has, as one does that is no key.
func takeKey(ctx context.Context, via card.Transport, m p11.Mechanism, rules cca.Rules, wrapped, importer []byte, template p11.Attributes) ([]byte, error) {
	want, fixed := template.Ulong(p11.CKA_VALUE_LEN)
	kt, _ := template.KeyType()
	fixed = fixed && kt == p11.CKK_AES
	if fixed && !p11.FitsKey(kt, want) {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "value-len: %d bytes are no length of a %s key", want, kt.Short())
	}
	var spare []byte
	if fixed && m.Type == p11.CKM_RSA_PKCS {
		var err error
		if spare, err = makeAES(ctx, via, int(want)); err != nil {
			return nil, err
		}
	}
	key, err := cca.CSNDSYI(ctx, via, nil, rules.Bytes(), wrapped, importer)
	if err != nil {
		return nil, err
	}
	s, err := cca.ParseSymmetric(key)
	switch {
	case err != nil || !s.Key || s.AES != (kt == p11.CKK_AES) || !p11.FitsKey(kt, uint64(s.Size)):
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made no such key")
	case !fixed || uint64(s.Size) == want:
		return key, nil
	case spare != nil:
		return spare, nil
	}
	return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has %d bytes, not value-len", s.Size)
}

// secretMade is a template with a key of AES or DES that the card has made.
func secretMade(template p11.Attributes, kt p11.KeyType, key []byte) (p11.Attributes, error) {
	s, err := cca.ParseSymmetric(key)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made no such key")
	}
	a := template.Clone()
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kt))
	a.Delete(p11.CKA_VALUE_LEN)
	if kt == p11.CKK_AES {
		a.SetUlong(p11.CKA_VALUE_LEN, uint64(s.Size))
	}
	a.Set(p11.CKA_IBM_OPAQUE, key)
	return a, nil
}

// DeriveKey is tokens.KeyDeriver: the card agrees on a key of AES.
func (t *token) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	if m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY {
		private, err := base.Acquire()
		if err != nil {
			return nil, err
		}
		defer base.Release()
		return securekey.PublicHalf(private, template)
	}
	p, ok := m.Param.(*p11.ECDH1Params)
	if m.Type != p11.CKM_ECDH1_DERIVE || !ok {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token derives no keys by %s", m.Type.Short())
	}
	hash, ok := map[p11.KDF]string{p11.CKD_SHA224_KDF: "SHA-224", p11.CKD_SHA256_KDF: "SHA-256", p11.CKD_SHA384_KDF: "SHA-384", p11.CKD_SHA512_KDF: "SHA-512"}[p.KDF]
	if !ok {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the card derives with the function of SHA-224, 256, 384 or 512 (kdf=sha256-kdf)")
	}
	a, err := expect(template, p11.CKO_SECRET_KEY, p11.CKK_AES)
	if err != nil {
		return nil, err
	}
	n, err := secretLength(&a, p11.CKK_AES)
	if err != nil {
		return nil, err
	}
	attrs, err := base.Acquire()
	if err != nil {
		return nil, err
	}
	defer base.Release()
	params, _ := attrs.Get(p11.CKA_EC_PARAMS)
	c, err := curveOf(p11.CKK_EC, params)
	if err != nil {
		return nil, err
	}
	if !securekey.Secured(attrs) {
		return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the key has no key token of a card")
	}
	point, err := pkix.ECPublic(t.Arithmetic(), c, p.PublicData)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the public key of the other side: %w", err)
	}
	peer := cca.PKA{Curve: c, Point: point}.Bytes()
	var key []byte
	err = t.link.withKey(ctx, attrs, func(via card.Transport, private []byte) error {
		skeleton, err := skeletonAES(ctx, via, n)
		if err != nil {
			return err
		}
		key, err = cca.CSNDEDH(ctx, via, nil, cca.Rules{"DERIV02", "KEY-AES", hash}.Bytes(), private, peer, p.SharedData, uint64(8*n), skeleton)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s, err := cca.ParseSymmetric(key); err != nil || s.Size != n {
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made no such key")
	}
	return secretMade(a, p11.CKK_AES, key)
}
