package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// Login is C_Login (PKCS#11 v3.1 §5.6.8). It logs in the application, in all its
// sessions with the token. CKU_CONTEXT_SPECIFIC authenticates the operation
// just begun with a key that has CKA_ALWAYS_AUTHENTICATE. The PIN stays the
// caller's.
func (s *Session) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) error {
	if s.closed() {
		return s.gone()
	}
	switch user {
	case p11.CKU_SO, p11.CKU_USER:
	case p11.CKU_CONTEXT_SPECIFIC:
		return s.authenticateActive(ctx, pin)
	default:
		return p11.Errorf(p11.CKR_USER_TYPE_INVALID, "there is no user of type %s", user)
	}
	st := s.appSlot
	if err := st.mayLogin(user); err != nil {
		return err
	}
	t, err := st.checkPIN(ctx, user, pin)
	if err != nil {
		return err
	}
	if err := st.begin(s, newLogin(t, st.app.engine.now())); err != nil {
		_ = t.Close() // the refusal is what the caller is to hear
		return err
	}
	st.app.engine.log.Debug("login", "token", st.slot.Name(), "uid", st.app.owner.UID, "user", user)
	return nil
}

// checkPIN has the token check a PIN.
func (st *appSlot) checkPIN(ctx context.Context, user p11.UserType, pin *secret.Bytes) (t tokens.Login, err error) {
	err = st.slot.tryPIN(ctx, st.app.owner, user, func() error {
		t, err = st.slot.token.Login(ctx, user, pin)
		return err
	})
	return t, err
}

// Logout is C_Logout (PKCS#11 v3.1 §5.6.10): private session objects, handles of
// private objects and operations with private keys end.
func (s *Session) Logout(ctx context.Context) error {
	if s.closed() {
		return s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	l := s.appSlot.current()
	if l == nil || !s.appSlot.end(l) {
		return p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "nobody is logged in to token %s", s.appSlot.slot.Name()), "nothing to do")
	}
	return nil
}

// InitPIN is C_InitPIN (PKCS#11 v3.1 §5.5.8), for the security officer.
func (s *Session) InitPIN(ctx context.Context, pin *secret.Bytes) error {
	if s.closed() {
		return s.gone()
	}
	l := s.appSlot.current()
	if l == nil || l.user != p11.CKU_SO {
		return p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "only the security officer, logged in, sets the user's PIN so"),
			"log the user out if need be, and write so:SO-PIN to the file login; users change their own PIN through the file pin")
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	err := s.appSlot.slot.token.InitPIN(ctx, l.token, pin)
	if err == nil {
		s.appSlot.slot.Release("the PIN was changed")
		s.appSlot.slot.tries.forget(p11.CKU_USER)
	}
	return err
}

// SetPIN is C_SetPIN (PKCS#11 v3.1 §5.5.9): the security officer's PIN when they
// are logged in, the user's otherwise, with or without a login.
func (s *Session) SetPIN(ctx context.Context, old, pin *secret.Bytes) error {
	if s.closed() {
		return s.gone()
	}
	if !s.rw {
		return p11.Errorf(p11.CKR_SESSION_READ_ONLY, "no PIN is changed in a read-only session")
	}
	user := p11.UserType(p11.CKU_USER)
	if l := s.appSlot.current(); l != nil {
		user = l.user
	}
	slot := s.appSlot.slot
	err := slot.tryPIN(ctx, s.appSlot.app.owner, user, func() error { return slot.token.SetPIN(ctx, user, old, pin) })
	if err == nil && user == p11.CKU_USER {
		slot.Release("the PIN was changed")
	}
	return err
}

// reauthenticate checks the user's PIN once more. It is no new login.
func (s *Session) reauthenticate(ctx context.Context, pin *secret.Bytes) error {
	if s.appSlot.user() == nil {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "no user is logged in")
	}
	t, err := s.appSlot.checkPIN(ctx, p11.CKU_USER, pin)
	if err != nil {
		return err
	}
	return t.Close()
}
