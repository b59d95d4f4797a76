package ep11tok

import (
	"bytes"
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

// bounds are the attributes of all keys that a card goes by, beside those of their uses. That
// a key cannot be changed any more comes last.
func bounds() []p11.AttributeType {
	return []p11.AttributeType{p11.CKA_EXTRACTABLE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_TRUSTED, p11.CKA_MODIFIABLE}
}

// toldOf is what a card is told of a change. A copy of a key that cannot be changed is
// another object, and for the card the same key.
func toldOf(was, now p11.Attributes) (told p11.Attributes) {
	class, _ := now.Class()
	kt, _ := now.KeyType()
	for _, t := range append(usesOf(class, kt), bounds()...) {
		before, _ := was.Get(t)
		after, ok := now.Get(t)
		if ok && !bytes.Equal(before, after) && (t != p11.CKA_MODIFIABLE || !now.Bool(t)) {
			told.Set(t, bytes.Clone(after))
		}
	}
	return told
}

// Change is tokens.Changer: what a key may do stands in its blob, by which the card goes.
func (t *token) Change(ctx context.Context, was, now p11.Attributes) (p11.Attributes, error) {
	told := toldOf(was, now)
	bare := unmarked(was)
	if _, ok := securekey.Blob(was); len(told) == 0 || !bare && !ok || bare && !told.Bool(p11.CKA_TRUSTED) {
		return nil, nil
	}
	result := now.Clone()
	var err error
	if bare {
		err = t.mark(ctx, &result)
	} else {
		err = t.setBits(ctx, was, told, &result)
	}
	if err != nil {
		result.Wipe()
		return nil, err
	}
	return result, nil
}

// unmarked says of a public key that the card has no MAC on it. For the card it may do all,
// and no other key trusts it.
func unmarked(a p11.Attributes) bool {
	blob, _ := securekey.Blob(a)
	class, _ := a.Class()
	return class == p11.CKO_PUBLIC_KEY && (!ep11.Blob(blob).IsSPKI() || ep11.Blob(blob).WKID() == nil)
}

// mark has the card take a public key in, which so has a place for what it may do.
func (t *token) mark(ctx context.Context, a *p11.Attributes) error {
	spki, err := securekey.SPKI(*a)
	if err != nil {
		return err
	}
	blob, err := t.rebind(ctx, spki, *a)
	if err == nil {
		a.Set(p11.CKA_IBM_OPAQUE, blob)
	}
	return refused(err, *a)
}

// setBits has the card change the blob of a key, and that which stands beside it while the
// wrapping key is changed.
func (t *token) setBits(ctx context.Context, was, told p11.Attributes, result *p11.Attributes) error {
	var used, made []byte
	err := t.withKey(ctx, was, func(target card.Target, blob []byte) (err error) {
		used = blob
		made, err = ep11.SetAttributeValue(ctx, t.cards.via, target, blob, told)
		return refused(err, told)
	})
	if err != nil {
		return err
	}
	result.Set(p11.CKA_IBM_OPAQUE, made)
	next, _ := was.Get(p11.CKA_IBM_OPAQUE_REENC)
	switch {
	case len(next) == 0:
		return nil
	case !bytes.Equal(used, next):
		return t.renewNext(ctx, made, next, result)
	case !t.cards.everywhere(ep11.Blob(next).WKID()):
		return changing()
	}
	old, _ := was.Get(p11.CKA_IBM_OPAQUE)
	result.Set(p11.CKA_IBM_OPAQUE_OLD, bytes.Clone(old))
	result.Delete(p11.CKA_IBM_OPAQUE_REENC)
	return nil
}

// renewNext puts a changed key under the next wrapping key, as the key before the change was.
func (t *token) renewNext(ctx context.Context, blob, next []byte, result *p11.Attributes) error {
	if err := t.cards.learn(ctx, true); err != nil {
		return err
	}
	d, err := t.cards.upcoming()
	if err != nil || !under(next, d.info.Next[:]) {
		return changing()
	}
	renewed, err := t.reencrypt(ctx, d, blob)
	if err == nil {
		result.Set(p11.CKA_IBM_OPAQUE_REENC, renewed)
	}
	return err
}

// changing is what is said where no card could change both a key and what stands beside it.
func changing() error {
	return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the wrapping key of the cards is being changed, and the key is under two of them"),
		"finish that first (p11fs card finalize), or take it back (p11fs card cancel)")
}

// refused says which control point has the card refuse a change, or a key that is to be
// trusted from the first.
func refused(err error, told p11.Attributes) error {
	switch rv := p11.RVOf(err); {
	case err == nil:
		return nil
	case told.Bool(p11.CKA_TRUSTED) && slices.Contains([]p11.RV{ep11.ReadOnly, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_ARGUMENTS_BAD}, rv):
		return p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "trusted: the card takes no token's word for it"),
			"have the card's administrator switch the control point on; of a software card: p11fs card points USER_SET_TRUSTED=on")
	case rv == ep11.StaticPolicy:
		return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "a control point of the card has it change no key"),
			"make the key anew with those attributes, or have the card's administrator switch the point on; of a software card: p11fs card points MODIFY_OBJECTS=on")
	}
	return err
}
