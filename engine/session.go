package engine

import (
	"sync"
	"sync/atomic"

	"p11fs/p11"
)

// A Session is one session of an application with a token.
type Session struct {
	appSlot *appSlot
	handle  p11.SessionHandle
	rw      bool
	ended   atomic.Bool   // set once, before what the session holds is ended
	done    chan struct{} // closed with the session
	asked   atomic.Uint64 // operations that came to want the PIN

	mu         sync.Mutex               // guards all below; 8th in the order of doc.go
	operations map[*Operation]struct{}  // all in progress, those of Begin too
	active     map[p11.Flags]*Operation // those of the C_ functions, by use
	saved      []*savedState            // oldest first; their operations are among those above
	search     *search                  // between C_FindObjectsInit and C_FindObjectsFinal
}

func newSession(st *appSlot, h p11.SessionHandle, rw bool) *Session {
	return &Session{
		appSlot:    st,
		handle:     h,
		rw:         rw,
		done:       make(chan struct{}),
		operations: make(map[*Operation]struct{}),
		active:     make(map[p11.Flags]*Operation),
	}
}

// Handle is the session's number within its application.
func (s *Session) Handle() p11.SessionHandle { return s.handle }

// Slot is the slot whose token the session is with.
func (s *Session) Slot() *Slot { return s.appSlot.slot }

// Application is whose session it is.
func (s *Session) Application() *Application { return s.appSlot.app }

// Done is closed when the session ends.
func (s *Session) Done() <-chan struct{} { return s.done }

// Info is C_GetSessionInfo (PKCS#11 v3.1 §5.6.4).
func (s *Session) Info() (p11.SessionInfo, error) {
	if s.closed() {
		return p11.SessionInfo{}, s.gone()
	}
	info := p11.SessionInfo{
		SlotID: s.appSlot.slot.id,
		Flags:  p11.CKF_SERIAL_SESSION,
		State:  s.state(s.appSlot.current()),
	}
	if s.rw {
		info.Flags |= p11.CKF_RW_SESSION
	}
	return info, nil
}

// ValidationFlags is C_GetSessionValidationFlags (PKCS#11 v3.2 §5.6): no token here has
// an object of class validation, so no operation was validated.
func (s *Session) ValidationFlags(kind p11.ValidationFlags) (p11.Flags, error) {
	if s.closed() {
		return 0, s.gone()
	}
	if kind != p11.CKS_LAST_VALIDATION_OK {
		return 0, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "there are no validation flags of kind %#x", uint64(kind))
	}
	return 0, nil
}

// state is the session's state under l (PKCS#11 v3.1 §5.6, five states).
func (s *Session) state(l *login) p11.State {
	switch {
	case l == nil && s.rw:
		return p11.CKS_RW_PUBLIC_SESSION
	case l == nil:
		return p11.CKS_RO_PUBLIC_SESSION
	case l.user == p11.CKU_SO:
		return p11.CKS_RW_SO_FUNCTIONS
	case s.rw:
		return p11.CKS_RW_USER_FUNCTIONS
	}
	return p11.CKS_RO_USER_FUNCTIONS
}

// Close is C_CloseSession (PKCS#11 v3.1 §5.6.2): its operations and session
// objects end, and with the application's last session on the token its login.
// It does not wait for calls in progress: each of them gives up what it holds
// when it returns.
func (s *Session) Close() error {
	if !s.appSlot.app.removeSession(s) {
		return s.gone()
	}
	s.ended.Store(true)
	s.cut(func(*Operation) bool { return true })
	s.mu.Lock()
	s.endSearchLocked()
	s.mu.Unlock()
	s.appSlot.objects.dropSession(s)
	s.appSlot.leave(s.rw)
	s.appSlot.slot.leave(s.rw)
	e := s.appSlot.app.engine
	e.quota.give(s.appSlot.app.owner.UID, 1, 0)
	e.sessions.Add(-1)
	close(s.done)
	return nil
}

func (s *Session) closed() bool { return s.ended.Load() }

func (s *Session) gone() error {
	return p11.Errorf(p11.CKR_SESSION_HANDLE_INVALID, "session %d is closed", uint64(s.handle))
}

// writable refuses changes of token objects in a read-only session.
func (s *Session) writable() error {
	if s.rw {
		return nil
	}
	return p11.Errorf(p11.CKR_SESSION_READ_ONLY, "session %d is read-only, and the object is a token object", uint64(s.handle))
}

// MayChangeToken says whether the session may make, change or destroy token
// objects at all. Which of them is asked where it does.
func (s *Session) MayChangeToken() error {
	_, err := s.tokenLogin()
	return err
}

// tokenLogin is MayChangeToken. It returns the login that it needs, if it needs one.
func (s *Session) tokenLogin() (*login, error) {
	if err := s.writable(); err != nil || !s.appSlot.app.owner.LoginForToken {
		return nil, err
	}
	l := s.appSlot.current()
	if l == nil {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "token objects are made, changed and destroyed after a login only")
	}
	return l, nil
}

// cut ends the operations that which chooses.
func (s *Session) cut(which func(*Operation) bool) {
	s.mu.Lock()
	var list []*Operation
	for o := range s.operations {
		if which(o) {
			list = append(list, o)
		}
	}
	for flag, o := range s.active {
		if which(o) {
			delete(s.active, flag)
		}
	}
	s.mu.Unlock()
	for _, o := range list {
		o.Close()
	}
}
