package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
)

// How long a start waits for a daemon that is just ending, and how often it
// looks.
const (
	guardWait = 3 * time.Second
	guardPoll = 20 * time.Millisecond
)

// takeGuard locks the file at path for the life of the daemon, so that two daemons
// never serve the tokens in data, and writes the daemon's pid into it, which a second
// one names when it is refused. release unlocks it; the file stays. The kernel unlocks
// it too when the process dies, so no guard is ever stale.
func takeGuard(ctx context.Context, path, data string) (release func() error, err error) {
	f, err := lockAlone(ctx, path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, func() string {
		holder, _ := os.ReadFile(path)
		return fmt.Sprintf("another p11fs (process %s) serves %s", strings.TrimSpace(string(holder)), data)
	})
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the daemon's lock: %w", err), f.Close())
	}
	return f.Close, nil
}

// guardDirectory locks a directory itself, for what the daemon does with it.
func guardDirectory(ctx context.Context, dir, does string) (release func() error, err error) {
	f, err := lockAlone(ctx, dir, os.O_RDONLY|unix.O_DIRECTORY, func() string { return "another p11fs " + does + " " + dir })
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// lockAlone opens a file or a directory, which is locked for as long as it is open.
// busy says what is going on with it where somebody else has it.
func lockAlone(ctx context.Context, path string, flags int, busy func() string) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the daemon's lock: %w", err)
	}
	if st, serr := f.Stat(); serr == nil && !st.Mode().IsRegular() && !st.IsDir() {
		err = fmt.Errorf("the daemon's lock %s is no regular file: remove it", path)
	} else if err = waitFlock(ctx, f); errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s: %w", busy(), ErrBusy)
	} else if err != nil {
		err = fmt.Errorf("the daemon's lock %s: %w", path, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holder names who holds the lock of the file at path: any program may, of who may open it.
func holder(path string) string {
	pid, err := locks.Holder("/proc", path)
	if err != nil || pid <= 0 { // it is in another container, or has just ended
		return "another p11fs"
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	command, _ := os.ReadFile(filepath.Join(dir, "comm")) // it may have gone
	who := "of somebody"
	if st, err := os.Stat(dir); err == nil {
		who = fmt.Sprintf("of uid %d", st.Sys().(*syscall.Stat_t).Uid)
	}
	return fmt.Sprintf("process %d %s, which is called %q,", pid, who, strings.TrimSpace(string(command)))
}

// waitFlock takes an exclusive flock, waiting a little for one who ends.
func waitFlock(ctx context.Context, f *os.File) error {
	deadline := time.Now().Add(guardWait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(guardPoll):
		}
	}
}
