package fleet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// errChanged is returned when somebody changed a PIN while one was being tried or made.
var errChanged = errors.New("the PIN was changed meanwhile")

// PINStamp is tokens.PINStamper.
func (s *Store) PINStamp(user p11.UserType) string {
	return string(s.cfg.Format.PIN(s.newest().Data, user))
}

// validLocked says whether the logins of a role are valid.
func (s *Store) validLocked(u p11.UserType) error {
	role, err := tokens.RoleOf(u)
	if err == nil && (s.closed || s.record.Data.Flags()&role.Locked != 0) {
		err = p11.CKR_USER_NOT_LOGGED_IN
	}
	return err
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
	return s.join(r, t)
}

// join makes a login with the master key that a PIN has opened, unless somebody has
// initialised the token meanwhile, and shows the private objects at the user's first.
func (s *Store) join(r tokens.Role, t *tried) (tokens.Login, error) {
	// Who logs in while another one does sees the private objects, too, once he is told so.
	s.showing.Lock()
	defer s.showing.Unlock()
	s.mu.Lock()
	if err := s.usableLocked(); err != nil || s.record.ID != t.id {
		s.mu.Unlock()
		_ = t.key.Close()
		if err == nil {
			err = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended as it began: the token was initialised")
		}
		return nil, err
	}
	before := s.logins.KeyLocked(r.User)
	l := s.logins.JoinLocked(r.User, t.key)
	first := s.logins.KeyLocked(r.User) != before
	s.mu.Unlock()
	if first && r.User == p11.CKU_USER {
		if err := s.showPrivate(); err != nil {
			_ = l.Close()
			return nil, err
		}
	}
	return l, nil
}

// A tried is a right PIN.
type tried struct {
	id   [16]byte      // of the token that it is right for
	key  *secret.Bytes // the master key, which the caller closes
	kept format.Kept   // what it was tried on
}

// tryPIN tries a role's PIN. It is counted over all machines before anybody looks at it, and
// judged after that by another change.
func (s *Store) tryPIN(ctx context.Context, r tokens.Role, pin *secret.Bytes) (*tried, error) {
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	case <-ctx.Done():
		return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", ctx.Err())
	}
	if err := s.Sync(ctx); err != nil {
		return nil, err // nobody is told that there is no PIN who has seen it set elsewhere
	}
	for {
		by := newNumber()
		t, err := s.countTrial(ctx, r, by)
		if err != nil {
			return nil, err
		}
		right, err := s.lookAt(ctx, r, pin, t)
		if err == nil {
			err = s.judge(context.WithoutCancel(ctx), r, by, t, right)
		} else {
			s.takeBack(context.WithoutCancel(ctx), by)
		}
		if err == nil {
			return t, nil
		}
		_ = t.key.Close()
		if !errors.Is(err, errChanged) {
			return nil, err
		}
	}
}

// lookAt opens the master key with a PIN, and reports whether the PIN is right.
func (s *Store) lookAt(ctx context.Context, r tokens.Role, pin *secret.Bytes, t *tried) (bool, error) {
	_, longest := s.cfg.Format.PINLimits(s.newest().Data)
	if pin.Len() == 0 || pin.Len() > longest {
		return false, nil
	}
	o, err := s.cfg.Format.Open(ctx, r.User, pin, t.kept)
	t.key = o.Key
	if err == nil && o.Right && o.Key == nil {
		err = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "the PIN is right, but the master key under it is damaged"), "it must come back from a backup; the SO mends the user's by setting that PIN anew")
	}
	return o.Right, err
}

// countTrial writes down that a PIN is tried, as soon as one may be.
func (s *Store) countTrial(ctx context.Context, r tokens.Role, by [8]byte) (t *tried, err error) {
	for {
		var full <-chan struct{}
		t, full, err = s.countTrialNow(ctx, r, by)
		if full == nil {
			return t, err
		}
		// All tries that are left are under way elsewhere.
		select {
		case <-full:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", ctx.Err())
		}
	}
}

