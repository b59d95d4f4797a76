package ccatok

import (
	"bytes"
	"context"
	"errors"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
)

var _ tokens.Reencipherer = (*token)(nil)

// The rules of Key Token Change: to the master key in use from the one before, and from that
// in use to the one to come.
const (
	toCurrent = "RTCMK"
	toNew     = "RTNMK"
)

// moved is a key token under another master key, as it is where it is under that already,
// and nothing for a public key's, which is under none.
func (t *token) moved(ctx context.Context, rule string, key []byte) (moved []byte, err error) {
	err = t.link.call(ctx, func(via card.Transport) (err error) {
		if s, perr := cca.ParseSymmetric(key); perr == nil {
			rules := cca.Rules{rule}
			if s.AES {
				rules = append(rules, "AES")
			}
			moved, err = cca.CSNBKTC(ctx, via, nil, rules.Bytes(), key)
			return err
		}
		if _, perr := cca.ParseVariable(key); perr == nil {
			moved, err = cca.CSNBKTC2(ctx, via, nil, cca.Rules{rule, "HMAC"}.Bytes(), key)
			return err
		}
		k, perr := cca.ParsePKA(key)
		switch {
		case perr != nil:
			return p11.Errorf(p11.CKR_DEVICE_ERROR, "the key token is damaged: %w", perr)
		case !k.Private:
			return nil
		case k.N == nil:
			moved, err = cca.CSNDKTC(ctx, via, nil, cca.Rules{rule, "ECC"}.Bytes(), key)
		default:
			moved, err = cca.CSNDKTC(ctx, via, nil, cca.Rules{rule}.Bytes(), key)
		}
		return err
	})
	return moved, err
}

// isAt says whether a key token is where a rule moves others. The error is that nobody knows,
// as no card answered.
func (t *token) isAt(ctx context.Context, rule string, key []byte) (bool, error) {
	moved, err := t.moved(ctx, rule, key)
	if p11.RVOf(err) == p11.CKR_DEVICE_REMOVED || ctx.Err() != nil {
		return false, err
	}
	return err == nil && bytes.Equal(moved, key), nil
}

// Reencipher is tokens.Reencipherer. A key of no master key of the card stays as it is, and so
// does one of a master key that does not change: a card has three.
func (t *token) Reencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	changes, stays := false, 0
	n, err := securekey.Reencipher(ctx, t.Store, progress, func(next []byte) bool {
		at, err := t.isAt(ctx, toNew, next)
		changes = changes || at
		return err == nil && at
	},
		func(ctx context.Context, key []byte) ([]byte, error) {
			next, err := t.toNext(ctx, key)
			switch {
			case errors.Is(err, cca.ErrNoKey):
				stays++
				return nil, nil
			case errors.Is(err, cca.ErrToken):
				t.log.Warn("a key is of no master key of the card, and stays as it is", "token", t.name)
				return nil, nil
			case err != nil:
				return nil, err
			}
			changes = changes || next != nil
			if bytes.Equal(next, key) {
				return nil, nil
			}
			return next, nil
		})
	if err == nil && stays > 0 && !changes {
		err = p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the card has no next master key"), "have its administrators make one; of a software card: p11fs card wk new, and commit")
	}
	return n, err
}

// toNext is a key token under the next master key: also one of the master key before, which
// would be lost with it.
func (t *token) toNext(ctx context.Context, key []byte) ([]byte, error) {
	next, err := t.moved(ctx, toNew, key)
	if !errors.Is(err, cca.ErrToken) {
		return next, err
	}
	now, cerr := t.moved(ctx, toCurrent, key)
	if cerr != nil || bytes.Equal(now, key) {
		return nil, err
	}
	return t.moved(ctx, toNew, now)
}

// FinalizeReencipher is tokens.Reencipherer. A key that is still under the master key before
// is brought under that in use.
func (t *token) FinalizeReencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	return securekey.Finalize(ctx, t.Store, progress, func(next []byte) error {
		at, err := t.isAt(ctx, toCurrent, next)
		if err != nil {
			return err
		}
		if !at {
			return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the next master key is not that of the card"), "have it set first; of a software card: p11fs card wk activate")
		}
		return nil
	}, func(ctx context.Context, key []byte) ([]byte, error) {
		now, err := t.moved(ctx, toCurrent, key)
		switch {
		case errors.Is(err, cca.ErrToken):
			return nil, securekey.ErrLost
		case p11.RVOf(err) == p11.CKR_DEVICE_REMOVED || ctx.Err() != nil:
			return nil, err
		case err != nil || bytes.Equal(now, key): // as where there is no master key before
			return nil, nil
		}
		return now, nil
	})
}

// CancelReencipher is tokens.Reencipherer.
func (t *token) CancelReencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	return securekey.Cancel(ctx, t.Store, progress)
}
