package store

import (
	"context"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// judgeTimeout bounds how long a PIN that was looked at waits for the token's lock.
// If another process has it for longer, the PIN stays counted as a wrong one.
const judgeTimeout = 10 * time.Second

// A trial is a PIN that is being looked at. It is counted as a wrong one, durably, before
// anybody looks: a process that is killed in between has used up a try.
type trial struct {
	role          tokens.Role
	before, after p11.Flags // the role's count without and with it
	wrong         error     // what is said if it is wrong
	longest       int       // the longest PIN
	saved         bool      // the count is in NVTOK.DAT, and not in memory only
}

func (s *Store) setTrial(t *trial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trial = t
}

// countTry counts a PIN that is going to be tried, unless that has been done and still
// stands, and returns what it is to be tried on.
func (s *Store) countTry(ctx context.Context, r tokens.Role) (f format.Format, t *trial, k format.Kept, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return f, nil, k, err
	}
	defer end()
	f, d := s.snapshot()
	before := s.confirmed(d)
	if err := r.MayTry(before.Flags(), hasPIN(f, d, r)); err != nil {
		return f, nil, k, err
	}
	if k, err = s.kept(r); err != nil || before != d {
		return f, s.trial, k, err
	}
	flags, wrong := r.Wrong(d.Flags())
	t = &trial{role: r, before: d.Flags() & r.Counts(), after: flags & r.Counts(), wrong: wrong}
	_, t.longest = f.PINLimits(d)
	d.SetFlags(flags)
	s.setTrial(t)
	if err := s.saveData(d); err != nil {
		// Not more PINs are tried on a full disk than on another.
		s.keepInMemory(d)
		return f, t, k, nil
	}
	t.saved = true
	return f, t, k, nil
}

// keepInMemory makes d, which cannot be written, or need not, the token's data.
// The token's lock is held.
func (s *Store) keepInMemory(d format.TokenData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = s.shareLocked(d)
}

// confirmed returns d without what is counted of a PIN that is being looked at.
func (s *Store) confirmed(d format.TokenData) format.TokenData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmedLocked(d)
}

func (s *Store) confirmedLocked(d format.TokenData) format.TokenData {
	if t := s.trial; t != nil && d.Flags()&t.role.Counts() == t.after {
		d.SetFlags(d.Flags()&^t.after | t.before)
	}
	return d
}

// confirmTrial has the count of a wrong PIN stand, and returns the error for it. The
// token's lock is held.
func (s *Store) confirmTrial(t *trial) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trial = nil
	if s.data.Flags()&t.role.Locked != 0 {
		s.logins.EndLocked(t.role.User)
	}
	if !t.saved {
		s.cfg.Log.Warn("a wrong PIN is counted in memory only", "dir", s.cfg.Dir, "role", t.role.Title)
	}
	return t.wrong
}

// takeBack takes back the count of a PIN that could not be looked at.
func (s *Store) takeBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), judgeTimeout)
	defer cancel()
	end, err := s.begin(ctx)
	if err != nil {
		return
	}
	defer end()
	if _, d := s.snapshot(); s.confirmed(d) != d {
		if err := s.saveData(s.confirmed(d)); err != nil {
			s.cfg.Log.Warn("a PIN that was not looked at stays counted", "dir", s.cfg.Dir, "err", err)
		}
	}
}
