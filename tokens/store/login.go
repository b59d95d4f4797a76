package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/shm"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

var _ tokens.PINStamper = (*Store)(nil)

// logoutLocked drops the private objects when the user's last login ends. The
// logins call it.
func (s *Store) logoutLocked(u p11.UserType) {
	if s.cfg.Ended != nil {
		s.cfg.Ended(u)
	}
	if u != p11.CKU_USER {
		return
	}
	for _, f := range s.files {
		if f.private {
			f.handle = 0
		}
	}
	for _, o := range s.Index.RemoveAll(false) {
		o.Drop()
	}
}

// objectFiles returns what reads and writes object files, private ones only while
// the user is logged in.
func (s *Store) objectFiles() (format.Objects, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.format.Objects(s.logins.KeyLocked(p11.CKU_USER))
}

// Login is tokens.Admin (PKCS#11 v3.1 §5.6.8, C_Login).
func (s *Store) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	r, err := tokens.RoleOf(user)
	if err != nil {
		return nil, err
	}
	t, err := s.tryPIN(ctx, r, pin)
	if err != nil {
		return nil, err
	}
	defer t.end()
	key, err := s.masterKey(t)
	if err != nil {
		return nil, err
	}
	return s.join(r, key)
}

// A tried is a right PIN, and a section under the token's lock in which it is so.
type tried struct {
	role tokens.Role
	key  *secret.Bytes // nil: the key file is missing or damaged
	kept format.Kept   // what the PIN was tried on
	end  func()        // ends the section
}

// masterKey returns the opened master key, which the caller closes.
func (s *Store) masterKey(t *tried) (*secret.Bytes, error) {
	if t.key != nil {
		return t.key, nil
	}
	repair := "it must come back from a backup"
	if t.role.User == p11.CKU_USER {
		repair = "the SO mends it by setting the user's PIN anew"
	}
	return nil, p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the PIN is right, but %s is missing or damaged", s.keyFileOf(t.role)),
		"if a change of the PIN was cut off, the new PIN opens the token; else "+repair)
}

// tryPIN tries a role's PIN, which it lets the format do without the token's lock,
// as it may take long. It counts failures and successes in the token's flags, and
// the third failure in a row locks the PIN. One PIN is tried at a time, so that not
// more are tried than the flags allow.
func (s *Store) tryPIN(ctx context.Context, r tokens.Role, pin *secret.Bytes) (*tried, error) {
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	case <-ctx.Done():
		return nil, ioError("try a PIN of", s.cfg.Dir, ctx.Err())
	}
	defer s.setTrial(nil)
	for {
		f, t, kept, err := s.countTry(ctx, r)
		if err != nil {
			return nil, err
		}
		var o format.Opened
		if pin.Len() > 0 && pin.Len() <= t.longest {
			if o, err = f.Open(ctx, r.User, pin, kept); err != nil {
				_ = o.Key.Close()
				s.takeBack(ctx)
				return nil, err
			}
		}
		// What was counted is judged, also for who no longer waits for it.
		judging, cancel := context.WithTimeout(context.WithoutCancel(ctx), judgeTimeout)
		end, err := s.beginWith(judging, r, kept)
		cancel()
		if err == nil {
			if err = s.judge(t, kept, o); err == nil {
				return &tried{role: r, key: o.Key, kept: kept, end: end}, nil
			}
			end()
		}
		_ = o.Key.Close()
		if !errors.Is(err, errChanged) {
			return nil, err
		}
	}
}

func hasPIN(f format.Format, d format.TokenData, r tokens.Role) bool {
	return r.User == p11.CKU_SO || f.UserPINSet(d)
}

// readKept reads what the directory holds of a role's PIN, in a section of its own.
func (s *Store) readKept(ctx context.Context, r tokens.Role) (f format.Format, d format.TokenData, k format.Kept, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return f, d, k, err
	}
	defer end()
	f, d = s.snapshot()
	k, err = s.kept(r)
	return f, d, k, err
}

// kept returns what the directory holds of a role's PIN. The token's lock is held.
func (s *Store) kept(r tokens.Role) (format.Kept, error) {
	f, d := s.snapshot()
	file, err := s.readKeyFile(r.User)
	return format.Kept{Record: f.PIN(d, r.User), File: file}, err
}

