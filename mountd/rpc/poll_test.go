package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/engine"
)

func TestPollersAreBounded(t *testing.T) {
	p := &pollers{most: 1}
	if !p.enter() || p.enter() {
		t.Fatal("not one at a time")
	}
	p.leave()
	if !p.enter() {
		t.Fatal("a place that was left is not free")
	}
	if newPollers(1).enter() || newLookers(1).enter() {
		t.Fatal("polls on the only processor")
	}
}

// A read that polls finds what one that sleeps finds: bytes, the end, a close.
func TestInput(t *testing.T) {
	for _, most := range []int32{0, 1} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		here, there := unixConn(t, fds[0]), unixConn(t, fds[1])
		p := &pollers{most: most}
		e, err := engine.New(engine.Config{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := newInput(here, e.Account(0), p, &sync.Pool{}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		for i := range 1000 {
			in.quick = true
			go func() { _, _ = there.Write([]byte{byte(i)}) }() // an error shows at the read
			if n, err := in.Read(b); n != 1 || err != nil || b[0] != byte(i) {
				t.Fatalf("read %d: %d bytes %v, %v", i, n, b[:n], err)
			}
		}
		in.quick = true
		if err := there.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(b); !errors.Is(err, io.EOF) {
			t.Fatalf("after the peer's close: %v", err)
		}
		if err := here.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("after our close: %v", err)
		}
		if left := p.now.Load(); left != 0 {
			t.Fatalf("%d still poll", left)
		}
	}
}

func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}
