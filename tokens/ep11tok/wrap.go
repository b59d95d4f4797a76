package ep11tok

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

// WrapKey is tokens.KeyWrapper.
func (t *token) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) (out []byte, err error) {
	if err := t.cards.has(ctx, m.Type, p11.CKF_WRAP); err != nil {
		return nil, err
	}
	kek, err := wrapping.Acquire()
	if err != nil {
		return nil, err
	}
	defer wrapping.Release()
	a, err := key.Acquire()
	if err != nil {
		return nil, err
	}
	defer key.Release()
	class, _ := a.Class()
	by, _ := kek.Class()
	padded := m.Type == p11.CKM_AES_CBC_PAD || m.Type == p11.CKM_DES3_CBC_PAD
	if class != p11.CKO_SECRET_KEY && (class != p11.CKO_PRIVATE_KEY || !padded) || by == p11.CKO_PRIVATE_KEY {
		return nil, p11.Errorf(p11.CKR_KEY_NOT_WRAPPABLE, "%s does not wrap such a key", m.Type.Short())
	}
	under, err := keyBlob(kek)
	if err != nil {
		return nil, err
	}
	one, err := t.sessions.of(ctx, under)
	if err != nil {
		return nil, failed(err, under)
	}
	err = t.withKey(ctx, a, func(target card.Target, blob []byte) error {
		with, err := t.current(kek)
		if err != nil {
			return err
		}
		out, err = ep11.WrapKey(ctx, t.cards.via, target, blob, with, nil, m)
		return err
	}, one)
	return out, err
}

// UnwrapKey is tokens.KeyWrapper.
func (t *token) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, given p11.Attributes) (p11.Attributes, error) {
	if err := t.cards.has(ctx, m.Type, p11.CKF_UNWRAP); err != nil {
		return nil, err
	}
	kek, err := unwrapping.Acquire()
	if err != nil {
		return nil, err
	}
	defer unwrapping.Release()
	a := given.Clone()
	one, err := t.sessions.forNew(ctx, a)
	if err != nil {
		return nil, failed(err, nil)
	}
	err = t.withKey(ctx, kek, func(target card.Target, kek []byte) error {
		return t.unwrap(ctx, target, kek, m, wrapped, &a, one)
	}, one)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// unwrap has the card take in a key of a session, and completes its attributes.
func (t *token) unwrap(ctx context.Context, target card.Target, kek []byte, m p11.Mechanism, wrapped []byte, a *p11.Attributes, one *session) error {
	pin, err := one.at(target)
	if err != nil {
		return err
	}
	told := template(*a)
	told.Delete(p11.CKA_MODULUS_BITS)
	told.Delete(p11.CKA_PUBLIC_EXPONENT)
	class, _ := a.Class()
	if _, fixed := a.Ulong(p11.CKA_VALUE_LEN); !fixed {
		told.Delete(p11.CKA_VALUE_LEN)
	}
	blob, checksum, err := ep11.UnwrapKey(ctx, t.cards.via, target, wrapped, kek, nil, pin, m, told)
	if err != nil {
		return err
	}
	if class == p11.CKO_SECRET_KEY {
		return t.secretMade(a, blob, checksum)
	}
	if ep11.Blob(checksum).IsSPKI() {
		if err := numbersOf(checksum, a); err != nil {
			return err
		}
	}
	a.Set(p11.CKA_IBM_OPAQUE, blob)
	return nil
}

// DeriveKey is tokens.KeyDeriver.
func (t *token) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, given p11.Attributes) (p11.Attributes, error) {
	attrs, err := base.Acquire()
	if err != nil {
		return nil, err
	}
	defer base.Release()
	if m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY {
		return securekey.PublicHalf(attrs, given)
	}
	if err := t.cards.has(ctx, m.Type, p11.CKF_DERIVE); err != nil {
		return nil, err
	}
	if class, _ := given.Class(); class != p11.CKO_SECRET_KEY {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a secret key")
	}
	if m, err = translated(m, attrs); err != nil {
		return nil, err
	}
	a := given.Clone()
	kt, _ := a.KeyType()
	if lengths := p11.KeyLengths(kt); len(lengths) == 1 && !a.Has(p11.CKA_VALUE_LEN) {
		a.SetUlong(p11.CKA_VALUE_LEN, lengths[0])
	}
	one, err := t.sessions.forNew(ctx, a)
	if err != nil {
		return nil, failed(err, nil)
	}
	err = t.withKey(ctx, attrs, func(target card.Target, blob []byte) error {
		pin, err := one.at(target)
		if err != nil {
			return err
		}
		key, checksum, err := ep11.DeriveKey(ctx, t.cards.via, target, m, template(a), blob, nil, pin)
		if err != nil {
			return err
		}
		return t.secretMade(&a, key, checksum)
	}, one)
	if err != nil {
		return nil, err
	}
	return a, nil
}
