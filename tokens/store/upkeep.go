package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// An Upkeep is tokens.Upkeep.
type Upkeep struct {
	cfg    Config
	before format.Format // what Migrate migrates from
	after  format.Format // and to
	// declared is the format that the configuration says; nil if it says none.
	declared format.Format
}

var _ tokens.Upkeep = (*Upkeep)(nil)

// NewUpkeep is the upkeep of the directory of cfg, whose Format is what the configuration
// says, or nil, in either of two formats.
func NewUpkeep(cfg Config, before, after format.Format) *Upkeep {
	if cfg.kernel == nil {
		cfg.kernel = linux{}
	}
	u := &Upkeep{cfg: cfg, before: before, after: after, declared: cfg.Format}
	u.cfg.Create = false
	return u
}

// versions are the releases that the two formats are named after.
var versions = [2]p11.Version{{Major: 3, Minor: 8}, {Major: 3, Minor: 12}} //nolint:gochecknoglobals // a table, never written

// site opens the directory above the token's.
func (u *Upkeep) site() (site, error) { return openSite(u.cfg.Dir, u.cfg.kernel, u.cfg.Group) }

// found is what stands in a token directory.
type found struct {
	present bool
	newer   bool // it has the format that Migrate migrates to
	format  format.Format
	data    format.TokenData
}

// look reads the token's data of a directory in s, which may be absent.
func (u *Upkeep) look(s site, name string) (w found, err error) {
	d, err := s.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	defer d.close()
	return u.lookIn(d)
}

// lookIn is look in an open directory.
func (u *Upkeep) lookIn(d *folder) (w found, err error) {
	raw, _, err := d.read(dataFile, maxDataFile)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, notRecognized(d.path, err)
	}
	if w.format, err = u.before.Recognize(raw); err != nil {
		var newErr error
		if w.format, newErr = u.after.Recognize(raw); newErr == nil {
			w.newer, err = true, nil
		}
	}
	if err != nil {
		return w, notRecognized(d.path, err)
	}
	w.present = true
	w.data, err = w.format.ParseFile(raw)
	return w, err
}

// State is tokens.Upkeep.
func (u *Upkeep) State() (st tokens.DirectoryState, err error) {
	s, err := u.site()
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	defer s.close()
	st.Replaced = beside(s, replacedDir)
	other := beside(s, migrationDir)
	w, err := u.look(s, s.name)
	if other != "" {
		if o, oerr := u.look(s, s.beside(migrationDir)); oerr == nil && o.present && !o.newer && (err != nil || w.newer) {
			st.Backup = other
		} else {
			st.Unfinished = other
			st.RolledBack = oerr == nil && o.newer && u.complete(s)
		}
	}
	if err != nil || !w.present {
		return st, err
	}
	i := w.data.Info(time.Time{})
	st.Label, st.Flags = i.Label, i.Flags
	st.Present, st.Format = true, versions[0]
	if w.newer {
		st.Format = versions[1]
	}
	st.Initialized = i.Flags&p11.CKF_TOKEN_INITIALIZED != 0
	st.UserPIN = w.format.UserPINSet(w.data)
	if d, err := s.open(s.name); err == nil {
		defer d.close()
		if end, err := readCount(d); err == nil && countedOut(end) {
			st.CountedOut = filepath.Join(u.cfg.Dir, countFile)
		}
	}
	return st, nil
}

// complete reports whether the directory of a migration has a list of its objects, which it
// gets last.
func (u *Upkeep) complete(s site) bool {
	d, err := s.open(s.beside(migrationDir) + "/" + objectsDir)
	if err != nil {
		return false
	}
	defer d.close()
	st, err := d.stamp(indexFile)
	return err == nil && st != stamp{}
}

// locked runs f with the directory above the token's, under the token's lock.
func (u *Upkeep) locked(ctx context.Context, f func(s site) error) (err error) {
	s, err := u.site()
	if err != nil {
		return err
	}
	defer s.close()
	unlock, err := u.cfg.Lock.Lock(ctx)
	if err != nil {
		return ioError("lock", u.cfg.Dir, err)
	}
	defer func() {
		if uerr := unlock(); err == nil && uerr != nil {
			err = ioError("unlock", u.cfg.Dir, uerr)
		}
	}()
	if err := s.settle(); err != nil {
		return err
	}
	return f(s)
}

// Rollback is tokens.Upkeep. The format is declared after the exchange: to a program of
// the older format a directory of the newer one must never be declared.
func (u *Upkeep) Rollback(ctx context.Context, declare func() error) error {
	return u.locked(ctx, func(s site) error {
		before, err := u.look(s, s.beside(migrationDir))
		if err != nil {
			return err
		}
		now, err := u.look(s, s.name)
		switch backup := before.present && !before.newer; {
		case backup && (err != nil || now.newer): // what cannot be read is not kept either
			if err := s.swap(migrationDir); err != nil {
				return err
			}
		case err != nil:
			return err
		case now.newer || !now.present:
			return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "there is no backup of a migration beside %s", u.cfg.Dir), "if there is a file of p11fs backup, restore that")
		}
		// The token has the older format, perhaps since a rollback that was cut off here.
		if declare == nil {
			return nil
		}
		return declare()
	})
}

// Forget is tokens.Upkeep.
func (u *Upkeep) Forget(ctx context.Context) error {
	return u.locked(ctx, func(s site) error {
		if beside(s, migrationDir) == "" {
			return nil
		}
		d, err := s.work(migrationDir) // which nobody works in
		if err != nil {
			return err
		}
		defer d.close()
		return s.discard(migrationDir)
	})
}
