package mountd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"p11fs/locks"
)

// A room is the directory of a token that a command is making. No other command makes one
// there meanwhile.
type room struct {
	dir    string
	made   bool     // by enterRoom
	before []string // what was in it
	vain   bool     // leave takes back what came in
	lock   *os.File // the directory of the token's lock: kinds lock that of the token
	locked string   // the token's lock
	locks  string   // the directory of all locks, below which that of the token was made for it; or empty
	// The directory, whatever has its name by now: where others may write above it, as in
	// the machine's, they could put a link to another one there, and leave would empty that.
	root *os.Root
}

// errGivenUp is why a lock is none any more: another made the token in vain meanwhile.
var errGivenUp = errors.New("another p11fs has just given up making that token: start the command again")

// enterRoom makes the directory, if it is not there. locked is the token's lock.
func enterRoom(ctx context.Context, locked, dir string, mode fs.FileMode, group int) (_ *room, err error) {
	r := &room{dir: dir, locked: locked}
	above := filepath.Dir(locked)
	r.lock, err = lockAlone(ctx, above, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, func() string { return holder(above) + " makes a token in " + dir })
	if err != nil {
		return nil, err
	}
	if there, err := os.Lstat(above); err != nil || !same(r.lock, there) {
		return nil, errors.Join(errGivenUp, r.close())
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		r.made = true
	}
	if err = locks.MakeDirectory(dir, mode, group); err == nil {
		err = r.look()
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// look opens the directory, and notes what is in it.
func (r *room) look() error {
	// A link is not followed, and a pipe is not waited for.
	dir, err := os.OpenFile(r.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	is, err := dir.Stat()
	if err != nil {
		return err
	}
	if r.root, err = os.OpenRoot(r.dir); err != nil {
		return err
	}
	there, err := r.root.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(is, there) {
		return fmt.Errorf("somebody has just put another directory in the place of %s: ask who, and try again", r.dir)
	}
	if st, ok := is.Sys().(*syscall.Stat_t); ok && r.made && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d has just made the directory %s: ask why, and try again", st.Uid, r.dir)
	}
	list, err := fs.ReadDir(r.root.FS(), ".")
	for _, e := range list {
		r.before = append(r.before, e.Name())
	}
	return err
}

func same(f *os.File, there fs.FileInfo) bool {
	is, err := f.Stat()
	return err == nil && os.SameFile(is, there)
}

func (r *room) close() error {
	if r.root == nil {
		return r.lock.Close()
	}
	return errors.Join(r.root.Close(), r.lock.Close())
}

// leave has the directory be as it was, where all was in vain, and lets others in.
func (r *room) leave() error {
	var errs []error
	if r.vain {
		list, err := fs.ReadDir(r.root.FS(), ".")
		errs = append(errs, err)
		for _, e := range list {
			if !slices.Contains(r.before, e.Name()) {
				errs = append(errs, r.root.RemoveAll(e.Name()))
			}
		}
		if r.made {
			errs = append(errs, os.Remove(r.dir))
		}
		if r.locks != "" {
			errs = append(errs, removeLock(r.locked, r.locks))
		}
	}
	return errors.Join(append(errs, r.close())...)
}

// removeLock removes a token's lock and what was made for it below locks. The lock of its
// directory is held: who waits for that sees that it is gone.
func removeLock(path, locks string) error {
	err := os.Remove(path)
	for dir := filepath.Dir(path); err == nil && dir != locks; dir = filepath.Dir(dir) {
		err = os.Remove(dir)
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) { // another's is in it; it went before
		return nil
	}
	return err
}
