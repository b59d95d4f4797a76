package fs

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"p11fs/p11"
)

// unlock has the daemon hold a login to the token.
func (p place) unlock(ctx context.Context, a *application, args []byte) error {
	pin, err := newPIN(args)
	if err != nil {
		return err
	}
	defer pin.Close()
	return p.slot.Hold(ctx, a.eng.Owner(), pin)
}

// lock ends the login that the daemon holds. Who may is root, the owner of the tree, and who
// is logged in.
func (p place) lock(a *application, args []byte) error {
	if len(bytes.TrimSpace(args)) > 0 {
		return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "nothing stands behind lock")
	}
	if _, in := a.eng.LoggedIn(p.slot); !in && !p.owns(a.owner.uid) {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "only root, the owner of the tree and who is logged in end the login that the daemon holds")
	}
	if !p.slot.Release(fmt.Sprintf("ended by uid %d, pid %d", a.owner.uid, a.owner.sid)) {
		return p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the daemon holds no login to token %s", p.slot.Name()), "nothing to do")
	}
	return nil
}

// owns says whether the uid is root's or that of the tree's owner.
func (p place) owns(uid uint32) bool { return uid == 0 || uid == p.fs.config.UID }

// grantsText is the caller's grants for keys of the token as lines of p11fs-grants(5), and to
// root and the owner of the tree everybody's.
func (p place) grantsText(_ context.Context, c caller) ([]byte, error) {
	list := p.slot.AllGrants()
	if len(list) > 0 && !p.owns(c.uid) { // else nobody is to have an application for a look
		list = nil
		if a, err := p.fs.callers.get(c); err == nil {
			list = a.eng.Granted(p.slot)
		}
	}
	var b bytes.Buffer
	since, held := p.slot.Held()
	switch {
	case !held && len(list) > 0:
		b.WriteString("# the daemon holds no login to the token: these count once it does\n")
	case held && (len(list) > 0 || p.owns(c.uid)):
		fmt.Fprintf(&b, "# the daemon holds a login to the token since %s\n", since.UTC().Format(time.RFC3339))
	}
	for _, g := range list {
		fmt.Fprintf(&b, "%s # %s\n", g.Text, clean(g.At))
	}
	return b.Bytes(), nil
}
