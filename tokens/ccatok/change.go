package ccatok

import (
	"bytes"
	"context"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cca"
	"p11fs/tokens/securekey"
)

// moved is the key token of a key under another master key: from the old one under that in
// use, or, ahead of a change, from that under the one to come.
func (t *token) moved(ctx context.Context, a p11.Attributes, ahead bool) (key []byte, err error) {
	word := "RTCMK"
	if ahead {
		word = "RTNMK"
	}
	kt, _ := a.KeyType()
	err = t.link.withKey(ctx, a, func(via card.Transport, old []byte) (err error) {
		switch kt {
		case p11.CKK_AES:
			key, err = cca.CSNBKTC(ctx, via, nil, cca.Rules{word, "AES"}.Bytes(), old)
		case p11.CKK_DES, p11.CKK_DES3:
			key, err = cca.CSNBKTC(ctx, via, nil, keyword(word), old)
		case p11.CKK_GENERIC_SECRET:
			key, err = cca.CSNBKTC2(ctx, via, nil, cca.Rules{word, "HMAC"}.Bytes(), old)
		case p11.CKK_EC:
			key, err = cca.CSNDKTC(ctx, via, nil, cca.Rules{word, "ECC"}.Bytes(), old)
		case p11.CKK_RSA:
			key, err = cca.CSNDKTC(ctx, via, nil, keyword(word), old)
		default:
			err = p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "a key of type %s is none of the card", kt.Short())
		}
		return err
	})
	return key, err
}

// Reencipher puts the keys that are known, private ones while the user is logged in, under
// the card's current master key, from the one before. It stops at the first that cannot be;
// called again it goes on, since a key that is under the current one stays as it is. It
// returns how many it changed, and how many there are.
func (t *token) Reencipher(ctx context.Context) (changed, all int, err error) {
	list, err := t.Find(ctx, nil, true)
	if err != nil {
		return 0, 0, err
	}
	for _, o := range list {
		did, secured, err := t.reencipher(ctx, o)
		if err != nil {
			return changed, all, p11.Errorf(p11.RVOf(err), "the key %s: %w", o.Name, err)
		}
		if secured {
			all++
		}
		if did {
			changed++
		}
	}
	return changed, all, nil
}

func (t *token) reencipher(ctx context.Context, o *tokens.Object) (did, secured bool, err error) {
	a, err := o.Acquire()
	if err != nil {
		return false, false, err
	}
	defer o.Release()
	old, _ := securekey.Blob(a)
	if !securekey.Secured(a) {
		return false, false, nil
	}
	key, err := t.moved(ctx, a, false)
	if err != nil || bytes.Equal(key, old) {
		return false, true, err
	}
	_, err = t.Update(ctx, o.Handle, func(now p11.Attributes) (p11.Attributes, error) {
		if blob, _ := securekey.Blob(now); !bytes.Equal(blob, old) {
			return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "somebody else has changed it meanwhile")
		}
		next := now.Clone()
		next.Set(p11.CKA_IBM_OPAQUE, bytes.Clone(key))
		return next, nil
	})
	return err == nil, true, err
}
