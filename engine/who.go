package engine

import (
	"time"

	"p11fs/p11"
)

// A Presence is an application, as whoever runs the daemon sees it.
type Presence struct {
	Number     uint64 // its own for good
	Owner      Owner
	Since      time.Time
	Sessions   int
	Operations int // in progress
	Logins     []LoginOf
	Calls      uint64        // of tokens, as Engine.Calls counts them
	Errors     uint64        // of those
	Took       time.Duration // all of them together
	Busy       *Busy         // of its calls in progress the longest; nil for none
	Lock       *LockWait     // of its waits for a lock the longest; nil for none
	Waits      Waits         // of its uid
}

// LoginOf is a login of an application to a token.
type LoginOf struct {
	Token string
	User  p11.UserType
	Since time.Time
}

// Who returns the applications that have sessions, or wait for a lock, in the order in which they were made.
func (e *Engine) Who() []Presence {
	var list []Presence
	for _, a := range e.applications() {
		sessions, lock := a.Sessions(nil), a.longestLockWait()
		if len(sessions) == 0 && lock == nil { // a program may wait before it has one
			continue
		}
		p := Presence{
			Number: a.number, Owner: a.owner, Since: a.since, Sessions: len(sessions),
			Calls: a.calls.count.Load(), Errors: a.calls.errors.Load(), Took: time.Duration(a.calls.total.Load()),
			Lock: lock, Waits: a.account.waits(),
		}
		for _, b := range a.makings.all() {
			p.Busy = older(p.Busy, &b)
		}
		for _, s := range sessions {
			s.mu.Lock()
			p.Operations += len(s.operations)
			s.mu.Unlock()
			p.Busy = older(p.Busy, s.busy())
		}
		for _, slot := range e.list() {
			if l := a.login(slot); l != nil {
				p.Logins = append(p.Logins, LoginOf{slot.Name(), l.user, l.since})
			}
		}
		list = append(list, p)
	}
	return list
}

// Kick closes all sessions of an application, and so ends its logins and operations. The
// application may open others. It says whether there is such an application; mine, if it is
// not nil, says whether it may be.
func (e *Engine) Kick(number uint64, mine func(Owner) bool) bool {
	for _, a := range e.applications() {
		if a.number != number || len(a.Sessions(nil)) == 0 {
			continue
		}
		if mine != nil && !mine(a.owner) {
			return false
		}
		_ = a.CloseAllSessions(nil) // which fails never
		return true
	}
	return false
}
