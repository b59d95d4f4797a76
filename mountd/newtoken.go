package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/tokens"
)

// newPrefix begins the names of directories of tokens that are being made, and
// RemovedPrefix those that were removed. No daemon serves them.
const (
	newPrefix     = ".new-"
	RemovedPrefix = ".removed-"
)

// newNames are names of tokens that a configuration takes as they are.
var newNames = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,49}$`)

// A NewToken is a token that is being made, for a daemon that may serve meanwhile. It is in a
// directory with another name, until Commit gives it its own.
type NewToken struct {
	Slot   Slot
	conf   Config
	dir    string // its own
	listed bool   // the configuration says which slots there are
	locks  bool   // its lock was made with it
	done   bool
	unlock func() error
}

// NewToken begins to make a token of that name. kind is its kind; empty is that of its name,
// or the first. stock has its directory be in the format that programs with openCryptoki's
// library share. With adopt the directory is there already, and is to be served as it is. Only
// one makes or removes tokens at a time.
func (c Config) NewToken(ctx context.Context, name, kind string, stock, adopt bool) (_ *NewToken, err error) {
	if why := config.BadTokenName(name); why != "" || !newNames.MatchString(name) {
		return nil, fmt.Errorf("%q is no name for a token: write a letter, and then up to 49 letters, digits, dots, - or _", name)
	}
	unlock, err := c.lockTokens(ctx)
	if err != nil {
		return nil, err
	}
	n := &NewToken{conf: c, dir: filepath.Join(c.Paths.Data, name), unlock: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.listed, err = c.listed(); err != nil {
		return nil, err
	}
	if err = n.choose(name, kind, stock); err != nil {
		return nil, err
	}
	if err = n.vacant(name, adopt); err != nil || adopt {
		n.Slot.Place.Dir = n.dir
		return n, err
	}
	sweepUnfinished(c.Paths.Data)
	if n.Slot.Place.Dir, err = os.MkdirTemp(c.Paths.Data, newPrefix+name+"."); err != nil {
		return nil, err
	}
	return n, os.Remove(n.Slot.Place.Dir) // whoever makes it gives it mode and owner
}

// vacant checks that there is no token of the name, or with adopt that there is its directory
// alone.
func (n *NewToken) vacant(name string, adopt bool) error {
	slots, _, err := n.conf.Slots()
	if err != nil {
		return err
	}
	_, err = os.Lstat(n.dir)
	there := err == nil
	configured := n.listed && slices.ContainsFunc(slots, func(s Slot) bool { return s.label() == name || s.TokenName == name })
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case adopt && !there:
		return fmt.Errorf("there is no directory %s: leave --adopt out, and the token is made", n.dir)
	case adopt:
		n.listed = n.listed && !configured
		return nil
	case configured:
		return fmt.Errorf("%s has a token %s already: choose another name", n.conf.Paths.Config, name)
	case there:
		return fmt.Errorf("%s is there already: choose another name, have it served as it is with --adopt alone, or take it away first, with p11fs token rm %s", n.dir, name)
	}
	return nil
}

// choose decides of which kind and format the token is.
func (n *NewToken) choose(name, kind string, stock bool) error {
	k := n.conf.ownKind(name, n.dir)
	var names []string
	for i := range n.conf.Kinds {
		if names = append(names, n.conf.Kinds[i].Name); kind == n.conf.Kinds[i].Name && (n.listed || toldByDirectory(n.conf.Kinds[i])) {
			k = &n.conf.Kinds[i]
		}
	}
	switch {
	case kind != "" && !slices.Contains(names, kind):
		return fmt.Errorf("there is no kind of token %q: name one of %s", kind, strings.Join(names, ", "))
	case kind != "" && k.Name != kind:
		return fmt.Errorf("a token of your own is of the kind that its name says: call it %s, or write its slot into %s", kind, n.conf.Paths.Config)
	case stock && !n.listed:
		return errors.New("programs with openCryptoki's library share the machine's tokens only: leave --stock out")
	}
	s := Slot{Kind: k, Place: tokens.Place{Name: name, AnyFormat: !n.listed}}
	s.Slot = config.Slot{Library: k.Library + ".so", Description: "p11fs " + name, Manufacturer: "p11fs", TokenName: name}
	if k.OwnFormat != nil && !stock {
		s.Place.Format = k.OwnFormat(n.dir)
		s.Format, s.HasFormat = s.Place.Format, s.Place.Format != p11.Version{}
	}
	n.Slot = s
	return nil
}

// Make makes the token, as Config.Make does.
func (n *NewToken) Make(ctx context.Context, settings map[string]string, prepare func(dir *os.Root) error) (*Made, error) {
	n.lookForLocks()
	made, err := n.conf.make(ctx, n.Slot, settings, prepare)
	if errors.Is(err, errElsewhere) {
		err = fmt.Errorf("another machine has made the token already: add --adopt, and %s is served here as it is", n.Slot.Place.Name)
	}
	return made, err
}

// Join is Make of a token that is there already, elsewhere, and which others have made.
func (n *NewToken) Join(ctx context.Context, settings map[string]string) error {
	n.lookForLocks()
	made, err := n.conf.open(ctx, n.Slot, settings, nil)
	if err != nil {
		return err
	}
	if made.initialised {
		return made.Close()
	}
	return errors.Join(fmt.Errorf("nobody has initialised the token %s yet: leave --adopt out, and it is made", n.Slot.Place.Name), made.Abandon(ctx))
}

// lookForLocks notes whether the token's locks are there before it is made.
func (n *NewToken) lookForLocks() {
	_, err := os.Lstat(filepath.Join(n.conf.Paths.Locks, n.Slot.Place.Name))
	n.locks = errors.Is(err, os.ErrNotExist)
}

// Commit has the token be one of the configuration, which a daemon serves when it is told to
// or starts. The Made is closed. In a crash there is a directory that nobody serves, at worst.
func (n *NewToken) Commit() error {
	if n.Slot.Place.Dir != n.dir {
		if err := syncBelow(n.Slot.Place.Dir); err != nil {
			return err
		}
		if err := unix.Renameat2(unix.AT_FDCWD, n.Slot.Place.Dir, unix.AT_FDCWD, n.dir, unix.RENAME_NOREPLACE); err != nil {
			return fmt.Errorf("rename %s to %s: %w", n.Slot.Place.Dir, n.dir, err)
		}
	}
	if err := syncBelow(n.conf.Paths.Data); err != nil {
		return err
	}
	if n.listed {
		if _, err := config.WriteAdded(n.conf.Paths.Config, n.Slot.Slot); err != nil {
			return errors.Join(err, n.takeBack())
		}
	}
	n.done = true
	return nil
}

// takeBack has the directory be one that is being made again, which Close removes.
func (n *NewToken) takeBack() error {
	if n.Slot.Place.Dir == n.dir {
		return nil // it was there before
	}
	return os.Rename(n.dir, n.Slot.Place.Dir)
}

// Close ends the making, and removes what was not committed.
func (n *NewToken) Close() error {
	var err error
	if !n.done && n.Slot.Place.Dir != "" && n.Slot.Place.Dir != n.dir {
		err = os.RemoveAll(n.Slot.Place.Dir)
	}
	if !n.done && n.locks {
		err = errors.Join(err, n.removeLock())
	}
	return errors.Join(err, n.unlock())
}

// removeLock removes the lock that was made with the token, unless another makes one of that
// name meanwhile.
func (n *NewToken) removeLock() error {
	path := n.conf.lockPath(n.Slot)
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // it is the other's now
	}
	return removeLock(path, n.conf.Paths.Locks)
}

// RemoveToken takes the token called name out of the configuration, and moves its directory
// aside, to the path that it returns. serving is asked before, with the lock held under which
// tokens are made and removed: no daemon may serve the token any more.
func (c Config) RemoveToken(ctx context.Context, name string, serving func() error) (aside string, err error) {
	unlock, err := c.lockTokens(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	slots, _, err := c.Slots()
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(slots, func(s Slot) bool { return s.label() == name || s.TokenName == name })
	listed, err := c.listed()
	switch {
	case err != nil:
		return "", err
	case at < 0:
		return "", fmt.Errorf("there is no token %q here: p11fs token ls lists those that there are", name)
	}
	dir := filepath.Join(c.Paths.Data, name)
	if _, err := os.Lstat(dir); err != nil && !listed {
		return "", err
	}
	if err := serving(); err != nil {
		return "", err
	}
	if listed {
		if err := config.WriteRemoved(c.Paths.Config, slots[at].ID); err != nil {
			return "", err
		}
	}
	aside = filepath.Join(c.Paths.Data, RemovedPrefix+name+"-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(dir, aside); errors.Is(err, os.ErrNotExist) {
		return "", nil // it was never made
	} else if err != nil {
		return "", err
	}
	return aside, syncBelow(c.Paths.Data)
}

// Alone keeps daemons from serving the tokens until release, or returns ErrBusy if one does.
func (c Config) Alone(ctx context.Context) (release func() error, err error) {
	if err := locks.MakeDirectory(c.Paths.Data, dirMode(c.Mode), c.group()); err != nil {
		return nil, err
	}
	if err := locks.MakeDirectory(c.Paths.Locks, dirMode(c.Mode), c.group()); err != nil {
		return nil, err
	}
	return takeGuard(ctx, c.Paths.Guard, c.Paths.Data)
}

// listed reports whether a configuration says which slots there are.
func (c Config) listed() (bool, error) {
	_, err := os.Stat(c.Paths.Config)
	if errors.Is(err, os.ErrNotExist) && c.Mode == User && !c.ConfigRequired {
		return false, nil
	}
	return true, err
}

// lockTokens keeps others from making and removing tokens.
func (c Config) lockTokens(ctx context.Context) (unlock func() error, err error) {
	for _, dir := range []string{c.Paths.Data, c.Paths.Locks} {
		if err := locks.MakeDirectory(dir, dirMode(c.Mode), c.group()); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(c.Paths.Locks, "LCK..tokens")
	f, err := lockAlone(ctx, path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, func() string { return holder(path) + " makes or removes tokens in " + c.Paths.Data })
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// sweepUnfinished removes tokens whose maker was killed. Nobody ever had one of them, and the
// lock is held under which they are made.
func sweepUnfinished(data string) {
	left, _ := filepath.Glob(filepath.Join(data, newPrefix+"*"))
	for _, dir := range left {
		_ = os.RemoveAll(dir) // the next one tries again
	}
}

// syncBelow writes a directory's names to the disk.
func syncBelow(dir string) error {
	// A pipe that somebody has put there would be waited for.
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
