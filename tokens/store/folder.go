package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// kernel is what the store asks of the system to change a directory. Tests cut
// it off at each step.
type kernel interface {
	// Create makes a new file, Extend opens one that exists for appending, Open
	// for writing anywhere.
	Create(dir int, name string, mode uint32, group int) (fd int, err error)
	Extend(dir int, name string) (fd int, err error)
	Open(dir int, name string) (fd int, err error)
	Write(fd int, b []byte) (int, error)
	WriteAt(fd int, b []byte, at int64) (int, error)
	// Sync makes a file's contents, or a directory's entries, durable.
	Sync(fd int) error
	// SyncData makes a file's contents durable, and not its times.
	SyncData(fd int) error
	// SyncAll makes all that was written to the file system of a descriptor durable.
	SyncAll(fd int) error
	Rename(dir int, from, to string) error
	// Exchange gives each of two files the name of the other, in one step.
	Exchange(dir int, a, b string) error
	Unlink(dir int, name string) error
	Rmdir(dir int, name string) error
	Mkdir(dir int, name string, mode uint32, group int) error
}

// linux is the kernel of the machine. No call follows a symbolic link.
type linux struct{}

const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

func (linux) Create(dir int, name string, mode uint32, group int) (int, error) {
	fd, err := openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return -1, err
	}
	if err := own(fd, mode, group); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (linux) Extend(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_WRONLY|unix.O_APPEND, 0)
}

func (linux) Open(dir int, name string) (int, error) { return openat(dir, name, unix.O_WRONLY, 0) }

func (linux) Write(fd int, b []byte) (int, error) {
	return retry(func() (int, error) { return unix.Write(fd, b) })
}

func (linux) WriteAt(fd int, b []byte, at int64) (int, error) {
	return retry(func() (int, error) { return unix.Pwrite(fd, b, at) })
}

func (linux) Sync(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Fsync(fd) })
	return err
}

func (linux) SyncData(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Fdatasync(fd) })
	return err
}

func (linux) Rename(dir int, from, to string) error { return unix.Renameat(dir, from, dir, to) }

func (linux) SyncAll(fd int) error { return unix.Syncfs(fd) }

func (linux) Exchange(dir int, a, b string) error {
	return unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
}

func (linux) Unlink(dir int, name string) error { return unix.Unlinkat(dir, name, 0) }

func (linux) Rmdir(dir int, name string) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) }

func (linux) Mkdir(dir int, name string, mode uint32, group int) error {
	if err := unix.Mkdirat(dir, name, mode); err != nil {
		return err
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return own(fd, mode, group)
}

// own gives a new file or directory its mode whatever the umask, and its group. The
// group stays as it is if this process is not allowed to change it; so it does with
// stock.
func own(fd int, mode uint32, group int) error {
	if group != NoGroup {
		if err := unix.Fchown(fd, -1, group); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return unix.Fchmod(fd, mode)
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dir, name, flags|openFlags, mode) })
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// A folder is a directory that is held open. Every name used in it is one
// component, so that nothing outside can be reached.
type folder struct {
	fd    int
	path  string
	k     kernel
	group int
}

// A stamp changes with every change of a file. The zero stamp is that of a file
// that is absent.
type stamp struct {
	inode        uint64
	size         int64
	mtime, ctime int64 // ns
	alone        bool  // it is a regular file, and this its only name
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1}
}

// times are those of its inode and of its contents.
func (s stamp) times() (changed, dated time.Time) {
	return time.Unix(0, s.ctime), time.Unix(0, s.mtime)
}

// openFolder opens a directory below dir, or at a path if dir is unix.AT_FDCWD.
func openFolder(dir int, path string, k kernel, group int) (*folder, error) {
	fd, err := openat(dir, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, ioError("open directory", path, err)
	}
	return &folder{fd: fd, path: path, k: k, group: group}, nil
}

func (d *folder) close() { _ = unix.Close(d.fd) }

// modes are those of files and directories: the group may write, as stock wants it.
func (d *folder) modes() (file, dir uint32) {
	if d.group == NoGroup {
		return 0o600, 0o700
	}
	return 0o660, 0o770
}

// stamp returns the file's stamp now.
func (d *folder) stamp(name string) (stamp, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, ioError("look at", name, err)
	}
	return stampOf(&st), nil
}

// absent reports whether there is certainly no file of that name.
func (d *folder) absent(name string) bool {
	st, err := d.stamp(name)
	return err == nil && st == stamp{}
}

// errUnfit is the error of a file that cannot be what its name says.
var errUnfit = errors.New("not usable")

// read returns the contents of a regular file of at most limit bytes, and the
// stamp that it had before. An absent file gives an error that wraps
// fs.ErrNotExist.
func (d *folder) read(name string, limit int64) ([]byte, stamp, error) {
	return d.readIf(name, limit, func(int64) error { return nil })
}

// readIf is read of a file whose size is agreed to.
func (d *folder) readIf(name string, limit int64, agree func(size int64) error) ([]byte, stamp, error) {
	return d.readInto(nil, name, limit, agree)
}

