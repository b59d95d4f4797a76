package rpc

import (
	"bufio"
	"context"
	"math"
	"sync/atomic"
	"time"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// A reader reads the requests of a connection and answers most of them itself. A token
// may take seconds for one, and the client may cancel it meanwhile, or go away:
// another reader then goes on reading.
type reader struct {
	conn *conn
	r    *bufio.Reader
	end  func() // called at the end of the connection

	// calls is twice the number of calls that the reader has answered, and one more
	// while it answers one; handedOver once another reader goes on.
	calls    atomic.Uint64
	watch    *time.Timer   // calls look
	watching atomic.Bool   // watch runs, as it does until it finds nothing new
	seen     atomic.Uint64 // calls, when watch last looked
}

const handedOver = math.MaxUint64

// watchTime is how often the watch looks: a call that it sees twice takes long. To set
// a timer for each call would cost more than some of them.
const watchTime = 2 * time.Millisecond

func newReader(c *conn, r *bufio.Reader, end func()) *reader {
	return &reader{conn: c, r: r, end: end}
}

// run reads until the connection ends, or another reader goes on.
func (l *reader) run(ctx context.Context) {
	l.watch = time.AfterFunc(math.MaxInt64, func() { l.look(ctx) })
	var (
		c     = l.conn
		in    = make([]byte, 0, 4<<10)
		out   []byte
		multi bool // the client has calls of several threads in flight
	)
	for {
		code, body, ok := c.next(l.r, in)
		if !ok {
			l.watch.Stop()
			l.end()
			return
		}
		own := cap(body) > cap(in) // the body is not the loop's buffer
		call := callOf(body)
		multi = multi || l.r.Buffered() > 0
		goOn := true
		// A call is answered by this goroutine, which is awake already, unless it
		// may take long or others wait behind it: to wake another one costs more
		// than most calls. A client that sends much and reads nothing is stopped
		// here, where a reply of this goroutine finds no room.
		switch {
		case (multi || slow(call)) && c.branch():
			if !own {
				body = append([]byte(nil), body...)
				secret.Wipe(in[:cap(in)])
			}
			c.wg.Go(func() {
				c.send(code, c.handle(ctx, nil, code, body))
				c.done(body, own)
				c.user.calls.Add(-1)
			})
			continue
		case call == wire.CallWaitForSlotEvent: // the loop cannot wait
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
		default:
			n := l.begin()
			out = c.handle(ctx, out[:0], code, body)
			goOn = l.calls.CompareAndSwap(n, n+1)
			c.send(code, out)
			c.wg.Done()
		}
		c.done(body, own)
		if !goOn {
			c.user.calls.Add(-1)
			return
		}
		if cap(out) > 64<<10 {
			out = nil
		}
	}
}

// begin counts a call, and has it watched. It returns the count.
func (l *reader) begin() uint64 {
	l.conn.wg.Add(1)
	n := l.calls.Add(1)
	if !l.watching.Load() {
		l.watching.Store(true)
		l.watch.Reset(watchTime)
	}
	return n
}

// look has another reader go on, in its own goroutine, if the call in progress takes
// long.
func (l *reader) look(ctx context.Context) {
	c := l.conn
	n := l.calls.Load()
	switch {
	case n == handedOver:
		return
	case n != l.seen.Load():
		l.seen.Store(n)
	case n%2 == 0: // nothing to watch
		l.watching.Store(false)
		if l.calls.Load() == n {
			return
		}
		l.watching.Store(true) // a call that was begun meanwhile may count on it
	case c.branch():
		if l.calls.CompareAndSwap(n, handedOver) {
			newReader(c, l.r, l.end).run(ctx)
			return
		}
		c.user.calls.Add(-1) // the call has come back
	}
	l.watch.Reset(watchTime)
}
