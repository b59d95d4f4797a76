package rpc

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pollTime is how long a read looks for a client's next request before it
// sleeps. Waking up costs 5 to 30 µs at each end, more than most calls, and a
// client in a loop sends its next request in less than that.
const pollTime = 100 * time.Microsecond

// pollers bounds how many reads poll at once, so that there are processors left
// for who has work.
type pollers struct {
	most int32
	now  atomic.Int32
}

// newPollers allows one for every two processors, and none on a single one: the
// client could not run meanwhile.
func newPollers() *pollers {
	return &pollers{most: int32(runtime.GOMAXPROCS(0) / 2)}
}

func (p *pollers) enter() bool {
	if p.now.Add(1) <= p.most {
		return true
	}
	p.leave()
	return false
}

func (p *pollers) leave() { p.now.Add(-1) }

// input reads a connection. It polls after a request that came within pollTime,
// so a client that takes its time costs nothing.
type input struct {
	raw     syscall.RawConn
	pollers *pollers
	brisk   bool // the last read took less than pollTime

	attempt func(fd uintptr) bool // read as a value, which is made once
	buf     []byte
	n       int
	err     error
}

func newInput(c *net.UnixConn, p *pollers) (*input, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	in := &input{raw: raw, pollers: p}
	in.attempt = in.read
	return in, nil
}

// Read implements io.Reader.
func (in *input) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	began := time.Now()
	in.buf = b
	err := in.raw.Read(in.attempt)
	in.buf = nil
	in.brisk = time.Since(began) < pollTime
	switch {
	case err != nil:
		return 0, err
	case in.err != nil:
		return 0, in.err
	case in.n == 0:
		return 0, io.EOF
	}
	return in.n, nil
}

// read reads what there is; false means that there is nothing yet, and lets the
// caller sleep.
func (in *input) read(fd uintptr) bool {
	if in.once(fd) {
		return true
	}
	if !in.brisk || !in.pollers.enter() {
		return false
	}
	defer in.pollers.leave()
	in.brisk = false // what wakes this read later is no reason to poll again
	for began := time.Now(); time.Since(began) < pollTime; {
		runtime.Gosched() // other connections' calls come first
		if in.once(fd) {
			return true
		}
	}
	return false
}

func (in *input) once(fd uintptr) bool {
	for {
		in.n, in.err = unix.Read(int(fd), in.buf)
		if errors.Is(in.err, unix.EINTR) {
			continue
		}
		return !errors.Is(in.err, unix.EAGAIN)
	}
}
