package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

var _ tokens.Accepter = (*upkeep)(nil)

// Accept is tokens.Accepter. What is there is written anew under another ID of the token, so
// that no machine takes it for what it has seen.
func (u *upkeep) Accept(ctx context.Context, ask func(found []string) (*secret.Bytes, error)) (err error) {
	p := u.place
	p.Create, p.Room = false, -1
	t, err := openToken(ctx, u.p, p, u.iterations)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	shown, err := t.snapshot(ctx, 0)
	if err != nil {
		return err
	}
	so, err := ask(t.found(shown))
	if err != nil {
		return err
	}
	in, err := t.Login(ctx, p11.CKU_SO, so)
	if err = errors.Join(err, so.Close()); err != nil {
		return err
	}
	defer in.Close()
	now, err := t.snapshot(ctx, 0)
	if err != nil {
		return err
	}
	if !shown.sameObjects(now) {
		return errOther
	}
	c, _ := t.contents(now)
	defer c.Wipe()
	// Machines take it for newer than what they have seen, of a token that somebody has put back.
	return t.restore(ctx, c, tokens.CountFrom(t.cfg.Now()), func(r *record) error {
		if r.Count != now.record.Count {
			return errOther
		}
		return nil
	})
}

var errOther = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the token was changed meanwhile"), "look at what it is now, and accept that")

// sameObjects reports whether two snapshots have the same objects, as they were written.
func (l *loaded) sameObjects(o *loaded) bool {
	if l.record.ID != o.record.ID || len(l.values) != len(o.values) || l.cut || o.cut {
		return false
	}
	for i, kv := range l.values {
		if string(kv.Key) != string(o.values[i].Key) || kv.ModRevision != o.values[i].ModRevision {
			return false
		}
	}
	return true
}

// found tells people what a snapshot has.
func (t *token) found(l *loaded) []string {
	c, bad := t.contents(l)
	defer c.Wipe()
	i := l.record.Data.Info(time.Time{})
	lines := []string{fmt.Sprintf("token %q at change %d, with %d objects; the fleet has written %d", i.Label, l.record.Count, len(c.Objects), l.record.Objects)}
	for _, role := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		tries, state := i.Flags.PINState(role)
		lines = append(lines, fmt.Sprintf("%s PIN: %s, tries left: %s", role, state, tries))
	}
	if why := t.differs(l, c); why != "" {
		lines = append(lines, "wrong: "+why)
	} else {
		lines = append(lines, "the objects are those that the fleet has written with this change")
	}
	for _, b := range bad {
		lines = append(lines, "will be removed: "+b)
	}
	for _, o := range c.Objects[:min(len(c.Objects), maxTold)] {
		what := "private"
		if made := t.Index.ByName(shownName(l.record, o.Name)); made != nil {
			if attrs, err := made.Acquire(); err == nil {
				what = fmt.Sprintf("public, %q", attrs.Label())
				made.Release()
			}
		}
		lines = append(lines, fmt.Sprintf("object %s of %s: %s", o.Name, o.Changed.UTC().Format(time.RFC3339), what))
	}
	if n := len(c.Objects) - maxTold; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more objects", n))
	}
	return slices.Clip(lines)
}
