package mountd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

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
	lock   *os.File
}

// enterRoom makes the directory, if it is not there.
func enterRoom(ctx context.Context, dir string, mode fs.FileMode, group int) (_ *room, err error) {
	r := &room{dir: dir}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		r.made = true
	}
	if err := locks.MakeDirectory(dir, mode, group); err != nil {
		return nil, err
	}
	r.lock, err = lockAlone(ctx, dir, os.O_RDONLY|unix.O_DIRECTORY, func() string { return "is making a token in " + dir })
	if err != nil {
		return nil, err
	}
	is, err := r.lock.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(dir); err != nil || !os.SameFile(is, there) {
			err = fmt.Errorf("another p11fs has just failed to make a token in %s: try again", dir)
		}
	}
	var list []os.DirEntry
	if err == nil {
		list, err = os.ReadDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	for _, e := range list {
		r.before = append(r.before, e.Name())
	}
	return r, nil
}

// leave has the directory be as it was, where all was in vain, and lets others in.
func (r *room) leave() error {
	var errs []error
	if r.vain {
		list, err := os.ReadDir(r.dir)
		errs = append(errs, err)
		for _, e := range list {
			if !slices.Contains(r.before, e.Name()) {
				errs = append(errs, os.RemoveAll(filepath.Join(r.dir, e.Name())))
			}
		}
		if r.made {
			errs = append(errs, os.Remove(r.dir))
		}
	}
	return errors.Join(append(errs, r.lock.Close())...)
}
