package engine

import (
	"context"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// A WrongPIN is a PIN that somebody gave and that was wrong.
type WrongPIN struct {
	At    time.Time
	Owner Owner // of the application that it came through
}

// pinTries slows down who gives wrong PINs of a slot's token: after one, the next try
// of the same uid for the same role waits, through whatever door it comes, and twice
// as long after each more. Others wait for nobody. It remembers who gave wrong ones.
type pinTries struct {
	delay time.Duration // after the first wrong PIN; 0: nobody waits

	mu    sync.Mutex                  // guards all below; nothing is locked under it
	users map[pinUser]*userTries      // kept for good: uids are few
	wrong map[p11.UserType][]WrongPIN // since the role's last right PIN
}

// pinUser is a uid that tries the PIN of a role.
type pinUser struct {
	uid  uint32
	role p11.UserType
}

// userTries are the tries of a pinUser.
type userTries struct {
	turn chan struct{} // full while one of its PINs is tried, or is the next

	// Guarded by pinTries.mu.
	waiting int
	wrong   int       // in a row
	next    time.Time // when one may be tried again
}

const (
	maxPINDoublings = 3  // the longest wait is eight times the first
	maxPINsWaiting  = 16 // of a pinUser
	maxWrongPINs    = 16 // that are remembered of a role
)

func newPINTries(delay time.Duration) *pinTries {
	return &pinTries{delay: delay, users: make(map[pinUser]*userTries), wrong: make(map[p11.UserType][]WrongPIN)}
}

// tryPIN is where each PIN comes to the token: try gives it one of the role.
func (s *Slot) tryPIN(ctx context.Context, owner Owner, role p11.UserType, try func() error) error {
	if err := interrupted(ctx); err != nil {
		return err
	}
	p := s.tries
	u, err := p.enter(owner.UID, role)
	if err != nil {
		return err
	}
	defer p.leave(u)
	if err := s.waitForPIN(ctx, u, role); err != nil {
		return err
	}
	defer func() { <-u.turn }()
	if err = try(); err == nil {
		p.forget(role, owner.UID)
		return nil
	}
	if p11.RVOf(err) == p11.CKR_PIN_INCORRECT {
		p.remember(u, role, WrongPIN{At: s.engine.now(), Owner: owner})
	}
	s.engine.lookSoon()
	s.engine.log.Info("PIN refused", "token", s.Name(), "user", role, "uid", owner.UID, "pid", owner.PID, "command", owner.Command, "door", owner.Door, "err", err)
	return err
}

func (p *pinTries) enter(uid uint32, role p11.UserType) (*userTries, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := pinUser{uid, role}
	u := p.users[key]
	if u == nil {
		u = &userTries{turn: make(chan struct{}, 1)}
		p.users[key] = u
	}
	if u.waiting >= maxPINsWaiting {
		return nil, &LimitError{UID: uid, What: "waiting PINs", Max: maxPINsWaiting, rv: p11.CKR_DEVICE_MEMORY}
	}
	u.waiting++
	return u, nil
}

func (p *pinTries) leave(u *userTries) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.waiting--
}

// waitForPIN returns when it is the caller's turn, which ends when turn is read. A
// locked PIN is not tried, and so nobody waits for that.
func (s *Slot) waitForPIN(ctx context.Context, u *userTries, role p11.UserType) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return interrupted(ctx)
	}
	s.tries.mu.Lock()
	left := time.Until(u.next)
	s.tries.mu.Unlock()
	if left <= 0 || s.pinLocked(ctx, role) {
		return nil
	}
	wait := time.NewTimer(left)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		<-u.turn
		return interrupted(ctx)
	}
}

func (s *Slot) pinLocked(ctx context.Context, user p11.UserType) bool {
	role, err := tokens.RoleOf(user)
	if err != nil {
		return false
	}
	info, err := s.token.Info(ctx)
	return err == nil && info.Flags&role.Locked != 0
}

// remember notes a wrong PIN of u, whose turn it is.
func (p *pinTries) remember(u *userTries, role p11.UserType, w WrongPIN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.next = time.Now().Add(p.delay << min(u.wrong, maxPINDoublings))
	u.wrong++
	list := append(p.wrong[role], w)
	p.wrong[role] = list[max(0, len(list)-maxWrongPINs):]
}

// forget notes that a right PIN was given by one uid, or, where there is none, that
// the role has a new PIN.
func (p *pinTries) forget(role p11.UserType, by ...uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wrong, role)
	for key, u := range p.users {
		if key.role == role && (by == nil || key.uid == by[0]) {
			u.wrong, u.next = 0, time.Time{}
		}
	}
}

// WrongPINs returns the last wrong PINs of a role since a right one was given here,
// the oldest first.
func (s *Slot) WrongPINs(role p11.UserType) []WrongPIN {
	s.tries.mu.Lock()
	defer s.tries.mu.Unlock()
	return append([]WrongPIN(nil), s.tries.wrong[role]...)
}