// countTrialNow is countTrial, or returns what is closed when something has changed.
func (s *Store) countTrialNow(ctx context.Context, r tokens.Role, by [8]byte) (t *tried, full <-chan struct{}, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	var no error // with which others' trials end all the same
	_, err = s.change(ctx, func(e *edit) error {
		full, no = nil, nil
		f := s.cfg.Format
		ended := s.endOldTrials(e.record)
		if err := r.MayTry(e.record.Data.Flags(), e.record.hasPIN(f, r.User)); err != nil {
			if ended {
				no, err = err, nil
			}
			return err
		}
		if wrongs(r, e.record.Data.Flags())+e.record.underWay(r.User) >= maxWrong {
			s.mu.Lock()
			full = s.moved
			s.mu.Unlock()
			return errTrialsFull
		}
		t = &tried{id: e.record.ID, kept: e.record.kept(f, r.User)}
		e.record.Trials = append(e.record.Trials, trial{r.User, by})
		return nil
	})
	if errors.Is(err, errTrialsFull) {
		return nil, full, nil
	}
	return t, nil, cmp.Or(err, no)
}

var errTrialsFull = errors.New("all tries that are left are under way")

// endOldTrials counts as wrong what was being tried for too long, and reports whether there
// was any.
func (s *Store) endOldTrials(r *record) (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for by, since := range s.trials {
		if time.Since(since) < s.cfg.times.trial {
			continue
		}
		for _, t := range r.Trials {
			if role, err := tokens.RoleOf(t.Role); t.By == by && err == nil {
				s.cfg.Log.Warn("a PIN that another machine was trying counts as wrong", "prefix", s.cfg.Prefix, "role", role.Title)
				flags, _ := role.Wrong(r.Data.Flags())
				r.Data.SetFlags(flags)
			}
		}
		ended = r.endTrial(by) || ended
	}
	return ended
}

// judge draws the consequences of a PIN that was tried, which it returns an error for if it
// was wrong.
func (s *Store) judge(ctx context.Context, r tokens.Role, by [8]byte, t *tried, right bool) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	var verdict error
	locks := false
	rev, err := s.change(ctx, func(e *edit) error {
		f, flags := s.cfg.Format, e.record.Data.Flags()
		verdict, locks = nil, false
		counted := e.record.endTrial(by)
		kept := e.record.kept(f, r.User)
		switch {
		case kept.Record != t.kept.Record || !bytes.Equal(kept.File, t.kept.File) || e.record.ID != t.id:
			verdict = errChanged
		case !counted && flags&r.Locked != 0:
			verdict = r.MayTry(flags, true)
		case right:
			e.record.Data.SetFlags(flags &^ r.Counts())
		default:
			next, wrong := r.Wrong(flags)
			verdict = wrong
			if counted {
				e.record.Data.SetFlags(next)
				locks = next&r.Locked != 0
			}
		}
		return nil
	})
	end()
	if err != nil {
		return err
	}
	if locks {
		if err := s.settle(ctx, rev); err != nil {
			s.cfg.Log.Warn("a PIN is locked, and not all machines have said that they know", "prefix", s.cfg.Prefix, "err", err)
		}
	}
	return verdict
}

// takeBack takes back the count of a PIN that could not be looked at.
func (s *Store) takeBack(ctx context.Context, by [8]byte) {
	end, err := s.begin(ctx)
	if err == nil {
		defer end()
		_, err = s.change(ctx, func(e *edit) error {
			e.record.endTrial(by)
			return nil
		})
	}
	if err != nil {
		s.cfg.Log.Warn("a PIN that was not looked at will count as wrong", "prefix", s.cfg.Prefix, "err", err)
	}
}

