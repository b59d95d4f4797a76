package slotd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// A refusal keeps a stock slot daemon from starting where ours serves. Stock does
// not look whether another one runs: it reads its configuration, and then removes
// the segment and the socket that it finds. The kernel asks us, by fanotify(7),
// whether a process may open that file. A rival may not: it says that it cannot
// read its configuration, and ends with nothing touched.
//
// Every process that opens a file in the configuration's directory waits for the
// answer. So one goroutine does nothing but answer: it opens no file there, takes no
// lock and does not log, and in any doubt the answer is yes. When this process dies,
// the kernel lets all of them go on.
type refusal struct {
	conf    Config
	group   *os.File // the fanotify group
	refused chan int // the processes that were refused, to be logged
	wg      sync.WaitGroup
}

// ErrNoRefusal means that this process cannot refuse a stock daemon that starts.
var ErrNoRefusal = errors.New("a stock slot daemon that starts cannot be refused")

// CanRefuse is nil, or why it cannot be told when a stock daemon starts.
func CanRefuse() error {
	group, err := fanotify()
	if err != nil {
		return err
	}
	// A kernel may be built without permission events. Nobody else opens this.
	fd, err := unix.MemfdCreate("p11fs", unix.MFD_CLOEXEC)
	if err != nil {
		return errors.Join(err, group.Close())
	}
	defer func() { _ = unix.Close(fd) }()
	return errors.Join(mark(group, fmt.Sprintf("/proc/self/fd/%d", fd), 0), group.Close())
}

func fanotify() (*os.File, error) {
	// Without O_NONBLOCK the kernel would wait for the other end of a pipe that
	// lies in the directory.
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK,
		unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_LARGEFILE)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%w: no CAP_SYS_ADMIN", ErrNoRefusal)
	case err != nil:
		return nil, fmt.Errorf("%w: fanotify: %w", ErrNoRefusal, err)
	}
	return os.NewFile(uintptr(fd), "fanotify"), nil
}

// mark has the group asked before path is opened, with FAN_EVENT_ON_CHILD what is
// in it.
func mark(group *os.File, path string, flags uint64) error {
	conn, err := group.SyscallConn()
	if err != nil {
		return err
	}
	errControl := conn.Control(func(fd uintptr) {
		err = unix.FanotifyMark(int(fd), unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM|flags, unix.AT_FDCWD, path)
	})
	if err = errors.Join(errControl, err); err != nil {
		return fmt.Errorf("%w: fanotify: %s: %w", ErrNoRefusal, path, err)
	}
	return nil
}

// refuse begins to refuse rivals.
func refuse(c Config) (*refusal, error) {
	group, err := fanotify()
	if err != nil {
		return nil, err
	}
	r := &refusal{conf: c, group: group, refused: make(chan int, 16)}
	if err := r.mark(); err != nil {
		return nil, errors.Join(err, group.Close())
	}
	r.wg.Add(2)
	go func() { defer r.wg.Done(); defer close(r.refused); r.answer() }()
	go func() {
		defer r.wg.Done()
		for pid := range r.refused {
			c.Log.Warn("a stock slot daemon was refused: it would have taken socket and shared memory away; to start it, stop this one first",
				"pid", pid, "stop", fmt.Sprintf("systemctl stop p11fs, or kill %d", os.Getpid()))
		}
	}()
	return r, nil
}

// mark marks the directory, so that a file that an editor puts in the place of the
// configuration is guarded at once, and the file itself, which may be in another
// directory by a link or a mount. It is called again for what was moved since.
func (r *refusal) mark() error {
	err := mark(r.group, filepath.Dir(r.conf.StockConf), unix.FAN_EVENT_ON_CHILD)
	if err == nil {
		err = mark(r.group, r.conf.StockConf, 0)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil // stock does not start without it either
	}
	return err
}

// close ends it: from now on the kernel asks nobody.
func (r *refusal) close() error {
	err := r.group.Close()
	r.wg.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil // by answer
	}
	return err
}

// answer answers the kernel until the group is closed. If questions cannot be read
// it closes the group itself, so that nobody waits for ever. A question for which
// this process had no descriptor left was answered by the kernel, with no.
func (r *refusal) answer() {
	const (
		header = unix.FAN_EVENT_METADATA_LEN
		size   = 4096
	)
	b := make([]byte, size)
	for {
		n, err := r.group.Read(b)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			continue
		}
		if err != nil {
			_ = r.group.Close() // closed already, or told by mark from now on
			return
		}
		for events := b[:n]; len(events) >= header; {
			e := events
			events = events[min(len(e), max(header, int(binary.NativeEndian.Uint32(e)))):]
			mask := binary.NativeEndian.Uint64(e[8:])
			fd, pid := int32(binary.NativeEndian.Uint32(e[16:])), int32(binary.NativeEndian.Uint32(e[20:]))
			if fd < 0 {
				continue // questions were lost, and answered by yes
			}
			if mask&unix.FAN_OPEN_PERM != 0 {
				r.reply(fd, r.allowed(int(fd), int(pid)))
			}
			_ = unix.Close(int(fd))
		}
	}
}

func (r *refusal) reply(fd int32, allowed bool) {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], uint32(fd))
	answer := uint32(unix.FAN_DENY)
	if allowed {
		answer = unix.FAN_ALLOW
	}
	binary.NativeEndian.PutUint32(b[4:], answer)
	_, _ = r.group.Write(b[:]) // the process that waited may be gone
}

// allowed decides about the file that fd is, opened by process pid; 0 is a
// process of a namespace that ours does not see.
func (r *refusal) allowed(fd, pid int) bool {
	if pid <= 0 || pid == os.Getpid() || !sameFile(fmt.Sprintf("/proc/self/fd/%d", fd), r.conf.StockConf) || !r.conf.rival(pid) {
		return true
	}
	select {
	case r.refused <- pid:
	default: // the log does not keep up
	}
	return false
}
