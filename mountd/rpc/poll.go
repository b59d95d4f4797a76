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
// client in a loop, which looks for the reply, sends its next request in less than
// this. A read looks if the last one took less than briskTime, in which it may
// have woken up.
const (
	pollTime  = 20 * time.Microsecond
	briskTime = 100 * time.Microsecond
)

// A yield that takes yieldTime or more says that others want the processor, or
// that the process may have no more of it. Then nothing polls for a rest of
// minRest, twice as long each time that it soon happens again, up to maxRest.
const (
	yieldTime = 500 * time.Microsecond
	minRest   = time.Millisecond
	maxRest   = 128 * time.Millisecond
)

// parkTime is how often a connection that polls parks all the same, when there is
// input to wake it at once. Where no goroutine parks, the runtime looks for other
// connections' input every 10 ms only.
const parkTime = 100 * time.Microsecond

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

// input reads a connection. A client that takes its time costs nothing.
type input struct {
	raw     syscall.RawConn
	pollers *pollers
	brisk   bool          // the last read was quick enough for polling
	rest    time.Duration // how long the last rest from polling is
	rests   time.Time     // when it ends
	parked  time.Time     // when it last had the runtime look for input

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
	in.brisk = time.Since(began) < briskTime
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
// caller park.
func (in *input) read(fd uintptr) bool {
	if in.once(fd) {
		return true
	}
	if in.brisk {
		look := in.once
		due := time.Since(in.parked) >= parkTime
		if due {
			look = in.peek
		}
		// Nothing was there when the runtime was told to wait for it, so what
		// comes now wakes the caller.
		if in.poll(fd, look) && !due {
			return true
		}
	}
	in.parked = time.Now()
	return false
}

// poll looks for a while.
func (in *input) poll(fd uintptr, look func(fd uintptr) bool) bool {
	began := time.Now()
	if began.Before(in.rests) || !in.pollers.enter() {
		return false
	}
	defer in.pollers.leave()
	for t := began; t.Sub(began) < pollTime; {
		var gave bool
		if t, gave = in.giveWay(); gave {
			return false
		}
		if look(fd) {
			return true
		}
	}
	return false
}

// peek says whether there is anything to read, be it the end.
func (in *input) peek(fd uintptr) bool {
	for {
		_, _, err := unix.Recvfrom(int(fd), in.buf[:1], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return !errors.Is(err, unix.EAGAIN)
		}
	}
}

// giveWay lets other threads on this processor run, and says when they have, and
// whether there were any.
func (in *input) giveWay() (t time.Time, gave bool) {
	before := time.Now()
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // always succeeds
	t = time.Now()
	if t.Sub(before) < yieldTime {
		return t, false
	}
	if t.Sub(in.rests) > 16*in.rest {
		in.rest = minRest
	} else {
		in.rest = min(2*in.rest, maxRest)
	}
	in.rests = t.Add(in.rest)
	return t, true
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
