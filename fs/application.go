package fs

import (
	"context"
	"sync"

	"p11fs/engine"
	"p11fs/p11"
)

// An application is what one uid has in one POSIX session.
type application struct {
	owner   owner
	leader  leader
	eng     *engine.Application
	account *engine.Account // of the uid, with what all its sessions hold

	temporaries temporaries
	closing     sync.Once

	mu    sync.Mutex // guards all below, and the sessions of each appSlot
	ended bool
	slots map[*engine.Slot]*appSlot
	// emptied has the open files whose content O_TRUNC took, where that is still to
	// be stored.
	emptied map[*blob]struct{}
	writing map[*blob]struct{} // open for writing
}

// An appSlot is what an application has on one slot.
type appSlot struct {
	// sessions has each session by its number, by its name if it has one, and the
	// default session by the zero reference.
	sessions map[sessionRef]*session
	errors   errorFile
}

func (a *application) onLocked(slot *engine.Slot) *appSlot {
	on := a.slots[slot]
	if on == nil {
		on = &appSlot{sessions: make(map[sessionRef]*session)}
		a.slots[slot] = on
	}
	return on
}

func (a *application) errorFile(slot *engine.Slot) *errorFile {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &a.onLocked(slot).errors
}

// session returns the session, or nil if there is none.
func (a *application) session(slot *engine.Slot, ref sessionRef) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	on := a.onLocked(slot)
	s := on.sessions[ref]
	if s != nil && s.gone() {
		on.forget(s)
		return nil
	}
	return s
}

func (on *appSlot) forget(s *session) {
	for _, ref := range []sessionRef{{number: s.eng.Handle()}, {name: s.name}} { // without a name the default one
		if on.sessions[ref] == s {
			delete(on.sessions, ref)
		}
	}
}

// defaultSession returns the session that is opened when it is first needed.
func (a *application) defaultSession(ctx context.Context, p place) (*session, error) {
	if s := a.session(p.slot, sessionRef{}); s != nil {
		return s, nil
	}
	return a.open(ctx, p, sessionRef{})
}

// open opens a session, which is found by its number and by others. If there is a
// default session already, that is returned.
func (a *application) open(ctx context.Context, p place, others ...sessionRef) (*session, error) {
	e, err := a.eng.OpenSession(ctx, p.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if p11.RVOf(err) == p11.CKR_TOKEN_WRITE_PROTECTED { // its keys can be used all the same
		e, err = a.eng.OpenSession(ctx, p.slot, p11.CKF_SERIAL_SESSION)
	}
	if err != nil {
		return nil, err
	}
	s := &session{fs: p.fs, app: a, slot: p.slot, eng: e, exchanges: make(map[string]*exchange)}
	added, err := a.add(s, others)
	if added != s {
		s.close()
	}
	return added, err
}

func (a *application) add(s *session, others []sessionRef) (*session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return nil, p11.Errorf(p11.CKR_CRYPTOKI_NOT_INITIALIZED, "the application has ended")
	}
	on := a.onLocked(s.slot)
	for _, ref := range others {
		if other := on.sessions[ref]; other != nil && !other.gone() {
			if ref.isDefault() { // two requests at once, both the first
				return other, nil
			}
			return nil, errExists
		}
		on.sessions[ref], s.name = s, ref.name
	}
	on.sessions[sessionRef{number: s.eng.Handle()}] = s
	return s, nil
}

// closeSession is C_CloseSession.
func (a *application) closeSession(s *session) {
	a.mu.Lock()
	a.onLocked(s.slot).forget(s)
	a.mu.Unlock()
	s.close()
}

// sessions returns the sessions on slot that are open.
func (a *application) sessions(slot *engine.Slot) []*session {
	a.mu.Lock()
	defer a.mu.Unlock()
	on := a.onLocked(slot)
	var all []*session
	for ref, s := range on.sessions {
		if s.gone() {
			on.forget(s)
		} else if ref.number != 0 {
			all = append(all, s)
		}
	}
	return all
}

// close ends the application and all that it has. It may be called again, and has
// always ended all of it when it returns.
func (a *application) close() { a.closing.Do(a.closeAll) }

func (a *application) closeAll() {
	a.mu.Lock()
	a.ended = true
	slots := a.slots
	a.slots = make(map[*engine.Slot]*appSlot)
	a.mu.Unlock()
	for _, on := range slots {
		for _, s := range on.sessions {
			s.close()
		}
	}
	a.temporaries.close()
	a.eng.Close()
}
