package store

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
)

// What stands beside a token's directory has a hidden name: a dot, the token's name, a
// dot, and one of these.
const (
	// migrationDir is the token in the other format. What it is is said by the format of
	// its NVTOK.DAT: one that is older than the token's is the backup of a migration, and
	// anything else is a migration that was cut off, or rolled back.
	migrationDir = "migration"
	// restoringDir is what a backup is unpacked into, marked while that goes on, and for a
	// moment what it has replaced.
	restoringDir = "restoring"
	// replacedDir is what a backup has replaced.
	replacedDir = "replaced"
)

// unfinishedMark is a file in restoringDir, which says that it may be thrown away.
const unfinishedMark = ".p11fs.unfinished"

// A site is the directory in which a token's is, and the token's name there.
type site struct {
	*folder
	name string
}

// openSite opens the directory above dir. It may be reached through symbolic links.
func openSite(dir string, k kernel, group int) (site, error) {
	dir = filepath.Clean(dir)
	d, err := openFolder(unix.AT_FDCWD, filepath.Dir(dir)+"/.", k, group)
	return site{d, filepath.Base(dir)}, err
}

// beside is the name of what stands beside the token.
func (p site) beside(what string) string { return "." + p.name + "." + what }

// beside returns the path of what stands beside dir, "" if there is nothing.
func beside(p site, what string) string {
	name := p.beside(what)
	if st, err := p.stamp(name); err != nil || st == (stamp{}) {
		return ""
	}
	return filepath.Join(strings.TrimSuffix(p.path, "/."), name)
}

// swap exchanges the token's directory with the one beside it, durably. A file system
// that cannot do it in one step does it in three, and settle ends what is cut off.
// The token's lock is held.
func (p site) swap(what string) error {
	other := p.beside(what)
	err := p.k.Exchange(p.fd, p.name, other)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		moved := other + tokens.MovedSuffix
		for _, step := range [][2]string{{p.name, moved}, {other, p.name}, {moved, other}} {
			if err = p.k.Rename(p.fd, step[0], step[1]); err != nil {
				_ = p.settle() // which the next start does again
				break
			}
		}
	}
	if err != nil {
		return ioError("exchange", p.name, err)
	}
	return p.sync()
}

// settle ends a swap that was cut off between its three steps: if the new directory is
// not in place the old one comes back. The token's lock is held.
func (p site) settle() error {
	for _, what := range []string{migrationDir, restoringDir} {
		other := p.beside(what)
		moved := other + tokens.MovedSuffix
		if st, err := p.stamp(moved); err != nil || st == (stamp{}) {
			continue
		}
		// An empty directory in the place is one that somebody made for a new token.
		err := p.k.Rename(p.fd, moved, p.name)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			err = p.k.Rename(p.fd, moved, other)
		}
		if err != nil {
			return ioError("rename", moved, err)
		}
		if err := p.sync(); err != nil {
			return err
		}
	}
	return nil
}

// settle does so for the directory of a store.
func settle(c Config) error {
	s, err := openSite(c.Dir, c.kernel, c.Group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.close()
	return s.settle()
}

// open opens a directory beside the token, or the token's.
func (p site) open(name string) (*folder, error) {
	return openFolder(p.fd, name, p.k, p.group)
}

// errOther is why a directory beside a token is not worked in.
func errOther() error {
	return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "another process migrates or restores the token"), "wait for it")
}

// work opens a directory beside the token, making it, and keeps other processes that do
// so out of it for as long as it is open.
func (p site) work(what string) (*folder, error) {
	name := p.beside(what)
	if err := p.makeFolder(name); err != nil {
		return nil, err
	}
	d, err := p.open(name)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errOther()
	}
	if err == nil {
		// Whoever had it may have moved it, or removed it, before we locked it.
		var st unix.Stat_t
		var now stamp
		if now, err = p.stamp(name); err == nil {
			switch err = unix.Fstat(d.fd, &st); {
			case err != nil:
			case st.Ino != now.inode:
				err = errOther()
			case int(st.Uid) != unix.Geteuid():
				// It is to be the token's directory.
				err = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "%s beside the token belongs to user %d", name, st.Uid), "look what it is, and remove it")
			default:
				_, mode := d.modes()
				err = own(d.fd, mode, d.group)
			}
		}
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// discard removes a directory beside the token, and what a token's directory holds.
// Without NVTOK.DAT, which goes first, it is no token's any more; what the PINs could be
// guessed by is overwritten, as far as the file system does that.
func (p site) discard(what string) error {
	d, err := p.open(p.beside(what))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.empty(dataFile, soKeyFile, userKeyFile); err != nil {
		return err
	}
	if err := p.k.Rmdir(p.fd, p.beside(what)); err != nil {
		return ioError("remove", p.beside(what), err)
	}
	return p.sync()
}

// empty removes all that is in a token's directory, the files named first after they
// were overwritten.
func (d *folder) empty(first ...string) error {
	for _, name := range first {
		b, _, err := d.read(name, maxDataFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			clear(b)
			if err = d.overwrite(name, piece{b, 0}); err == nil {
				err = d.remove(name)
			}
		}
		if err == nil {
			err = d.sync()
		}
		if err != nil {
			return err
		}
	}
	objs, err := openFolder(d.fd, objectsDir, d.k, d.group)
	if err == nil {
		err = objs.empty()
		objs.close()
		if err == nil {
			err = d.k.Rmdir(d.fd, objectsDir)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioError("remove", objectsDir, err)
	}
	return d.each(d.remove)
}
