package rpc

import (
	"bufio"
	"context"

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

	watch watch
}

func newReader(c *conn, r *bufio.Reader, end func()) *reader {
	return &reader{conn: c, r: r, end: end}
}

// run reads until the connection ends, or another reader goes on.
func (l *reader) run(ctx context.Context) {
	l.watch.init(l.conn.branch, l.conn.unbranch, func() { newReader(l.conn, l.r, l.end).run(ctx) })
	var (
		c     = l.conn
		in    = make([]byte, 0, 4<<10)
		out   []byte
		multi bool // the client has calls of several threads in flight
	)
	for {
		code, body, ok := c.next(l.r, in)
		if !ok {
			l.watch.stop()
			l.end()
			return
		}
		own := cap(body) > cap(in) // the body is not the loop's buffer
		if code == wire.RoadNudge && c.road != nil {
			c.road.nudge(ctx)
			c.done(body, own)
			continue
		}
		call := callOf(body)
		multi = multi || l.r.Buffered() > 0
		goOn := true
		// A call is answered by this goroutine, which is awake already, unless it
		// may take long or others wait behind it: to wake another one costs more
		// than most calls. A client that sends much and reads nothing is stopped
		// here, where a reply of this goroutine finds no room.
		switch {
		case call == wire.CallRoad && c.protocol == wire.Own:
			c.giveRoad(code)
		case (multi || slow(call)) && c.branch():
			if !own {
				body = append([]byte(nil), body...)
				secret.Wipe(in[:cap(in)])
			}
			c.wg.Go(func() {
				c.send(code, c.handle(ctx, nil, code, body))
				c.done(body, own)
				c.unbranch()
			})
			continue
		case call == wire.CallWaitForSlotEvent: // the loop cannot wait
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
		default:
			c.wg.Add(1)
			n := l.watch.begin()
			out = c.handle(ctx, out[:0], code, body)
			goOn = l.watch.end(n)
			c.send(code, out)
			c.wg.Done()
		}
		c.done(body, own)
		if !goOn {
			c.unbranch()
			return
		}
		if cap(out) > 64<<10 {
			out = nil
		}
	}
}
