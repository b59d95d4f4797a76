package locks

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A waiter is a thread that waits for a file's lock in the kernel. It is woken as
// soon as the lock is free. To try again and again would not do: a stock process that
// works in a loop leaves the lock free for some microseconds at a time.
//
// A thread that waits in flock(2) cannot be interrupted. When its caller gives up, it
// goes on waiting, and the next caller uses the same waiter. Meanwhile nobody else
// locks the same open file, since the kernel takes both for one holder.
type waiter struct {
	f    *os.File
	done chan error // gets the result of flock

	mu        sync.Mutex // guards the below
	abandoned bool       // the caller has given up
	ended     bool
}

func startWaiter(f *os.File) *waiter {
	w := &waiter{f: f, done: make(chan error, 1)}
	go w.run()
	return w
}

func (w *waiter) run() {
	err := flock(w.f, unix.LOCK_EX)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.done <- err
	if w.abandoned {
		w.drop()
	}
}

// abandon gives up: the lock is given back when it comes.
func (w *waiter) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.abandoned = true; w.ended {
		w.drop()
	}
}

// adopt takes over a waiter whose caller gave up. False: it has ended, and has given
// the lock back.
func (w *waiter) adopt() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.abandoned = false
	return !w.ended
}

// drop gives the lock back, if it came.
func (w *waiter) drop() {
	if err := <-w.done; err == nil {
		// If it fails the descriptor is closed, and the lock gone with it.
		_ = flock(w.f, unix.LOCK_UN)
	}
}

// flock is flock(2). The descriptor is f's throughout, though f may be closed
// meanwhile.
func flock(f *os.File, how int) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		for {
			if failed = unix.Flock(int(fd), how); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}