// InitPIN is tokens.Admin (PKCS#11 v3.1 §5.5.8, C_InitPIN).
func (s *Store) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	user, err := tokens.RoleOf(p11.CKU_USER)
	if err != nil {
		return err
	}
	for {
		now, _, err := s.current(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		var master *secret.Bytes
		if err = s.logins.SOLocked(so); err == nil {
			master, err = s.logins.KeyLocked(p11.CKU_SO).Clone()
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		t := &tried{id: now.ID, key: master, kept: now.kept(s.cfg.Format, p11.CKU_USER)}
		err = s.replacePIN(ctx, user, t, nil, pin, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.logins.SOLocked(so)
		})
		_ = master.Close()
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

// SetPIN is tokens.Admin (PKCS#11 v3.1 §5.5.9, C_SetPIN). Wrong old PINs count as at a login.
func (s *Store) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	r, err := tokens.RoleOf(user)
	if err != nil {
		return err
	}
	for {
		t, err := s.tryPIN(ctx, r, old)
		if err != nil {
			return err
		}
		err = s.replacePIN(ctx, r, t, old, pin, func() error { return nil })
		_ = t.key.Close()
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

// replacePIN puts the master key under a role's new PIN, if it may be one after old, which is
// nil if the SO sets the user's, the record still holds of the PIN before what t was tried on,
// and may agrees.
func (s *Store) replacePIN(ctx context.Context, r tokens.Role, t *tried, old, pin *secret.Bytes, may func() error) error {
	f := s.cfg.Format
	shortest, longest := f.PINLimits(s.newest().Data)
	if err := r.CheckNewPIN(pin, old, shortest, longest); err != nil {
		return err
	}
	made, err := f.Make(ctx, r.User, pin, t.key, t.kept)
	if err != nil {
		return err
	}
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	rev, err := s.change(ctx, func(e *edit) error {
		now := e.record.kept(f, r.User)
		if now.Record != t.kept.Record || !bytes.Equal(now.File, t.kept.File) || e.record.ID != t.id {
			return errChanged
		}
		if err := may(); err != nil {
			return err
		}
		flags := e.record.Data.Flags()
		if old != nil {
			if err := r.MayTry(flags, true); err != nil {
				return err
			}
		}
		e.record.setPIN(f, r, made)
		return nil
	})
	end()
	if err != nil {
		return err
	}
	return s.settle(ctx, rev)
}

// setPIN replaces a role's PIN by one that whoever has the role has set.
func (r *record) setPIN(f format.Format, role tokens.Role, made format.Kept) {
	r.Data = f.WithPIN(r.Data, role.User, made.Record)
	r.Keys[side(role.User)] = made.File
	flags := r.Data.Flags() &^ (role.Counts() | role.ToBeChanged)
	if role.User == p11.CKU_USER {
		flags |= p11.CKF_USER_PIN_INITIALIZED
	}
	r.Data.SetFlags(flags)
}

// InitToken is tokens.Admin (PKCS#11 v3.1 §5.5.7, C_InitToken): one change, with which the
// token gets another ID and another master key. Wrong PINs count as at a login.
func (s *Store) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	so, err := tokens.RoleOf(p11.CKU_SO)
	if err != nil {
		return err
	}
	for {
		t, err := s.tryPIN(ctx, so, pin)
		if err != nil {
			return err
		}
		_ = t.key.Close()
		if err := s.initToken(ctx, so, pin, t, label); !errors.Is(err, errChanged) {
			return err
		}
	}
}

func (s *Store) initToken(ctx context.Context, so tokens.Role, pin *secret.Bytes, t *tried, label string) error {
	if err := tokens.CheckLabel(label); err != nil {
		return err
	}
	f := s.cfg.Format
	master, err := f.NewMasterKey()
	if err != nil {
		return err
	}
	defer master.Close()
	made, err := f.Make(ctx, p11.CKU_SO, pin, master, t.kept)
	if err != nil {
		return err
	}
	id := newID()
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	rev, err := s.change(ctx, func(e *edit) error {
		r := e.record
		now := r.kept(f, p11.CKU_SO)
		if now.Record != t.kept.Record || !bytes.Equal(now.File, t.kept.File) || r.ID != t.id {
			return errChanged
		}
		e.removeAll()
		r.ID, r.Trials = id, nil
		r.Data, _ = f.Initialized(r.Data)
		if err := r.Data.SetLabel(label); err != nil {
			return err
		}
		r.Data = f.WithPIN(r.Data, so.User, made.Record)
		r.Keys = [2][]byte{made.File, nil}
		return nil
	})
	end()
	if err != nil {
		return err
	}
	return s.settle(ctx, rev)
}
