package slotd

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// clients counts those that are waited for, by uid.
type clients struct {
	most int // together

	mu  sync.Mutex // guards all below
	all int
	of  map[uint32]int
}

func newClients() *clients {
	w := &clients{most: maxClients, of: make(map[uint32]int)}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		w.most = int(max(2, min(maxClients, limit.Cur/8)))
	}
	return w
}

// enter counts one more, unless there are too many.
func (w *clients) enter(uid uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= w.most || w.of[uid] >= w.most/2 {
		return false
	}
	w.all++
	w.of[uid]++
	return true
}

func (w *clients) leave(uid uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.of[uid]--; w.of[uid] == 0 {
		delete(w.of, uid)
	}
}

// sendNow sends what of b the socket takes without waiting, and returns the rest.
func sendNow(c *net.UnixConn, b []byte) (rest []byte, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return b, err
	}
	e := raw.Write(func(fd uintptr) bool {
		for len(b) > 0 && err == nil {
			var n int
			n, err = unix.Write(int(fd), b)
			switch {
			case errors.Is(err, unix.EINTR):
				err = nil
			case err == nil:
				b = b[n:]
			}
		}
		return true
	})
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return b, errors.Join(err, e)
}

// peerUID is the uid of the other end, if it is known.
func peerUID(c *net.UnixConn) (uid uint32, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, known = cred.Uid, true
		}
	})
	return uid, known
}