// readInto is readIf into memory that may be used for it.
func (d *folder) readInto(b []byte, name string, limit int64, agree func(size int64) error) ([]byte, stamp, error) {
	fd, err := openat(d.fd, name, unix.O_RDONLY, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			return nil, stamp{}, fmt.Errorf("%s: %w: it is a symbolic link", name, errUnfit)
		}
		return nil, stamp{}, ioError("open", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, stamp{}, ioError("look at", name, err)
	}
	s := stampOf(&st)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, s, fmt.Errorf("%s: %w: it is no regular file", name, errUnfit)
	case st.Size > limit:
		return nil, s, fmt.Errorf("%s: %w: it has %d bytes, more than %d", name, errUnfit, st.Size, limit)
	}
	if err := agree(st.Size); err != nil {
		return nil, s, fmt.Errorf("%s: %w", name, err)
	}
	b = slices.Grow(b[:0], int(st.Size))[:st.Size]
	n := 0
	for n < len(b) {
		m, err := retry(func() (int, error) { return unix.Pread(fd, b[n:], int64(n)) })
		if err != nil {
			return nil, s, ioError("read", name, err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return b[:n], s, nil
}

// look has f read parts of a file, which are there.
func (d *folder) look(name string, f func(read func(b []byte, at int64) error) error) error {
	fd, err := openat(d.fd, name, unix.O_RDONLY, 0)
	if err != nil {
		return ioError("open", name, err)
	}
	defer unix.Close(fd)
	return f(func(b []byte, at int64) error {
		n, err := retry(func() (int, error) { return unix.Pread(fd, b, at) })
		if err == nil && n < len(b) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return ioError("read", name, err)
		}
		return nil
	})
}

// put writes a new file, which is or is going to be name, and has sync make its contents
// durable.
func (d *folder) put(temp, name string, b []byte, sync func(fd int) error) error {
	mode, _ := d.modes()
	fd, err := d.k.Create(d.fd, temp, mode, d.group)
	if err != nil {
		return ioError("create", name, err)
	}
	if err = d.fill(fd, b); err == nil {
		err = sync(fd)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = d.k.Unlink(d.fd, temp)
		return ioError("write", name, err)
	}
	return nil
}

func (d *folder) fill(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := d.k.Write(fd, b)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

// extend adds b to the end of a file, durably.
func (d *folder) extend(name string, b []byte) error {
	fd, err := d.k.Extend(d.fd, name)
	if err != nil {
		return ioError("open", name, err)
	}
	defer unix.Close(fd)
	if err = alone(fd); err == nil {
		err = d.fill(fd, b)
	}
	if err == nil {
		err = d.k.Sync(fd)
	}
	if err != nil {
		return ioError("append to", name, err)
	}
	return nil
}

// A piece is bytes at a place of a file.
type piece struct {
	b  []byte
	at int64
}

// overwrite replaces pieces inside a file, durably.
func (d *folder) overwrite(name string, pieces ...piece) error {
	fd, err := d.k.Open(d.fd, name)
	if err != nil {
		return ioError("open", name, err)
	}
	defer unix.Close(fd)
	err = alone(fd)
	for i := 0; err == nil && i < len(pieces); i++ {
		var n int
		if n, err = d.k.WriteAt(fd, pieces[i].b, pieces[i].at); err == nil && n < len(pieces[i].b) {
			err = io.ErrShortWrite
		}
	}
	if err == nil {
		err = d.k.SyncData(fd)
	}
	if err != nil {
		return ioError("write in", name, err)
	}
	return nil
}

// alone returns an error for an open file that is no regular one, or that has a name
// elsewhere too: who may write the directory must not have the daemon write into files that
// he may not write himself.
func alone(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && !stampOf(&st).alone {
		err = errUnfit
	}
	return err
}

// date sets the time of a file's content, and returns its stamp then.
func (d *folder) date(name string, at time.Time) (stamp, error) {
	modified, err := unix.TimeToTimespec(at)
	if err != nil {
		return stamp{}, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s is no time of a file", at)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, modified}
	if err := unix.UtimesNanoAt(d.fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stamp{}, ioError("date", name, err)
	}
	return d.stamp(name)
}

// putAside writes a file anew, not durably, in a directory that is no token's yet.
func (d *folder) putAside(name string, b []byte) error {
	if err := d.remove(name); err != nil {
		return err
	}
	return d.put(name, name, b, func(int) error { return nil })
}

// syncAll makes all that was written in the directory's file system durable.
func (d *folder) syncAll() error {
	if err := d.k.SyncAll(d.fd); err != nil {
		return ioError("sync the file system of", d.path, err)
	}
	return nil
}

// sync makes what was created, renamed and removed in the directory durable.
func (d *folder) sync() error {
	if err := d.k.Sync(d.fd); err != nil {
		return ioError("sync directory", d.path, err)
	}
	return nil
}

// makeFolder makes a directory, durably, if it is absent.
func (d *folder) makeFolder(name string) error {
	_, mode := d.modes()
	if err := d.k.Mkdir(d.fd, name, mode, d.group); err != nil && !errors.Is(err, fs.ErrExist) {
		return ioError("create", name, err)
	}
	return d.sync()
}

// remove removes a file, which may be absent. It is durable after sync.
func (d *folder) remove(name string) error {
	if err := d.k.Unlink(d.fd, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return ioError("remove", name, err)
	}
	return nil
}

// ioError says what failed, with the return value that it means, and wraps err.
func ioError(what, name string, err error) error {
	return p11.Errorf(ioRV(err), "%s %s: %w", what, name, err)
}

func ioRV(err error) p11.RV {
	var rv p11.RV
	switch {
	case errors.As(err, &rv):
		return rv
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return p11.CKR_FUNCTION_CANCELED
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return p11.CKR_DEVICE_MEMORY
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		return p11.CKR_TOKEN_WRITE_PROTECTED
	}
	return p11.CKR_DEVICE_ERROR
}

// each calls f for the names in the directory, which may remove them, until it returns an
// error. Not all are in memory at once: there may be any number.
func (d *folder) each(f func(name string) error) error {
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return ioError("open", d.path, err)
	}
	dir := os.NewFile(uintptr(fd), d.path)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return ioError("list", d.path, err)
		}
	}
}
