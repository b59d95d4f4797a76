package slotd

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSlowClients: clients that do not read hold up nobody else, and end the wait of
// none but their own uid's.
func TestSlowClients(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	most := newClients().most
	var slow []net.Conn
	for range most {
		c, err := net.Dial("unix", r.conf.Socket)
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	read := func() []byte {
		t.Helper()
		c, err := net.Dial("unix", r.conf.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(sendTimeout / 2)); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("a client is held up by slow ones: %v", err)
		}
		return b
	}
	// One more is closed before it has read all: one that reads meanwhile is not slow.
	c, err := net.Dial("unix", r.conf.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !hungUp(t, c.(*net.UnixConn)) {
		t.Error("one uid has more slow clients than it may")
	}
	for _, c := range slow {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for end := time.Now().Add(sendTimeout / 2); !bytes.Equal(read(), Reply(r.conf.Slots)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no reply after the slow clients have gone")
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// hungUp reports whether the server closes a connection of which nothing is read.
func hungUp(t *testing.T, c *net.UnixConn) (closed bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(sendTimeout / 2); !closed && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err := raw.Control(func(fd uintptr) {
			events := []unix.PollFd{{Fd: int32(fd)}}
			n, _ := unix.Poll(events, 0)
			closed = n == 1 && events[0].Revents&unix.POLLHUP != 0
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return closed
}

// TestClientsOfOneUID: one uid leaves room for others.
func TestClientsOfOneUID(t *testing.T) {
	w := newClients()
	n := 0
	for w.enter(1) {
		n++
	}
	if n == 0 || n > w.most/2 || !w.enter(2) {
		t.Errorf("uid 1 has %d of %d", n, w.most)
	}
	for range n {
		w.leave(1)
	}
	if w.leave(2); w.all != 0 || len(w.of) != 0 {
		t.Errorf("%d are left: %v", w.all, w.of)
	}
}
