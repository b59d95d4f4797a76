package mountd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	// The directory, whatever has its name by now: where others may write above it, as in
	// the machine's, they could put a link to another one there, and leave would empty that.
	root *os.Root
}

// enterRoom makes the directory, if it is not there. locked is that of the token's lock.
func enterRoom(ctx context.Context, locked, dir string, mode fs.FileMode, group int) (_ *room, err error) {
	r := &room{dir: dir}
	r.lock, err = lockAlone(ctx, locked, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, func() string { return "is making a token in " + dir })
	if err != nil {
		return nil, err
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
	}
	return errors.Join(append(errs, r.close())...)
}
