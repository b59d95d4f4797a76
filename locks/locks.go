// Package locks holds the lock files through which p11fs and openCryptoki 3.8
// processes keep out of each other's way: LCK..APIlock, which guards the slot
// manager's segment, and one LCK..TOKEN a token, which guards the token's
// directory and segment.
//
// A lock file is empty, is opened read-only, and is locked as a whole with
// flock. The kernel drops the lock when its holder dies. flock belongs to the
// open file description and so does not keep two goroutines of one process
// apart: each Lock has a lock of its own above the file's.
//
// # Lock order
//
// Over the whole program, from first to last:
//
//  1. the API lock
//  2. a token's lock
//  3. mutexes in memory, each of which says what it guards
//
// The API lock and a token's lock are normally never held together, as stock
// openCryptoki never does; where it cannot be helped the API lock comes first.
// Nobody holds the locks of two tokens. No lock of this package is held over a
// reply to a client or while a callback runs that may lock.
package locks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// NoGroup has lock files belong to their maker alone.
const NoGroup = -1

// A Lock is one lock file. It is used by several goroutines at once.
type Lock struct {
	path  string
	group int // of a file that has to be made

	// turn holds one element while no goroutine of this process has the lock. It
	// guards f and waiter. It is a channel, so that waiting for it can end with a
	// context.
	turn   chan struct{}
	f      *os.File
	waiter *waiter // that may still wait for f's lock; nil if none does

	closed    chan struct{} // closed by Close
	closeOnce sync.Once

	patience atomic.Int64 // a time.Duration; 0: without end
}

// ErrClosed is what Lock returns after Close.
var ErrClosed = errors.New("lock is closed")

// ErrHeld is what Lock returns when it has waited for as long as SetPatience says.
var ErrHeld = errors.New("it is not given back")

// Open opens the lock file at path, making it and its directories where absent: group
// owns them then, with modes 0440 and 0770; with NoGroup the modes are 0400 and 0700
// and the owner's group stays. A file that exists is used as it is.
func Open(path string, group int) (*Lock, error) {
	f, err := open(path, group)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	l := &Lock{path: path, group: group, turn: make(chan struct{}, 1), f: f, closed: make(chan struct{})}
	l.turn <- struct{}{}
	return l, nil
}

// Path is the name that the lock file was opened by.
func (l *Lock) Path() string { return l.path }

// SetPatience bounds how long each call of Lock waits from now on; 0 is no bound.
func (l *Lock) SetPatience(d time.Duration) { l.patience.Store(int64(d)) }

// Lock waits until the caller has the lock alone, in this process and among
// processes, or until ctx ends. The caller calls unlock once; its error says
// that the kernel refused to unlock, and that the lock is lost to this process.
func (l *Lock) Lock(ctx context.Context) (unlock func() error, err error) {
	// An ended context never gets the lock, not even a free one.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p := time.Duration(l.patience.Load()); p > 0 {
		patient, cancel := context.WithTimeout(ctx, p)
		defer cancel()
		defer func(caller context.Context) {
			if err != nil && patient.Err() != nil && caller.Err() == nil {
				err = fmt.Errorf("%s: %w", l.path, ErrHeld)
			}
		}(ctx)
		ctx = patient
	}
	if err := l.takeTurn(ctx); err != nil {
		return nil, err
	}
	select {
	case <-l.closed:
		l.turn <- struct{}{}
		return nil, fmt.Errorf("%s: %w", l.path, ErrClosed)
	default:
	}
	if err := l.lockFile(ctx); err != nil {
		l.turn <- struct{}{}
		return nil, fmt.Errorf("%s: %w", l.path, err)
	}
	return sync.OnceValue(func() error {
		err := flock(l.f, unix.LOCK_UN)
		l.turn <- struct{}{}
		if err != nil {
			return fmt.Errorf("%s: unlock: %w", l.path, err)
		}
		return nil
	}), nil
}

