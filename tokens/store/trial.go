package store

import (
	"context"
	"fmt"
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
	if err := s.saveCount(d); err != nil {
		// A PIN that is counted nowhere but in memory is tried again after each restart.
		return f, nil, k, p11.Advise(fmt.Errorf("no PIN is tried, since it cannot be counted in %s: %w", dataFile, err),
			"see to it that the token's directory can be written, and that "+dataFile+" is a regular file in it")
	}
	return f, t, k, nil
}

// saveCount is saveData for the count of a PIN. Where the directory takes no new file, as on
// a full disk, it is written into the file that is there, which is a small part of one page
// and becomes no larger.
func (s *Store) saveCount(d format.TokenData) error {
	err := s.saveData(d)
	if err == nil {
		return nil
	}
	b := s.format.PrintFile(d)
	st, serr := s.top.stamp(dataFile)
	if serr != nil || !st.alone || st.size != int64(len(b)) || s.top.overwrite(dataFile, piece{b, 0}) != nil {
		return err
	}
	if st, serr = s.top.stamp(dataFile); serr != nil {
		return serr
	}
	s.setData(d, st)
	return nil
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
		if err := s.saveCount(s.confirmed(d)); err != nil {
			s.cfg.Log.Warn("a PIN that was not looked at stays counted", "dir", s.cfg.Dir, "err", err)
		}
	}
}
