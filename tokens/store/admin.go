package store

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// InitToken is tokens.Admin (PKCS#11 v3.1 §5.5.7, C_InitToken). Wrong PINs count
// as at a login.
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
		_ = t.key.Close() // a token without its master key can be initialised
		t.end()
		if err := s.initToken(ctx, so, pin, t.kept, label); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// initToken initialises the token for an SO whose PIN is right while the directory
// holds kept.
//
// Nothing here can be one step. The order leaves a token that works wherever it
// is cut off: first without objects (as long as the index lists them the lists
// in the segment are mended from it), then without a user and under its new
// label, then with a new master key.
func (s *Store) initToken(ctx context.Context, so tokens.Role, pin *secret.Bytes, kept format.Kept, label string) error {
	f, d := s.snapshot()
	if err := d.SetLabel(label); err != nil {
		return err
	}
	var made format.Kept // with a new master key
	_, newKey := f.Initialized(d)
	if newKey {
		master, err := f.NewMasterKey()
		if err != nil {
			return err
		}
		defer master.Close()
		if made, err = f.Make(ctx, p11.CKU_SO, pin, master, kept); err != nil {
			return err
		}
	}
	end, err := s.beginWith(ctx, so, kept)
	if err != nil {
		return err
	}
	defer end()
	_, d = s.snapshot()
	// The record stays, for by that other processes tell this from a change of the PIN.
	record := f.PIN(d, p11.CKU_SO)
	if d, _ = f.Initialized(d); newKey {
		d = f.WithPIN(d, p11.CKU_SO, record)
	}
	if err := d.SetLabel(label); err != nil {
		return err
	}
	s.keepNames()
	// What can fail for want of room fails before anything is lost.
	data, file, err := s.prepare(d, p11.CKU_SO, made.File)
	defer data.drop()
	defer file.drop()
	if err != nil {
		return err
	}
	if err := s.removeAll(); err != nil {
		return err
	}
	st, err := data.commit()
	if err != nil {
		return err
	}
	s.setData(d, st)
	if !newKey {
		return nil
	}
	if err := s.commitKey(file); err != nil {
		return err
	}
	if err := s.top.remove(userKeyFile); err != nil {
		return err
	}
	s.spoil(userKeyFile, "")
	return s.top.sync()
}

// removeAll removes all objects, and ends all logins. The lines are marked at
// first: if the process is killed, the files are removed later.
func (s *Store) removeAll() error {
	putBack := s.emptyLists()
	if err := s.rewriteIndex(func(format.Name, bool) format.LineEdit { return format.MarkLine }); err != nil {
		putBack()
		return err
	}
	s.mu.Lock()
	s.logins.EndAllLocked()
	for n := range s.files {
		s.forgetLocked(n)
	}
	s.names = reservation{}
	s.destroyed.clear()
	s.unlisted = nil
	s.mu.Unlock()
	return s.removeObjects()
}

