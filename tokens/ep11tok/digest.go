package ep11tok

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// digestOperation takes keys.
type digestOperation struct{ *operation }

// Duplicate is tokens.Duplicator.
func (o digestOperation) Duplicate() (tokens.Operation, error) {
	d, err := o.another()
	if err != nil {
		return nil, err
	}
	return digestOperation{d}, nil
}

// DigestKey is tokens.KeyDigester.
func (o digestOperation) DigestKey(ctx context.Context, key *tokens.Object) error {
	attrs, err := key.Acquire()
	if err != nil {
		return err
	}
	defer key.Release()
	if class, _ := attrs.Class(); class != p11.CKO_SECRET_KEY {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "only secret keys are digested")
	}
	if err := o.usable(ctx); err != nil {
		return err
	}
	if err := o.begin(ctx); err != nil {
		return o.ends(ctx, err)
	}
	var state []byte
	err = o.t.withKey(ctx, attrs, func(target card.Target, blob []byte) (err error) {
		state, err = ep11.DigestKey(ctx, o.t.cards.via, target, o.state, blob)
		return err
	})
	if err != nil {
		return o.ends(ctx, err)
	}
	o.state = state
	return nil
}
