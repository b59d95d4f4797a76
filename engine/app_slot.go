package engine

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// An appSlot is one application on one slot: who is logged in, how many
// sessions there are, and the session objects.
type appSlot struct {
	app     *Application
	slot    *Slot
	objects sessionObjects

	// login is nil in a public session. It is written under mu and read
	// without: an operation compares it with the login it began under.
	login      atomic.Pointer[login]
	generation atomic.Uint64 // changes with login, after it

	mu       sync.Mutex // guards all below; 2nd in the order of doc.go
	sessions int
	readOnly int // the read-only ones of them
}

// login is one login of an application, from C_Login to C_Logout.
type login struct {
	token tokens.Login
	user  p11.UserType
	since time.Time
	// mask turns the token's handles of private objects into the
	// application's. It makes handles of before a logout name nothing after the
	// next login (PKCS#11 v3.1 §5.6.10), though the token has kept the objects
	// for another application, and keeps applications from comparing handles.
	mask p11.ObjectHandle
}

func newAppSlot(a *Application, slot *Slot) *appSlot {
	st := &appSlot{app: a, slot: slot}
	st.objects.init(st)
	return st
}

// current returns the login that holds, or nil. A login that the token declares
// void (locked, initialised anew) ends here.
func (st *appSlot) current() *login {
	l := st.login.Load()
	if l == nil {
		return nil
	}
	if err := l.token.Valid(); err != nil {
		st.app.engine.log.Info("login ended by the token", "token", st.slot.Name(), "uid", st.app.owner.UID, "reason", err)
		st.end(l)
		return nil
	}
	return l
}

// user returns the login of CKU_USER that holds, or nil.
func (st *appSlot) user() *login {
	if l := st.current(); l != nil && l.user == p11.CKU_USER {
		return l
	}
	return nil
}

// join counts a new session. PKCS#11 v3.1 §5.6.1: no read-only session beside the
// security officer.
func (st *appSlot) join(rw bool) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if l := st.login.Load(); !rw && l != nil && l.user == p11.CKU_SO {
		return p11.Errorf(p11.CKR_SESSION_READ_WRITE_SO_EXISTS, "the SO is logged in, and has no read-only sessions")
	}
	st.sessions++
	if !rw {
		st.readOnly++
	}
	return nil
}

// leave counts a session out; the last one logs out (PKCS#11 v3.1 §5.6.2).
func (st *appSlot) leave(rw bool) {
	st.mu.Lock()
	st.sessions--
	if !rw {
		st.readOnly--
	}
	var l *login
	if st.sessions == 0 {
		l = st.login.Load()
	}
	st.mu.Unlock()
	if l != nil {
		st.end(l)
	}
}

// begin makes l the application's login. It checks again what may have changed
// while the token checked the PIN.
func (st *appSlot) begin(s *Session, l *login) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.closed() {
		return s.gone()
	}
	if err := st.mayLoginLocked(l.user); err != nil {
		return err
	}
	st.login.Store(l)
	st.generation.Store(st.slot.generation())
	st.tellLogin(LoggedIn, l.user)
	return nil
}

// mayLogin applies the rules of C_Login (PKCS#11 v3.1 §5.6.8) that need no PIN.
func (st *appSlot) mayLogin(user p11.UserType) error {
	st.current() // a login that no longer holds is no obstacle
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.mayLoginLocked(user)
}

func (st *appSlot) mayLoginLocked(user p11.UserType) error {
	if l := st.login.Load(); l != nil {
		if l.user == user {
			return p11.Errorf(p11.CKR_USER_ALREADY_LOGGED_IN, "%s is logged in already", userName(user))
		}
		return p11.Errorf(p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, "%s is logged in, who is another one", userName(l.user))
	}
	if user == p11.CKU_SO && st.readOnly > 0 {
		return p11.Errorf(p11.CKR_SESSION_READ_ONLY_EXISTS, "the SO cannot log in beside %d read-only sessions", st.readOnly)
	}
	return nil
}

// end is the logout of l; it does nothing when l has ended already. Private
// session objects and operations with private keys go with it.
func (st *appSlot) end(l *login) bool {
	st.mu.Lock()
	if st.login.Load() != l {
		st.mu.Unlock()
		return false
	}
	st.login.Store(nil)
	st.generation.Store(st.slot.generation())
	st.mu.Unlock()

	st.tellLogin(LoggedOut, l.user)
	st.objects.dropPrivate()
	for _, s := range st.app.Sessions(st.slot) {
		s.cut(func(o *Operation) bool { return o.login == l })
	}
	if err := l.token.Close(); err != nil {
		st.app.engine.log.Warn("logout", "token", st.slot.Name(), "err", err)
	}
	return true
}

// newLogin wraps a token's login.
func newLogin(t tokens.Login, now time.Time) *login {
	return &login{token: t, user: t.User(), since: now, mask: newMask()}
}

// newMask returns one that nobody guesses.
func newMask() p11.ObjectHandle {
	var b [8]byte
	_, _ = rand.Read(b[:6]) // which never fails
	return p11.ObjectHandle(binary.LittleEndian.Uint64(b[:]))
}

func userName(u p11.UserType) string {
	switch u {
	case p11.CKU_SO:
		return "the security officer"
	case p11.CKU_USER:
		return "the user"
	}
	return u.String()
}
