package mountpoint

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch tells when a file system is mounted nowhere that this process sees.
// FUSE does not: a mount namespace that was made meanwhile has a copy of the mount, and
// the server hears of the end only when that one goes, too.
type Watch struct {
	gone chan struct{}
	// The descriptors of the kernel's list, whose changes poll(2) tells, and of an
	// eventfd. They are no os.File: the runtime's epoll would take the news of a
	// change, which the kernel tells once.
	list, stop int
	// The number of the file system, which it keeps while any copy of it is
	// mounted. That of the mount would be given to the next mount.
	device string
	path   string
	close  sync.Once
	wg     sync.WaitGroup
}

// NewWatch watches the p11fs mount on path, which Resolve has returned. The
// caller closes it.
func NewWatch(path string) (*Watch, error) {
	list, err := unix.Open(mountinfo, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mountinfo, err)
	}
	w := &Watch{gone: make(chan struct{}), list: list, path: path}
	there, err := w.find(func(mounts []Mount) bool {
		w.device = topOn(ours(mounts), path).Device
		return w.device != ""
	})
	if err == nil && !there {
		err = fmt.Errorf("no p11fs mount is on %s", path)
	}
	if err == nil {
		w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(list))
	}
	w.wg.Go(w.run)
	return w, nil
}

// Gone is closed when the mount is not there any more; never, where w is nil.
func (w *Watch) Gone() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.gone
}

// OnTop reports whether the path leads into the file system still: the mount was not
// moved, and nothing is mounted over it. In doubt it does.
func (w *Watch) OnTop() bool {
	mounts, err := List()
	return err != nil || topOn(mounts, w.path).Device == w.device
}

// Close ends the watch; a mount that is there then counts as there. It may be
// called again.
func (w *Watch) Close() (err error) {
	w.close.Do(func() {
		_, err = unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		w.wg.Wait()
		err = errors.Join(err, unix.Close(w.stop), unix.Close(w.list))
	})
	return err
}

func (w *Watch) run() {
	fds := []unix.PollFd{
		{Fd: int32(w.list), Events: unix.POLLPRI},
		{Fd: int32(w.stop), Events: unix.POLLIN},
	}
	for {
		// The list is read before it is waited for: what happened since it was
		// opened is a change, too.
		there, err := w.find(func(mounts []Mount) bool {
			return slices.ContainsFunc(mounts, func(m Mount) bool { return m.Device == w.device })
		})
		if err == nil && !there {
			close(w.gone)
			return
		}
		// Where something is mounted all the time, not all daemons are to read all of it.
		if poll(fds[1:], int(pause/time.Millisecond)) != nil || fds[1].Revents == 0 && poll(fds, -1) != nil {
			return // nothing can be said then
		}
		if fds[1].Revents != 0 {
			return
		}
	}
}

const (
	pause = 20 * time.Millisecond
	// tries bounds how often a list is read that changes all the time.
	tries = 100
)

// find reports whether the list has a mount. The kernel gives it in pieces, and a mount
// that goes between two may hide another, so one that is not found is not there only if
// nothing has changed since the reading was begun.
func (w *Watch) find(has func([]Mount) bool) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(w.list), Events: unix.POLLPRI}}
	for range tries {
		mounts, err := List()
		if err != nil || has(mounts) {
			return err == nil, err
		}
		if err := poll(fds, 0); err != nil {
			return false, err
		}
		if fds[0].Revents&unix.POLLPRI == 0 {
			return false, nil
		}
	}
	return false, errors.New("the list of mounts changes all the time")
}

func poll(fds []unix.PollFd, timeout int) error {
	for {
		if _, err := unix.Poll(fds, timeout); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
