package engine

import (
	"context"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A hold is a login of the user that the daemon has itself. It gives nobody anything: what
// somebody may do under it grants say.
type hold struct {
	login *login
	stamp string // of the PIN: see tokens.PINStamper
}

// Hold logs the daemon in to the slot's token as its user, until the PIN is changed or locked,
// the token is initialised, or Release. by gave the PIN, which counts as one of C_Login, and
// stays the caller's. Where the daemon is logged in already, that login goes on if the PIN is
// right.
func (s *Slot) Hold(ctx context.Context, by Owner, pin *secret.Bytes) error {
	if s.token == nil {
		return s.absent()
	}
	t, stamp, err := s.holdLogin(ctx, by, pin)
	if err != nil {
		return err
	}
	if s.holding() != nil || !s.held.CompareAndSwap(nil, &hold{login: newLogin(t, s.engine.now()), stamp: stamp}) {
		return t.Close()
	}
	s.grantsChanged()
	s.tellHeld(LoginHeld)
	s.engine.log.Info("the daemon holds a login", "token", s.Name(), "by", by.Door, "uid", by.UID, "pid", by.PID)
	return nil
}

// holdLogin logs in, and returns the stamp of the PIN that was right. A login may write what
// is kept of the PIN anew: then it is made once more, so that a PIN which is changed meanwhile
// is not taken for that.
func (s *Slot) holdLogin(ctx context.Context, by Owner, pin *secret.Bytes) (t tokens.Login, stamp string, err error) {
	for range 2 {
		before := s.pinStamp()
		err = s.tryPIN(ctx, by, p11.CKU_USER, func() (err error) {
			t, err = s.token.Login(ctx, p11.CKU_USER, pin)
			return err
		})
		if err != nil {
			return nil, "", err
		}
		if stamp = s.pinStamp(); stamp == before {
			return t, stamp, nil
		}
		_ = t.Close() // the next one is made anew
	}
	return nil, "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "the PIN of token %s is being changed", s.Name())
}

// Release ends the login that the daemon holds. It says whether there was one.
func (s *Slot) Release(why string) bool { return s.endHold(s.held.Load(), why) }

// Held says since when the daemon holds a login; not ok if it holds none.
func (s *Slot) Held() (since time.Time, ok bool) {
	if s.holding() == nil {
		return time.Time{}, false
	}
	if h := s.held.Load(); h != nil {
		return h.login.since, true
	}
	return time.Time{}, false
}

// holding returns the login that the daemon holds and that is good, or nil. One that is not
// any more ends here. It is called under no lock.
func (s *Slot) holding() *login {
	h := s.held.Load()
	if h == nil {
		return nil
	}
	if why := s.ended(h); why != "" {
		s.endHold(h, why)
		return nil
	}
	return h.login
}

// holds is holding where locks are held.
func (s *Slot) holds() *login {
	if h := s.held.Load(); h != nil && s.ended(h) == "" {
		return h.login
	}
	return nil
}

// ended says why a login of the daemon is not good any more; it is empty for one that is.
func (s *Slot) ended(h *hold) string {
	if err := h.login.token.Valid(); err != nil {
		return err.Error()
	}
	if s.pinStamp() != h.stamp {
		return "the PIN was changed"
	}
	return ""
}

// pinStamp is that of the user's PIN, if the token has one.
func (s *Slot) pinStamp() string {
	if t, ok := s.token.(tokens.PINStamper); ok {
		return t.PINStamp(p11.CKU_USER)
	}
	return ""
}

func (s *Slot) endHold(h *hold, why string) bool {
	if h == nil || !s.held.CompareAndSwap(h, nil) {
		return false
	}
	s.grantsChanged()
	s.tellHeld(LoginReleased)
	for _, a := range s.engine.applications() {
		a.forgets(s)
	}
	if err := h.login.token.Close(); err != nil {
		s.engine.log.Warn("logout", "token", s.Name(), "err", err)
	}
	s.engine.log.Info("the login that the daemon held has ended", "token", s.Name(), "reason", why)
	return true
}
