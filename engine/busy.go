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

// A LockWait is a wait for a lock that processes share: another process has it, or another
// application here.
type LockWait struct {
	Path  string // of the lock file
	Since time.Time
}

// WaitsForLock notes that the application waits for a lock, until ended is called.
func (a *Application) WaitsForLock(path string) (ended func()) {
	return a.lockWaits.add(&LockWait{path, time.Now()})
}

// longestLockWait returns the wait for a lock that has lasted longest; nil for none.
func (a *Application) longestLockWait() (longest *LockWait) {
	for _, w := range a.lockWaits.all() {
		if longest == nil || w.Since.Before(longest.Since) {
			longest = &w
		}
	}
	return longest
}

// ongoing is what an application is in the middle of. What is in it does not change.
type ongoing[T any] struct {
	mu   sync.Mutex // guards list; nothing is locked under it
	list map[*T]struct{}
}

// add has t be in it until end is called.
func (p *ongoing[T]) add(t *T) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil {
		p.list = map[*T]struct{}{}
	}
	p.list[t] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.list, t)
	}
}

// all returns copies.
func (p *ongoing[T]) all() (list []T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.list {
		list = append(list, *t)
	}
	return list
}

// makes has the token make a key by call, and counts that.
func (s *Session) makes(m p11.MechanismType, call func() error) error {
	b := &Busy{s.appSlot.slot.Name(), "generate", m, time.Now()}
	defer s.appSlot.app.makings.add(b)() // also after a panic in the token
	err := call()
	s.appSlot.called(m, b.Since, err)
	return err
}
