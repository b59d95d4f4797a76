package slotd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"p11fs/shm"
)

// alone waits until no stock daemon runs. One that was about to start is refused and
// ends soon; one that stays was there first, and is an error.
func (d *Daemon) alone(ctx context.Context) error {
	for deadline := time.Now().Add(rivalWait); ; {
		pid, ok := d.conf.findRival()
		switch {
		case !ok:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w: pkcsslotd with process id %d; stop it first (systemctl stop pkcsslotd, or kill %[2]d)", ErrRunning, pid)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rivalPoll):
		}
	}
}

// Lost is nil while stock clients that start come to this daemon. Otherwise it wraps
// ErrLost, and tells what is lost, to whom, and what to do.
func (d *Daemon) Lost() error {
	var lost []string
	if !d.socketIsOurs() {
		lost = append(lost, "the socket")
	}
	key, err := shm.Key(d.conf.File)
	var id int
	if err == nil {
		id, err = shm.SlotManagerID(key)
	}
	if err != nil || id != d.segmentID {
		lost = append(lost, "the shared memory")
	}
	if lost == nil {
		return nil
	}
	what := strings.Join(lost, " and ")
	if pid, ok := d.conf.findRival(); ok {
		return fmt.Errorf("%w: pkcsslotd with process id %d took %s; stop it (systemctl stop pkcsslotd, or kill %[2]d), then restart p11fs", ErrLost, pid, what)
	}
	if key != d.key {
		return fmt.Errorf("%w: %s is another file now, and clients find the shared memory by it; restart p11fs", ErrLost, d.conf.File)
	}
	return fmt.Errorf("%w: somebody took away %s; restart p11fs", ErrLost, what)
}

// socketIsOurs reports whether clients of the socket's path come to this daemon.
func (d *Daemon) socketIsOurs() bool {
	st, err := os.Lstat(d.conf.Socket)
	return err == nil && d.socket != nil && os.SameFile(st, d.socket)
}

// Unrefusable is why a stock daemon that is started beside this one would take
// its place: it wraps ErrNoRefusal. It is nil while one is refused.
func (d *Daemon) Unrefusable() error {
	d.refusing.Lock()
	defer d.refusing.Unlock()
	return d.unrefusable
}

func (d *Daemon) setUnrefusable(err error) {
	d.refusing.Lock()
	defer d.refusing.Unlock()
	d.unrefusable = err
}
