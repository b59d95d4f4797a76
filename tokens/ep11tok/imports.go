package ep11tok

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

// importMode wraps the keys that come in.
const importMode = p11.CKM_AES_CBC_PAD

// Adopt is tokens.Adopter: secret and private keys go into the card. Of other objects none
// does.
func (t *token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	class, _ := attrs.Class()
	kt, _ := attrs.KeyType()
	if attrs.Has(p11.CKA_HIDDEN) {
		attrs.Wipe()
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "what is hidden is the token's own")
	}
	if class == p11.CKO_SECRET_KEY && t.conf.sensitive {
		attrs.SetBool(p11.CKA_SENSITIVE, true)
	}
	switch class {
	case p11.CKO_SECRET_KEY, p11.CKO_PRIVATE_KEY:
		return securekey.Adopt(ctx, attrs, completer{t.soft}, t.bring)
	case p11.CKO_PUBLIC_KEY:
		attrs, err := completer{t.soft}.Adopt(ctx, attrs)
		if err == nil && !attrs.Has(p11.CKA_IBM_OPAQUE) && (kt == p11.CKK_RSA || kt == p11.CKK_EC || octetKeys(kt)) {
			if spki, serr := securekey.SPKI(attrs); serr == nil {
				attrs.Set(p11.CKA_IBM_OPAQUE, bytes.Clone(spki)) // for stock, which looks nowhere else
			}
		}
		if err == nil && attrs.Bool(p11.CKA_TRUSTED) && unmarked(attrs) {
			if err = t.mark(ctx, &attrs); err != nil {
				attrs.Wipe()
				return nil, err
			}
		}
		return attrs, err
	}
	return t.soft.Adopt(ctx, attrs)
}

// A completer completes keys as this machine's library does. A public key on a curve that the
// library has not is completed without a look at its point: the card has that when it uses
// the key.
type completer struct{ tokens.Adopter }

// Adopt is tokens.Adopter.
func (c completer) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	given := attrs.Clone()
	attrs, err := c.Adopter.Adopt(ctx, attrs)
	params, _ := given.Get(p11.CKA_EC_PARAMS)
	curve, _ := pkix.CurveOf(params) // without bits if nobody knows it
	if class, _ := given.Class(); class != p11.CKO_PUBLIC_KEY || curve.Bits == 0 || p11.RVOf(err) != p11.CKR_CURVE_NOT_SUPPORTED {
		given.Wipe()
		return attrs, err
	}
	if err := pkix.Complete(&given); err != nil {
		return nil, err
	}
	return given, nil
}

// bring takes the values of a key into the card.
func (t *token) bring(ctx context.Context, a p11.Attributes) ([]byte, error) {
	class, _ := a.Class()
	kt, _ := a.KeyType()
	var value []byte
	switch {
	case class == p11.CKO_SECRET_KEY && (ofHMAC(kt) || slices.Contains([]p11.KeyType{p11.CKK_AES, p11.CKK_DES2, p11.CKK_DES3, p11.CKK_GENERIC_SECRET}, kt)):
		v, _ := a.Get(p11.CKA_VALUE)
		value = bytes.Clone(v)
	case class == p11.CKO_PRIVATE_KEY && (kt == p11.CKK_RSA || kt == p11.CKK_EC || octetKeys(kt)):
		der, err := pkix.EncodePrivateKey(a)
		if err != nil {
			return nil, err
		}
		value = der
	default:
		return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card takes no %s of type %s", class.Short(), kt.Short())
	}
	defer secret.Wipe(value)
	if err := t.cards.May(); err != nil {
		return nil, err
	}
	if err := t.cards.learn(ctx, false); err != nil {
		return nil, err
	}
	taken := a.Clone()
	defer taken.Wipe()
	one, err := t.sessions.forNew(ctx, a)
	if err != nil {
		return nil, failed(err, nil)
	}
	carry := func() error { return t.carry(ctx, value, &taken, one) }
	err = t.sessions.within(ctx, []*session{one}, carry)
	if rv := p11.RVOf(err); rv == ep11.WKIDMismatch || rv == ep11.BlobError {
		// The key that brings others in is of a wrapping key that has gone.
		t.cards.forgetImports()
		if err = t.cards.learn(ctx, true); err == nil {
			err = t.sessions.within(ctx, []*session{one}, carry)
		}
	}
	if err != nil {
		return nil, refused(failed(err, nil), a)
	}
	blob, _ := securekey.Blob(taken)
	return bytes.Clone(blob), nil
}

// carry encrypts a value under the key that brings others in, and has the card unwrap it.
func (t *token) carry(ctx context.Context, value []byte, a *p11.Attributes, one *session) error {
	return t.cards.try(ctx, func() error {
		target, kek, err := t.importKey(ctx)
		if err != nil {
			return err
		}
		iv := make([]byte, 16)
		_, _ = rand.Read(iv) // which never fails
		m := p11.Mechanism{Type: importMode, Param: p11.IV(iv)}
		wrapped, err := ep11.EncryptSingle(ctx, t.cards.via, target, kek, m, value)
		if err != nil {
			return err
		}
		return t.unwrap(ctx, target, kek, m, wrapped, a, one)
	})
}

// importKey is the key that brings others in at the domains where new keys are made, which
// is made when it is needed first.
func (t *token) importKey(ctx context.Context) (card.Target, []byte, error) {
	target, id, err := t.cards.fresh()
	if err != nil {
		return nil, nil, err
	}
	t.cards.mu.Lock()
	kek := t.cards.imports[string(id)]
	t.cards.mu.Unlock()
	if kek != nil {
		return target, kek, nil
	}
	var a p11.Attributes
	a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_AES))
	a.SetUlong(p11.CKA_VALUE_LEN, 32)
	for _, one := range []p11.AttributeType{p11.CKA_ENCRYPT, p11.CKA_UNWRAP} {
		a.SetBool(one, true)
	}
	for _, one := range []p11.AttributeType{p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_DERIVE, p11.CKA_EXTRACTABLE} {
		a.SetBool(one, false)
	}
	kek, _, err = ep11.GenerateKey(ctx, t.cards.via, target, p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, a, nil)
	if err != nil {
		return nil, nil, err
	}
	t.cards.mu.Lock()
	t.cards.imports[string(id)] = kek
	t.cards.mu.Unlock()
	return target, kek, nil
}

// forgetImports has the keys that bring others in be made anew.
func (c *cards) forgetImports() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.imports)
}