// takeTurn waits for the turn among the goroutines of this process.
func (l *Lock) takeTurn(ctx context.Context) error {
	select {
	case <-l.turn:
		return nil
	default:
	}
	defer Waits(ctx, l.path)()
	select {
	case <-l.closed:
		return fmt.Errorf("%s: %w", l.path, ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	case <-l.turn:
		return nil
	}
}

// lockFile locks the file; the caller has the turn. A file that was removed
// meanwhile guards nothing any more, so the file that is at its path now is locked
// instead.
func (l *Lock) lockFile(ctx context.Context) error {
	for {
		if err := l.wait(ctx); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
			return err
		}
		if st.Nlink > 0 {
			return nil
		}
		f, err := open(l.path, l.group)
		if err != nil {
			_ = flock(l.f, unix.LOCK_UN)
			return err
		}
		_ = l.f.Close() // unlocks it too
		l.f = f
	}
}

// wait waits for the file's lock; the caller has the turn.
func (l *Lock) wait(ctx context.Context) error {
	if l.waiter == nil || !l.waiter.adopt() {
		l.waiter = nil
		if err := flock(l.f, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		l.waiter = startWaiter(l.f)
	}
	defer Waits(ctx, l.path)()
	var ended error
	select {
	case err := <-l.waiter.done:
		l.waiter = nil
		return err
	case <-ctx.Done():
		ended = ctx.Err()
	case <-l.closed:
		ended = ErrClosed
	}
	l.waiter.abandon()
	return ended
}

// Close waits for the holder in this process, if any, and gives the descriptor
// back. The file stays. Close may be called again.
func (l *Lock) Close() (err error) {
	l.closeOnce.Do(func() {
		close(l.closed)
		<-l.turn
		err = l.f.Close()
		l.turn <- struct{}{}
	})
	return err
}

// open opens the lock file for reading, which is all that its mode allows.
func open(path string, group int) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fileMode, dirMode := fs.FileMode(0o440), fs.FileMode(0o770)
	if group == NoGroup {
		fileMode, dirMode = 0o400, 0o700
	}
	for {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			return regular(f)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		dir := filepath.Dir(path) // the token's, in that of all locks
		for _, dir := range []string{filepath.Dir(dir), dir} {
			if err := MakeDirectory(dir, dirMode, group); err != nil {
				return nil, err
			}
		}
		f, err = os.OpenFile(path, flags|unix.O_CREAT|unix.O_EXCL, fileMode)
		if errors.Is(err, fs.ErrExist) {
			continue // somebody was faster: take theirs
		}
		if err != nil {
			return nil, err
		}
		if err := own(f, fileMode, group); err != nil {
			_ = f.Close()
			return nil, err
		}
		return f, nil
	}
}

// regular returns f if it is a regular file, else it closes it.
func regular(f *os.File) (*os.File, error) {
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// own gives f its mode whatever the umask, and its group as far as we may: stock
// processes are as lenient.
func own(f *os.File, mode fs.FileMode, group int) error {
	if group != NoGroup {
		if err := f.Chown(-1, group); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return f.Chmod(mode)
}

// MakeDirectory makes dir, if it is absent, with its mode and group whatever the umask
// is. Directories above it are made open to all, or to nobody else if dir is so. The
// group has to be given, and no link is followed that somebody puts in its place
// meanwhile.
func MakeDirectory(dir string, mode fs.FileMode, group int) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%s is no directory: move it away, or name another place", dir)
		}
		return nil
	}
	above := fs.FileMode(0o755)
	if mode == 0o700 {
		above = mode
	}
	if err := MakeDirectory(filepath.Dir(dir), above, NoGroup); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); errors.Is(err, fs.ErrExist) {
		return nil // somebody was faster
	} else if err != nil {
		return err
	}
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if group != NoGroup {
		if err := f.Chown(-1, group); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}
