package ep11tok

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/securekey"
)

var _ tokens.Reencipherer = (*token)(nil)

// upcoming is the domain whose next wrapping key is committed, of those that have the token's
// keys. All of these must have the same one, as a key may be used at each.
func (c *cards) upcoming() (domain, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *domain
	for i := range c.domains {
		d := &c.domains[i]
		switch {
		case d.err != nil || d.info.Flags&ep11.DomainWK == 0:
			continue
		case d.info.Flags&ep11.DomainNextCommitted == 0:
			return domain{}, p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the domain %s has no next wrapping key that is committed", d.name()),
				"have the card's administrators make and commit one; of a software card: p11fs card wk new, and commit")
		case found != nil && (!bytes.Equal(found.info.Next[:], d.info.Next[:]) || !bytes.Equal(found.wkid(), d.wkid())):
			return domain{}, p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the domains %s and %s have different wrapping keys, or next ones", found.name(), d.name()),
				"have the card's administrators give all domains of the token the same ones")
		case found == nil:
			found = d
		}
	}
	if found == nil {
		return domain{}, p11.Errorf(p11.CKR_DEVICE_REMOVED, "no card with a wrapping key answers")
	}
	return *found, nil
}

// Reencipher is tokens.Reencipherer.
func (t *token) Reencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	if err := t.cards.learn(ctx, true); err != nil {
		return 0, err
	}
	d, err := t.cards.upcoming()
	if err != nil {
		return 0, err
	}
	return securekey.Reencipher(ctx, t.Store, progress,
		func(next []byte) bool { return under(next, d.info.Next[:]) },
		func(ctx context.Context, blob []byte) (next []byte, err error) {
			switch {
			case ep11.Blob(blob).WKID() == nil && ep11.Blob(blob).IsSPKI():
				return nil, nil // a public key that is under none
			case under(blob, d.info.Next[:]):
				return nil, nil
			}
			next, err = t.reencrypt(ctx, d, blob)
			if errors.Is(err, errUnbound) {
				t.log.Warn("a key is bound to no login of this token, and stays as it is", "token", t.name, "err", err)
				return nil, nil
			}
			if rv := p11.RVOf(err); rv == ep11.WKIDMismatch || rv == ep11.BlobError {
				t.log.Warn("a key is of no wrapping key of the card, and stays as it is", "token", t.name, "wkid", hex.EncodeToString(ep11.Blob(blob).WKID()))
				return nil, nil
			}
			return next, failed(err, blob)
		})
}

// under says whether a blob is under the wrapping key with that verification pattern.
func under(blob, pattern []byte) bool { return bytes.Equal(ep11.Blob(blob).WKID(), pattern[:wkvpSize]) }

// errUnbound is of a key that is bound to a login of others.
var errUnbound = errors.New("the key is bound to no login of this token")

// reencrypt is what a blob is under the next wrapping key, which is that of d.
func (t *token) reencrypt(ctx context.Context, d domain, blob []byte) (next []byte, err error) {
	one, err := t.sessions.of(ctx, blob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnbound, failed(err, blob))
	}
	err = t.sessions.within(ctx, []*session{one}, func() error {
		return t.cards.try(ctx, func() error {
			next, err = ep11.Reencrypt(ctx, t.cards.via, d.target(), blob)
			return err
		})
	})
	if err == nil && !under(next, d.info.Next[:]) {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the card's next wrapping key has changed meanwhile")
	}
	return next, err
}

// FinalizeReencipher is tokens.Reencipherer.
func (t *token) FinalizeReencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	if err := t.cards.learn(ctx, true); err != nil {
		return 0, err
	}
	if err := t.cards.all(); err != nil {
		return 0, err
	}
	return securekey.Finalize(ctx, t.Store, progress, func(next []byte) error {
		if id := ep11.Blob(next).WKID(); !t.cards.everywhere(id) {
			return p11.Advise(p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the wrapping key %s is not that of each card", hex.EncodeToString(id)),
				"have it activated in all domains first; of a software card: p11fs card wk activate")
		}
		return nil
	}, func(_ context.Context, blob []byte) ([]byte, error) {
		id := ep11.Blob(blob).WKID()
		if id == nil && ep11.Blob(blob).IsSPKI() || t.cards.somewhere(id) { // a public key may be under none
			return nil, nil
		}
		return nil, securekey.ErrLost
	})
}

// all refuses to go on where a domain does not answer: of which nobody knows what its wrapping
// key is, and whether it could use the keys.
func (c *cards) all() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.domains {
		if d := &c.domains[i]; d.err != nil {
			return p11.Advise(p11.Errorf(p11.CKR_DEVICE_REMOVED, "the domain %s does not answer, and may have another wrapping key: %w", d.name(), d.err),
				"have it answer again, or take it out of ep11tok.conf")
		}
	}
	return nil
}

// everywhere says whether each domain has the wrapping key.
func (c *cards) everywhere(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id != nil && !slices.ContainsFunc(c.domains, func(d domain) bool { return !bytes.Equal(d.wkid(), id) })
}

// somewhere says whether a domain has the wrapping key.
func (c *cards) somewhere(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id != nil && slices.ContainsFunc(c.domains, func(d domain) bool { return bytes.Equal(d.wkid(), id) })
}

// CancelReencipher is tokens.Reencipherer.
func (t *token) CancelReencipher(ctx context.Context, progress func(done, total int)) (int, error) {
	return securekey.Cancel(ctx, t.Store, progress)
}
