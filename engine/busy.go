package engine

import (
	"sync"
	"time"

	"p11fs/p11"
)

// A Busy is a call of a token that has not come back. What the token waits for, such as its
// lock, a card or a server, is a part of it.
type Busy struct {
	Token     string
	Does      string // such as "sign"
	Mechanism p11.MechanismType
	Since     time.Time
}

// Waits is how many requests of a uid wait, through all doors.
type Waits struct {
	Processor int // for a turn: others work, who have used less of late
	Long      int // for others' long work to end, such as keys that are made
}

// waits counts them.
func (a *Account) waits() (w Waits) {
	a.turns.mu.Lock()
	w.Processor = len(a.share.waiting)
	a.turns.mu.Unlock()
	a.longs.mu.Lock()
	defer a.longs.mu.Unlock()
	for _, l := range a.longs.waiting {
		if l.account == a {
			w.Long++
		}
	}
	return w
}

// busy returns the call of the session's operations that has lasted longest; nil for none.
func (s *Session) busy() (longest *Busy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o := range s.operations {
		if c := o.call.Load(); c != nil {
			longest = older(longest, &Busy{s.appSlot.slot.Name(), o.use.verb, o.mech.Type, c.since()})
		}
	}
	return longest
}

// older returns which of two began before the other; either may be nil.
func older(a, b *Busy) *Busy {
	if a == nil || b != nil && b.Since.Before(a.Since) {
		return b
	}
	return a
}

// makings are the keys of an application that a token is making, which are no operations.
type makings struct {
	mu   sync.Mutex // guards list; nothing is locked under it
	list map[*Busy]struct{}
}

// longest returns a copy of the one that has lasted longest; nil for none.
func (m *makings) longest() (longest *Busy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := range m.list {
		longest = older(longest, b)
	}
	if longest != nil {
		longest = new(*longest)
	}
	return longest
}

// makes has the token make a key by call, and counts that.
func (s *Session) makes(m p11.MechanismType, call func() error) error {
	all := &s.appSlot.app.makings
	b := &Busy{s.appSlot.slot.Name(), "generate", m, time.Now()}
	all.mu.Lock()
	if all.list == nil {
		all.list = map[*Busy]struct{}{}
	}
	all.list[b] = struct{}{}
	all.mu.Unlock()
	defer func() { // also after a panic in the token
		all.mu.Lock()
		defer all.mu.Unlock()
		delete(all.list, b)
	}()
	err := call()
	s.appSlot.called(m, b.Since, err)
	return err
}
