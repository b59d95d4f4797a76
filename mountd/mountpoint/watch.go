package mountpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Watch tells when a file system is mounted nowhere that this process sees.
// FUSE does not: a mount namespace that was made meanwhile has a copy of the mount, and
// the server hears of the end only when that one goes, too.
type Watch struct {
	gone chan struct{}
	list *os.File // the kernel's list, which poll(2) says the changes of
	stop *os.File // an eventfd
	// The mount's own number will not do: the kernel gives it to the next
	// mount. The file system keeps its own while any copy of it is mounted.
	device string
	close  sync.Once
	wg     sync.WaitGroup
}

// NewWatch watches the p11fs mount on path, which Resolve has returned. The
// caller closes it.
func NewWatch(path string) (*Watch, error) {
	list, err := os.Open(mountinfo)
	if err != nil {
		return nil, err
	}
	w := &Watch{gone: make(chan struct{}), list: list}
	mounts, err := w.read()
	for _, m := range mounts { // the last one covers those before it
		if m.Path == path && m.Type == Type {
			w.device = m.Device
		}
	}
	if err == nil && w.device == "" {
		err = fmt.Errorf("no p11fs mount is on %s", path)
	}
	var fd int
	if err == nil {
		fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err != nil {
		return nil, errors.Join(err, list.Close())
	}
	w.stop = os.NewFile(uintptr(fd), "eventfd")
	w.wg.Go(w.run)
	return w, nil
}

// Gone is closed when the mount is not there any more.
func (w *Watch) Gone() <-chan struct{} { return w.gone }

// Close ends the watch; a mount that is there then counts as there. It may be
// called again.
func (w *Watch) Close() (err error) {
	w.close.Do(func() {
		_, err = w.stop.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0})
		w.wg.Wait()
		err = errors.Join(err, w.stop.Close(), w.list.Close())
	})
	return err
}

func (w *Watch) run() {
	fds := []unix.PollFd{
		{Fd: int32(w.list.Fd()), Events: unix.POLLPRI},
		{Fd: int32(w.stop.Fd()), Events: unix.POLLIN},
	}
	for {
		// The list is read before it is waited for: what happened since it was
		// opened is a change, too.
		mounts, err := w.read()
		if err == nil && !slices.ContainsFunc(mounts, func(m Mount) bool { return m.Device == w.device }) {
			close(w.gone)
			return
		}
		for {
			_, err := unix.Poll(fds, -1)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EINTR) {
				return // nothing can be said then
			}
		}
		if fds[1].Revents != 0 {
			return
		}
	}
}

func (w *Watch) read() ([]Mount, error) {
	if _, err := w.list.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(w.list)
	if err != nil {
		return nil, err
	}
	return parse(string(b)), nil
}
