package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"p11fs/p11"
)

// Slots come and go while the engine runs: token new, and token rm.

// AddSlot takes a slot into service. C_GetSlotList has it at once, and who waits for a slot's
// event is told.
func (e *Engine) AddSlot(c SlotConfig) (*Slot, error) {
	s, err := e.add(c)
	if err != nil {
		return nil, err
	}
	e.slotChanged(s, TokenCame)
	return s, nil
}

func (e *Engine) add(c SlotConfig) (*Slot, error) {
	e.adding.Lock()
	defer e.adding.Unlock()
	for _, other := range e.list() {
		if other.id == c.ID {
			return nil, fmt.Errorf("slot %d is configured twice: give each slot a number of its own", c.ID)
		}
		if c.Token != nil && c.Token.Name() == other.Name() {
			return nil, fmt.Errorf("slots %d and %d have the same token %q: give each slot a tokname of its own", other.id, c.ID, c.Token.Name())
		}
	}
	s := newSlot(e, c, e.table)
	list := append(e.Slots(), s)
	e.slots.Store(&list)
	return s, nil
}

// RemoveSlot takes a slot out of service. All sessions on it end, and so what is in progress
// in them and their logins, once nobody but by is logged in there; with force at once. The
// token stays open: it belongs to whoever opened it.
func (e *Engine) RemoveSlot(ctx context.Context, s *Slot, by Owner, force bool) error {
	others, err := s.othersSessions(ctx)
	if err != nil && !force {
		return err
	}
	s.mu.Lock()
	switch {
	case s.removed:
		s.mu.Unlock()
		return s.gone()
	case s.initialising != nil:
		s.mu.Unlock()
		return p11.Advise(p11.Errorf(p11.CKR_SESSION_EXISTS, "token %s is being initialised or removed already", s.Name()), "wait for it")
	}
	end := s.excludeLocked()
	s.mu.Unlock()
	if !force {
		if err := e.unused(s, by, others); err != nil {
			end()
			return err
		}
	}
	s.mu.Lock()
	s.removed = true
	s.mu.Unlock()
	end()
	e.adding.Lock()
	list := slices.DeleteFunc(e.Slots(), func(o *Slot) bool { return o == s })
	e.slots.Store(&list)
	e.adding.Unlock()
	s.hearNoMore()
	for _, a := range e.applications() {
		_ = a.CloseAllSessions(s) // which fails never
	}
	s.Release("the token was taken out of service")
	e.slotChanged(s, TokenWent)
	e.log.Info("slot taken out of service", "slot", uint64(s.id), "token", s.Name(), "uid", by.UID, "pid", by.PID, "force", force)
	return nil
}

// unused refuses where somebody else is logged in to the slot's token.
func (e *Engine) unused(s *Slot, by Owner, others uint64) error {
	for _, a := range e.applications() {
		if a.login(s) != nil && (a.owner.UID != by.UID || a.owner.PID != by.PID || a.owner.Door != by.Door) {
			return inService(s, "somebody is logged in to it")
		}
	}
	switch {
	case s.holding() != nil:
		return inService(s, "the daemon holds a login for those who have grants")
	case others > 0:
		return inService(s, "programs with openCryptoki's library have sessions with it")
	}
	return nil
}

func inService(s *Slot, why string) error {
	return p11.Advise(p11.Errorf(p11.CKR_SESSION_EXISTS, "token %s is in use: %s", s.Name(), why), "p11fs who shows who; p11fs token rm --force ends what they do")
}

// gone is why a slot that was removed can do nothing.
func (s *Slot) gone() error {
	return p11.Errorf(p11.CKR_DEVICE_REMOVED, "token %s was taken out of service", s.Name())
}

func (s *Slot) isRemoved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}

// slotChanged tells of a slot that has come or gone.
func (e *Engine) slotChanged(s *Slot, kind EventKind) {
	s.tell(kind, 0, nil)
	for _, a := range e.applications() {
		a.events.add(s.id)
		if kind == TokenWent {
			a.mu.Lock()
			delete(a.slots, s)
			a.mu.Unlock()
			a.forgets(s)
		}
	}
	if kind != TokenWent {
		return
	}
	for _, w := range e.watchers.all() {
		if w.slot == s {
			w.end()
		}
	}
}

// slotEvents are the slots whose change an application was not yet told.
type slotEvents struct {
	news chan struct{} // gets something when there may be one

	mu    sync.Mutex // guards all below; nothing is locked under it
	slots []p11.SlotID
}

func (v *slotEvents) add(id p11.SlotID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.slots, id) {
		v.slots = append(v.slots, id)
	}
	v.nudgeLocked()
}

func (v *slotEvents) nudgeLocked() {
	select {
	case v.news <- struct{}{}:
	default:
	}
}

// take returns the first of them.
func (v *slotEvents) take() (id p11.SlotID, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.slots) == 0 {
		return 0, false
	}
	id, v.slots = v.slots[0], v.slots[1:]
	if len(v.slots) > 0 {
		v.nudgeLocked() // another who waits
	}
	return id, true
}

// SlotEvent is C_WaitForSlotEvent with CKF_DONT_BLOCK (PKCS#11 v3.1 §5.5.4): the slot of a
// change since the application began that it was not told of, or CKR_NO_EVENT.
func (a *Application) SlotEvent() (p11.SlotID, error) {
	if id, ok := a.events.take(); ok {
		return id, nil
	}
	return 0, p11.CKR_NO_EVENT
}

// SlotNews gets something whenever SlotEvent may have something.
func (a *Application) SlotNews() <-chan struct{} { return a.events.news }