// errChanged is returned when somebody changed a PIN while one was being made or tried.
var errChanged = errors.New("the PIN was changed meanwhile")

// beginWith is begin if the directory still holds the same of a role's PIN as before;
// else it returns errChanged.
func (s *Store) beginWith(ctx context.Context, r tokens.Role, before format.Kept) (end func(), err error) {
	if end, err = s.begin(ctx); err != nil {
		return nil, err
	}
	now, err := s.kept(r)
	if err == nil && (now.Record != before.Record || !bytes.Equal(now.File, before.File)) {
		err = errChanged
	}
	if err != nil {
		end()
	}
	return end, err
}

// judge draws the consequences of trying a PIN, which it returns an error for if it
// was wrong: it takes back what was counted for a right one, and puts right what is
// not in order. The token's lock is held.
func (s *Store) judge(t *trial, kept format.Kept, o format.Opened) error {
	f, was := s.snapshot()
	r := t.role
	now := s.confirmed(was)
	if err := r.MayTry(now.Flags(), hasPIN(f, was, r)); err != nil {
		return err
	}
	if !o.Right {
		return s.confirmTrial(t)
	}
	s.noteKey(r, o.Key != nil)
	if o.Why != "" {
		s.cfg.Log.Warn(o.Why, "dir", s.cfg.Dir, "role", r.Title, "mended", o.Mended != nil)
	}
	d := was
	if m := o.Mended; m != nil {
		if !bytes.Equal(m.File, kept.File) {
			if err := s.saveKey(r.User, m.File); err != nil {
				s.cfg.Log.Warn("a key file cannot be put right", "dir", s.cfg.Dir, "file", s.keyFileOf(r), "err", err)
			}
		}
		if m.Record != kept.Record {
			d = withNewPIN(f, d, r, m.Record)
		}
	}
	d.SetFlags(d.Flags() &^ r.Counts())
	if d != was {
		// The right PIN opens the token also where nothing can be written: a count that
		// stays too high there harms nobody but who gives wrong PINs.
		err := s.saveCount(d)
		if err == nil {
			return nil
		}
		s.cfg.Log.Warn("a right PIN cannot be noted", "dir", s.cfg.Dir, "role", r.Title, "err", err)
	}
	s.keepInMemory(d)
	return nil
}

// withNewPIN returns d with another PIN for a role, set by whoever has the role.
func withNewPIN(f format.Format, d format.TokenData, r tokens.Role, record format.PINRecord) format.TokenData {
	d = f.WithPIN(d, r.User, record)
	flags := d.Flags() &^ r.ToBeChanged
	if r.User == p11.CKU_USER {
		flags |= p11.CKF_USER_PIN_INITIALIZED
	}
	d.SetFlags(flags)
	return d
}

// join makes a login of a role with its opened master key, which it takes over,
// and reads the private objects at the user's first. The token's lock is held.
func (s *Store) join(r tokens.Role, key *secret.Bytes) (tokens.Login, error) {
	s.mu.Lock()
	before := s.logins.KeyLocked(r.User)
	l := s.logins.JoinLocked(r.User, key)
	first := s.logins.KeyLocked(r.User) != before
	var private []format.Name
	if first && r.User == p11.CKU_USER {
		for n, f := range s.files {
			if f.handle == 0 && (f.private || s.bad[n] != nil) {
				private = append(private, n)
			}
		}
	}
	s.mu.Unlock()
	inOrder(s.format, private) // as they were written, they are near to one another
	// The login stands; what cannot be read is skipped and reported.
	err := s.load(context.Background(), private)
	if err == nil && s.seg != nil && r.User == p11.CKU_USER && (first || !s.seg.Loaded(shm.Private)) {
		// The first process that can read the private objects lists them for
		// all, and not in two steps: what is made in between would stand twice.
		var x format.Index
		if x, err = s.readIndex(); err == nil {
			s.mend(x.Names, true)
		}
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// PINStamp is tokens.PINStamper: what the token's data holds of the PIN, and of a token whose
// data holds nothing of it, which of the files that it opens is there.
func (s *Store) PINStamp(user p11.UserType) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.cfg.Keys; k != nil && !s.closed {
		st, err := s.top.stamp(filepath.Join(k.Dir, s.keyFileFor(user)))
		return fmt.Sprint(st, err)
	}
	return string(s.format.PIN(s.data, user))
}
