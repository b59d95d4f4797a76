package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/tokens"
)

// An Upkeep is what is done with one token's directory by a command, while a daemon
// serves it or none does.
type Upkeep struct {
	tokens.Upkeep
	Slot Slot

	conf Config
	undo []func() error
}

// OpenUpkeep returns the upkeep of the token called name. With create a user's own token
// need not be there yet.
func (c Config) OpenUpkeep(name string, create bool) (_ *Upkeep, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := c.slotOf(name, create)
	if err != nil {
		return nil, err
	}
	if s.Kind.Upkeep == nil {
		return nil, fmt.Errorf("the token %s is of the kind %s: %w", name, s.Kind.Name, s.Kind.NoBackup)
	}
	u := &Upkeep{Slot: s, conf: c}
	p := s.Place
	p.Group, p.Log, p.Now = c.group(), c.Log.With("token", name), c.Now
	if p.Now == nil {
		p.Now = time.Now
	}
	for _, dir := range []string{c.Paths.Data, c.Paths.Locks} {
		if err := locks.MakeDirectory(dir, dirMode(c.Mode), p.Group); err != nil {
			return nil, err
		}
	}
	if p.Lock, err = locks.Open(c.lockPath(s), p.Group); err != nil {
		return nil, err
	}
	u.undo = append(u.undo, p.Lock.Close)
	if segment, ok := c.segmentOf(s); ok {
		if _, err := os.Stat(filepath.Join(segment.Dir, segment.Name)); err == nil && !tokens.NewFormat(p.Format) {
			p.Shared = segment // which says more than the directory
		}
	}
	u.Upkeep = s.Kind.Upkeep(p)
	return u, nil
}

// Close gives back what the upkeep holds.
func (u *Upkeep) Close() error {
	var errs []error
	for _, f := range slices.Backward(u.undo) {
		errs = append(errs, f())
	}
	u.undo = nil
	return errors.Join(errs...)
}

// lockPath is the path of a token's lock.
func (c Config) lockPath(s Slot) string {
	return filepath.Join(c.Paths.Locks, s.Place.Name, s.owner(), "LCK.."+s.Place.Name)
}

// slotOf is the slot of the token called name.
func (c Config) slotOf(name string, create bool) (Slot, error) {
	slots, _, err := c.Slots()
	if err != nil {
		return Slot{}, err
	}
	var names []string
	for _, s := range slots {
		if s.Kind == nil {
			continue
		}
		if s.Place.Name == name {
			return s, nil
		}
		names = append(names, s.Place.Name)
	}
	if _, err := os.Stat(c.Paths.Config); create && c.Mode == User && errors.Is(err, os.ErrNotExist) && !c.ConfigRequired {
		if why := config.BadTokenName(name); why != "" {
			return Slot{}, fmt.Errorf("%q %s: name the token otherwise", name, why)
		}
		dir := filepath.Join(c.Paths.Data, name)
		kind := c.ownKind(name, dir)
		s := Slot{Kind: kind, Place: tokens.Place{Name: name, Dir: dir, AnyFormat: true}}
		if kind.OwnFormat != nil {
			s.Place.Format = kind.OwnFormat(dir)
		}
		s.TokenName, s.Library = name, kind.Library+".so"
		return s, nil
	}
	return Slot{}, fmt.Errorf("there is no token %q here: name one of %s", name, strings.Join(names, ", "))
}

// segmentOf is the shared memory through which stock programs share a token, if there
// may be any.
func (c Config) segmentOf(s Slot) (*tokens.Shared, bool) {
	if c.Mode != System || c.Paths.SharedMemory == "" {
		return nil, false
	}
	name, err := s.SegmentName()
	return &tokens.Shared{Dir: c.Paths.SharedMemory, Name: name}, err == nil
}

// anyFormat reports whether no configuration says the format of the token's directory, or
// nothing of the token is there.
func (u *Upkeep) anyFormat() bool { return u.Slot.Place.AnyFormat || toldByDirectory(*u.Slot.Kind) }

// Exchange is to be called before the directory is exchanged for one that may have another
// format. Where the configuration says the format, a daemon has read it, and stock
// programs may go by it: then none may run, and none starts before Close.
func (u *Upkeep) Exchange(ctx context.Context) error {
	if u.anyFormat() {
		return nil
	}
	c := u.conf
	for _, take := range []func() (func() error, error){
		func() (func() error, error) { return takeGuard(ctx, c.Paths.Guard, c.Paths.Data) },
		func() (func() error, error) { return guardDirectory(ctx, c.Paths.Data, "serves") },
	} {
		release, err := take()
		if errors.Is(err, ErrBusy) {
			return fmt.Errorf("%w: stop it first, for it goes by the format that %s had when it started", err, c.Paths.Config)
		}
		if err != nil {
			return err
		}
		u.undo = append(u.undo, release)
	}
	segment, ok := c.segmentOf(u.Slot)
	if !ok {
		return nil
	}
	users, err := usersOf(filepath.Join(segment.Dir, segment.Name))
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("programs with openCryptoki's library have the token open (processes %s), and would write into it in the other format: end them first: %w",
			strings.Join(users, ", "), ErrBusy)
	}
	return nil
}

// usersOf are the processes that have a file mapped, as far as they may be looked at.
func usersOf(path string) (pids []string, err error) {
	procs, err := filepath.Glob("/proc/[0-9]*/maps")
	if err != nil {
		return nil, err
	}
	for _, maps := range procs {
		b, err := os.ReadFile(maps)
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+path) {
				pids = append(pids, filepath.Base(filepath.Dir(maps)))
				break
			}
		}
	}
	return pids, nil
}

// Declare writes the format of the token's directory into the configuration, where that
// says it, and returns what takes it back. v is zero for 3.8's.
func (u *Upkeep) Declare(v p11.Version) (undo func() error, err error) {
	if u.anyFormat() {
		return func() error { return nil }, nil
	}
	return config.WriteFormat(u.conf.Paths.Config, u.Slot.ID, v)
}

// Unshare removes the shared memory of a token that no program has open: what it holds is
// in the format that the directory had.
func (u *Upkeep) Unshare() error {
	segment, ok := u.conf.segmentOf(u.Slot)
	if !ok {
		return nil
	}
	err := os.Remove(filepath.Join(segment.Dir, segment.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
