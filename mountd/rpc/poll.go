package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/secret"
)

// pollTime is how long a read polls for the client's next request before it
// sleeps. To be woken up costs 5 to 30 µs at each end, which is more than most
// calls take, and a client that works in a loop sends its next request sooner. A
// read polls if the one before took less than quickTime, waking up included.
const (
	pollTime  = 20 * time.Microsecond
	quickTime = 100 * time.Microsecond
)

// If sched_yield takes yieldTime or more, others want the processor, or the process
// has used up its share. Then this connection does not poll for minRest, and for
// twice as long each time that it happens again soon, up to maxRest.
const (
	yieldTime = 500 * time.Microsecond
	minRest   = time.Millisecond
	maxRest   = 128 * time.Millisecond
)

// parkTime is how often a connection that polls waits in the runtime all the same,
// with input there that wakes it at once. While no goroutine waits there, the
// runtime looks for input of other connections every 10 ms only.
const parkTime = 100 * time.Microsecond

// pollers bounds how many reads poll at once, so that processors are left for work.
type pollers struct {
	most int32
	now  atomic.Int32
}

// newPollers allows one for every two processors, and none on a single one: the
// client could not run meanwhile.
func newPollers(processors int) *pollers {
	return &pollers{most: int32(processors / 2)}
}

// newLookers allows one for every processor, since who looks yields to the clients' threads
// and to what else the daemon does; and none on a single one.
func newLookers(processors int) *pollers {
	if processors == 1 {
		return &pollers{}
	}
	return &pollers{most: int32(processors)}
}

func (p *pollers) enter() bool {
	if p.now.Add(1) <= p.most {
		return true
	}
	p.leave()
	return false
}

func (p *pollers) leave() { p.now.Add(-1) }

// rests are when a connection does not poll, since others want the processor.
type rests struct {
	began time.Time    // what until counts from
	rest  atomic.Int64 // how long the last one is, in nanoseconds
	until atomic.Int64 // when it ends
}

func newRests() rests { return rests{began: time.Now()} }

// now reports whether t is in a rest.
func (r *rests) now(t time.Time) bool { return int64(t.Sub(r.began)) < r.until.Load() }

// giveWay lets other threads run on this processor. It returns the time after that,
// and whether there were any who took it for long: a rest begins then.
func (r *rests) giveWay() (t time.Time, gave bool) {
	t, took := yield()
	if took < yieldTime {
		return t, false
	}
	r.begin(t)
	return t, true
}

// yield lets other threads run on this processor. It returns the time after that, and how
// long they had it.
func yield() (t time.Time, took time.Duration) {
	before := time.Now()
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // always succeeds
	t = time.Now()
	return t, t.Sub(before)
}

// begin begins a rest.
func (r *rests) begin(t time.Time) {
	rest, since := time.Duration(r.rest.Load()), t.Sub(r.began)
	if since-time.Duration(r.until.Load()) > 16*rest {
		rest = minRest
	} else {
		rest = min(2*rest, maxRest)
	}
	r.rest.Store(int64(rest))
	r.until.Store(int64(since + rest))
}

// input reads a connection. A client that is slow costs nothing.
type input struct {
	socket  *net.UnixConn
	account *engine.Account
	raw     syscall.RawConn
	pollers *pollers
	quick   bool // the last read took less than quickTime
	rests   rests
	parked  time.Time // when it last had the runtime look for input
	still   bool      // the client has a road, and polling is done there

	frameTime time.Duration
	inFrame   bool // the client has begun to send what is awaited
	deadline  bool // one is set

	skips   int64      // how many bytes are read that nobody wants
	skipped *sync.Pool // of the server

	attempt func(fd uintptr) bool // in.read, made once
	buf     []byte
	n       int
	err     error
}

// newInput returns the input of a connection. What a client has begun to send it
// sends whole within frameTime.
func newInput(c *net.UnixConn, a *engine.Account, p *pollers, s *sync.Pool, frameTime time.Duration) (*input, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	in := &input{socket: c, account: a, raw: raw, pollers: p, skipped: s, rests: newRests(), frameTime: frameTime}
	in.attempt = in.read
	return in, nil
}

// begun says whether the client has begun to send what is read next.
func (in *input) begun(yes bool) {
	in.inFrame = yes
	if in.deadline {
		_ = in.socket.SetReadDeadline(time.Time{}) // it fails if the socket is closed, which the next read says
		in.deadline = false
	}
}

// Read implements io.Reader.
func (in *input) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if in.inFrame && !in.deadline {
		if err := in.socket.SetReadDeadline(time.Now().Add(in.frameTime)); err != nil {
			return 0, err
		}
		in.deadline = true
	}
	began := time.Now()
	in.buf = b
	err := in.raw.Read(in.attempt)
	in.buf = nil
	in.quick = !in.still && time.Since(began) < quickTime
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

// read reads what there is. It returns false if there is nothing yet, and the
// runtime waits.
func (in *input) read(fd uintptr) bool {
	if in.once(fd) {
		return true
	}
	if in.quick {
		look := in.once
		due := time.Since(in.parked) >= parkTime
		if due {
			look = in.peek
		}
		// If it is due, what was found is left in the socket and the runtime
		// wakes us for it.
		if in.poll(fd, look) && !due {
			return true
		}
	}
	in.parked = time.Now()
	return false
}

// poll calls look until it finds something, for pollTime at most.
func (in *input) poll(fd uintptr, look func(fd uintptr) bool) bool {
	began := time.Now()
	if in.rests.now(began) || !in.pollers.enter() {
		return false
	}
	defer in.pollers.leave()
	for t := began; t.Sub(began) < pollTime; {
		var gave bool
		if t, gave = in.rests.giveWay(); gave {
			return false
		}
		if look(fd) {
			return true
		}
	}
	return false
}

// peek reports whether there is anything to read, or the end.
func (in *input) peek(fd uintptr) bool {
	for {
		_, _, err := unix.Recvfrom(int(fd), in.buf[:1], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return !errors.Is(err, unix.EAGAIN)
		}
	}
}

func (in *input) once(fd uintptr) bool {
	buf := in.buf
	if max(int64(len(buf)), in.skips) >= wire.LongRead { // a shorter one costs less than a turn
		defer in.account.Turn(context.Background()).End() // it has an end of its own
	}
	if in.skips > 0 {
		p, ok := in.skipped.Get().(*skipped)
		if !ok {
			p = new(skipped)
		}
		defer in.skipped.Put(p)
		buf = p[:min(in.skips, wire.LongRead)]
		defer func() { secret.Wipe(buf[:max(0, in.n)]) }()
	}
	for {
		in.n, in.err = unix.Read(int(fd), buf)
		if errors.Is(in.err, unix.EINTR) {
			continue
		}
		return !errors.Is(in.err, unix.EAGAIN)
	}
}

// skipped is what bytes are read into that nobody wants. A connection has it only while it
// reads: who announces many bytes and does not send them holds none.
type skipped [wire.LongRead]byte

// skip reads n bytes and throws them away.
func (in *input) skip(n int64) error {
	var unused [1]byte // where a look at what there is goes
	defer func() { in.skips = 0 }()
	for in.skips = n; in.skips > 0; {
		got, err := in.Read(unused[:])
		if err != nil {
			return err
		}
		in.skips -= int64(got)
	}
	return nil
}