// removeObjects removes every file that has the name of an object or stands in the
// index, so that names can start again, stock's scratch file, and what is in the
// index.
func (s *Store) removeObjects() error {
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	err = s.objs.each(func(file string) error {
		if _, ok := format.ParseName(file); ok || file == "IDX.TMP" || slices.Contains(x.Unknown, file) {
			// A directory is no object, whatever its name is.
			if err := s.objs.remove(file); err != nil && !errors.Is(err, unix.EISDIR) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.objs.sync(); err != nil {
		return err
	}
	return s.writeIndex(nil, 0)
}

// InitPIN is tokens.Admin (PKCS#11 v3.1 §5.6.5, C_InitPIN).
func (s *Store) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	user, err := tokens.RoleOf(p11.CKU_USER)
	if err != nil {
		return err
	}
	for {
		_, _, kept, err := s.readKept(ctx, user)
		if err != nil {
			return err
		}
		s.mu.Lock()
		err = s.logins.SOLocked(so)
		var master *secret.Bytes
		if err == nil {
			master, err = s.logins.KeyLocked(p11.CKU_SO).Clone()
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		err = s.replacePIN(ctx, user, master, nil, pin, kept, func(d *format.TokenData) error {
			d.SetFlags(d.Flags() &^ user.Counts())
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

// SetPIN is tokens.Admin (PKCS#11 v3.1 §5.6.6, C_SetPIN). Wrong old PINs count as
// at a login. The master key is opened with the old PIN, whoever is logged in.
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
		t.end()
		master, err := s.masterKey(t)
		if err != nil {
			return err
		}
		err = s.replacePIN(ctx, r, master, old, pin, t.kept, func(d *format.TokenData) error {
			now := s.confirmed(*d) // another's PIN may be looked at
			return r.MayTry(now.Flags(), true)
		})
		_ = master.Close()
		if !errors.Is(err, errChanged) {
			return err
		}
	}
}

// replacePIN puts the master key under a role's new PIN, if it may be one after old,
// which is nil if the SO sets the user's, the directory still holds kept of the PIN
// before, and finish, which may change the token's data, agrees.
//
// Both files are on the disk before either takes its place. Cut off between the
// two, the role's master key opens with the new PIN, and the next login with it puts
// the data right.
func (s *Store) replacePIN(ctx context.Context, r tokens.Role, master, old, pin *secret.Bytes, kept format.Kept, finish func(*format.TokenData) error) error {
	f, d := s.snapshot()
	shortest, longest := f.PINLimits(d)
	if err := r.CheckNewPIN(pin, old, shortest, longest); err != nil {
		return err
	}
	made, err := f.Make(ctx, r.User, pin, master, kept)
	if err != nil {
		return err
	}
	end, err := s.beginWith(ctx, r, kept)
	if err != nil {
		return err
	}
	defer end()
	f, d = s.snapshot()
	d = withNewPIN(f, d, r, made.Record)
	if err := finish(&d); err != nil {
		return err
	}
	data, file, err := s.prepare(d, r.User, made.File)
	defer data.drop()
	defer file.drop()
	if err != nil {
		return err
	}
	if err = s.commitKey(file); err == nil {
		var st stamp
		if st, err = data.commit(); err == nil {
			s.setData(d, st)
			return s.rekey(f, r.User, pin)
		}
	}
	// The caller hears that the PIN is the old one, so make that true.
	if kept.File != nil {
		if rerr := s.saveKey(r.User, kept.File); rerr != nil {
			s.cfg.Log.Error("the change of PIN is half done: the new PIN opens the token", "dir", s.cfg.Dir, "role", r.Title, "err", rerr)
		}
	}
	return err
}

// rekey gives the logins of a role the key of its new PIN, where a PIN has its own.
func (s *Store) rekey(f format.Format, u p11.UserType, pin *secret.Bytes) error {
	k, ok := f.(format.Rekeyer)
	if !ok {
		return nil
	}
	key, err := k.KeyOf(pin)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.ChangeKeyLocked(u, key)
	return nil
}

// RoleKey is a copy of the key of a role that is logged in, which the caller closes.
func (s *Store) RoleKey(u p11.UserType) (*secret.Bytes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.logins.OpenLocked(u) {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the key wants a login")
	}
	return s.logins.KeyLocked(u).Clone()
}

// EndLogins ends the logins of a role whose key opens nothing any more.
func (s *Store) EndLogins(u p11.UserType) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.EndLocked(u)
}

// prepare writes the next versions of NVTOK.DAT and of a role's key file, unless key is nil.
// The caller commits them, and drops both also after an error.
func (s *Store) prepare(d format.TokenData, u p11.UserType, key []byte) (data *prepared, file *preparedKey, err error) {
	if file, err = s.prepareKey(u, key); err == nil {
		data, err = s.top.prepare(dataFile, s.format.PrintFile(d))
	}
	return data, file, err
}
