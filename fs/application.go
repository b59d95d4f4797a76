package fs

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/engine"
	"p11fs/p11"
)

// An application is what one uid has in one POSIX session.
type application struct {
	key    appKey
	leader leader
	eng    *engine.Application
	held   *atomic.Int64 // bytes that all sessions of the uid hold

	mu    sync.Mutex // guards all below, and the desks
	ended bool
	desks map[*engine.Slot]*desk
	// emptied has the open files whose content O_TRUNC took, which is not
	// stored yet.
	emptied map[*blobHandle]struct{}
}

// A desk is what an application has on one slot.
type desk struct {
	self     *session // the default session; nil until it is needed
	sessions map[p11.SessionHandle]*session
	names    map[string]*session
	last     lastError
}

// A sessionRef is how a path names a session: by number, by name, or, when it
// is zero, as the default session of whoever asks.
type sessionRef struct {
	number p11.SessionHandle
	name   string
}

func (r sessionRef) self() bool { return r == sessionRef{} }

func (a *application) deskLocked(slot *engine.Slot) *desk {
	d := a.desks[slot]
	if d == nil {
		d = &desk{sessions: make(map[p11.SessionHandle]*session), names: make(map[string]*session)}
		a.desks[slot] = d
	}
	return d
}

// unsettled says that h has an empty content to store, settled that it has not any
// more.
func (a *application) unsettled(h *blobHandle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.emptied == nil {
		a.emptied = make(map[*blobHandle]struct{})
	}
	a.emptied[h] = struct{}{}
}

func (a *application) settled(h *blobHandle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.emptied, h)
}

// settle has what is to be stored of the object stored, before the application
// looks at it.
func (a *application) settle(ctx context.Context, p place, ref objectRef) {
	a.mu.Lock()
	var due []*blobHandle
	for h := range a.emptied {
		if h.p.slot == p.slot && h.ref == ref {
			due = append(due, h)
		}
	}
	a.mu.Unlock()
	for _, h := range due {
		h.settle(ctx)
	}
}

// session returns the session, or nil when there is none.
func (a *application) session(slot *engine.Slot, ref sessionRef) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.desks[slot]
	if d == nil {
		return nil
	}
	var s *session
	switch {
	case ref.name != "":
		s = d.names[ref.name]
	case ref.number != 0:
		s = d.sessions[ref.number]
	default:
		s = d.self
	}
	if s != nil && s.gone() {
		d.forget(s)
		return nil
	}
	return s
}

func (d *desk) forget(s *session) {
	delete(d.sessions, s.eng.Handle())
	if d.names[s.name] == s {
		delete(d.names, s.name)
	}
	if d.self == s {
		d.self = nil
	}
}

// self returns the default session, which is made when it is first needed.
func (a *application) self(ctx context.Context, f *FS, slot *engine.Slot) (*session, error) {
	if s := a.session(slot, sessionRef{}); s != nil {
		return s, nil
	}
	s, err := a.open(ctx, f, slot, "")
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	d := a.deskLocked(slot)
	other := d.self
	if other == nil || other.gone() {
		d.self, other = s, nil
	}
	a.mu.Unlock()
	if other != nil { // two requests at once, both the first
		a.closeSession(s)
		return other, nil
	}
	return s, nil
}

// open opens a session, with a name unless that is empty.
func (a *application) open(ctx context.Context, f *FS, slot *engine.Slot, name string) (*session, error) {
	e, err := a.eng.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if p11.RVOf(err) == p11.CKR_TOKEN_WRITE_PROTECTED { // its keys can be used all the same
		e, err = a.eng.OpenSession(ctx, slot, p11.CKF_SERIAL_SESSION)
	}
	if err != nil {
		return nil, err
	}
	s := newSession(f, a, slot, e, name)
	if err := a.add(s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (a *application) add(s *session) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return p11.Errorf(p11.CKR_CRYPTOKI_NOT_INITIALIZED, "the application has ended")
	}
	d := a.deskLocked(s.slot)
	if s.name != "" {
		if other := d.names[s.name]; other != nil && !other.gone() {
			return errExists
		}
		d.names[s.name] = s
	}
	d.sessions[s.eng.Handle()] = s
	return nil
}

// closeSession is C_CloseSession.
func (a *application) closeSession(s *session) {
	a.mu.Lock()
	if d := a.desks[s.slot]; d != nil {
		d.forget(s)
	}
	a.mu.Unlock()
	s.close()
}

// sessions returns the living sessions on slot, and the default one of them.
func (a *application) sessions(slot *engine.Slot) (all []*session, self *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.desks[slot]
	if d == nil {
		return nil, nil
	}
	for _, s := range d.sessions {
		if s.gone() {
			d.forget(s)
			continue
		}
		all = append(all, s)
	}
	return all, d.self
}

// close ends the application and all that it has. It may be called again.
func (a *application) close() {
	a.mu.Lock()
	a.ended = true
	var all []*session
	for _, d := range a.desks {
		for _, s := range d.sessions {
			all = append(all, s)
		}
	}
	a.desks = make(map[*engine.Slot]*desk)
	a.mu.Unlock()
	for _, s := range all {
		s.close()
	}
	a.eng.Close()
}

// lastError is what the file error shows.
type lastError struct {
	rv  p11.RV
	why string
	// told says that why ends in what to do, in terms of files, so that the
	// advice of the CK_RV adds nothing.
	told bool
	// hint says that it may be no failure at all: see FS.hint.
	hint bool
	at   time.Time
}

// errorStays is how long an error is not pushed out by a hint.
const errorStays = 5 * time.Second

// then is what the file error shows after e and next.
func (e lastError) then(next lastError) lastError {
	if next.hint && !e.hint && e.rv != p11.CKR_OK && next.at.Sub(e.at) < errorStays {
		return e
	}
	return next
}

// errorOf is what the file error has to say of err.
func errorOf(err error) lastError {
	if err == nil {
		return lastError{}
	}
	e := lastError{rv: p11.RVOf(err), why: err.Error()}
	var own *fileError
	e.told = errors.As(err, &own) && strings.Contains(own.why, ": ")
	if errors.Is(err, engine.ErrPINAgain) {
		e.why += ": write context-specific:PIN to the file login, then the data"
		e.told = true
	}
	return e
}

// note keeps what became of the caller's last operation on the slot.
func (a *application) note(slot *engine.Slot, e lastError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended {
		d := a.deskLocked(slot)
		d.last = d.last.then(e)
	}
}

func (a *application) lastError(slot *engine.Slot) lastError {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := a.desks[slot]; d != nil {
		return d.last
	}
	return lastError{}
}
