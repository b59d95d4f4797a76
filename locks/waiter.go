package locks

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A waiter is a thread that waits for a file's lock in the kernel. It is woken as
// soon as the lock is free: a stock process in a loop leaves it so for some
// microseconds at a time, which one that looks now and then seldom meets.
//
// Nothing calls the thread off. It waits on when its caller has given up, and the
// next caller takes it over. While there is one, nobody else may lock the same
// open file: the kernel would take both for one holder.
type waiter struct {
	f    *os.File
	done chan error // what came of it, for who wants it

	mu        sync.Mutex // guards the below
	abandoned bool       // nobody wants it
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

// abandon says that nobody wants the lock. It is given back when it comes.
func (w *waiter) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.abandoned = true; w.ended {
		w.drop()
	}
}

// adopt says that somebody wants the lock again. False means that the waiter has
// ended, without the lock.
func (w *waiter) adopt() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.abandoned = false
	return !w.ended
}

// drop gives back what came of it.
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
