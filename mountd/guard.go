package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the daemon's lock: %w", err)
	}
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("the daemon's lock %s is no regular file: remove it", path)
	}
	if err := waitFlock(ctx, f); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another p11fs (process %s) serves %s: %w",
				strings.TrimSpace(string(holder)), data, ErrBusy)
		}
		return nil, fmt.Errorf("the daemon's lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the daemon's lock: %w", err)
	}
	return f.Close, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// guardDirectory locks a directory itself, for what the daemon does with it.
func guardDirectory(ctx context.Context, dir, does string) (release func() error, err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("locking a directory: %w", err)
	}
	if err := waitFlock(ctx, f); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another p11fs %s %s: %w", does, dir, ErrBusy)
		}
		return nil, fmt.Errorf("locking the directory %s: %w", dir, err)
	}
	return f.Close, nil
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
