package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// conn is one connection.
type conn struct {
	server  *Server
	socket  *net.UnixConn
	peer    Peer
	user    *user
	refused error

	protocol wire.Protocol
	state    state

	write sync.Mutex // orders replies; nothing is locked under it
	wg    sync.WaitGroup
}

// run serves the connection until the client closes it.
func (c *conn) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		c.wg.Wait()
		c.state.finalize()
		_ = c.socket.Close() // nothing is left to be said
	}()
	r, err := c.greet()
	if err != nil {
		return // the client went away, or the server ends
	}
	c.state.init(c)
	var (
		in    = make([]byte, 0, 4<<10)
		out   []byte
		multi bool // the client has calls of several threads in flight
	)
	for {
		code, body, ok := c.next(r, in)
		if !ok {
			return
		}
		own := cap(body) > cap(in) // the body is not the loop's buffer
		call := callOf(body)
		multi = multi || r.Buffered() > 0
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
				c.answer(ctx, nil, code, body)
				c.done(body, own)
				c.user.calls.Add(-1)
			})
			continue
		case call == wire.CallWaitForSlotEvent: // the loop cannot wait
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
		default:
			out = c.answer(ctx, out[:0], code, body)
		}
		c.done(body, own)
		if cap(out) > 64<<10 {
			out = nil
		}
	}
}

// greet agrees with the client on the protocol. It returns what requests come from.
func (c *conn) greet() (*bufio.Reader, error) {
	socket, err := newInput(c.socket, c.server.pollers)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(socket, 4<<10)
	offered, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	c.protocol = wire.Protocol(offered)
	_, err = c.socket.Write([]byte{c.protocol.Answer()})
	return r, err
}

// next reads the next request, into in if it fits there, and answers those that are
// too long. ok is false at the end.
func (c *conn) next(r *bufio.Reader, in []byte) (code uint32, body []byte, ok bool) {
	for {
		granted := 0
		code, body, err := wire.ReadFrame(r, in, func(n int) bool {
			if !c.allow(n) {
				return false
			}
			granted = n
			return true
		})
		switch {
		case err == nil:
			return code, body, true
		case errors.Is(err, wire.ErrTooLong):
			c.reply(errorFrame(nil, code, p11.CKR_DATA_LEN_RANGE))
			continue
		case errors.Is(err, wire.ErrNotAllowed):
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
			continue
		}
		c.user.memory.Add(-int64(granted))
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
			c.server.config.Log.Info("RPC connection ends in the middle of a request", "uid", c.peer.UID, "pid", c.peer.PID, "err", err)
		}
		return 0, nil, false
	}
}

// branch grants a call a goroutine of its own.
func (c *conn) branch() bool {
	if c.user.calls.Add(1) <= c.server.config.MaxCalls {
		return true
	}
	c.user.calls.Add(-1)
	return false
}

// maxFreeReply is the longest reply whose memory is not counted.
const maxFreeReply = 4 << 10

// answer handles a call and sends its reply, for which b is a buffer.
func (c *conn) answer(ctx context.Context, b []byte, code uint32, body []byte) []byte {
	b = c.handle(ctx, b, code, body)
	n := len(b)
	switch {
	case n <= maxFreeReply:
		c.reply(b)
	case c.allow(n):
		c.reply(b)
		c.user.memory.Add(-int64(n))
	default:
		secret.Wipe(b)
		c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
	}
	return b
}

// allow grants memory for a long request or reply.
func (c *conn) allow(n int) bool {
	if c.user.memory.Add(int64(n)) <= c.server.config.MaxMemory {
		return true
	}
	c.user.memory.Add(-int64(n))
	return false
}

// done wipes a request, which may hold a PIN or a key, and gives its memory back.
func (c *conn) done(body []byte, own bool) {
	secret.Wipe(body)
	if own {
		c.user.memory.Add(-int64(len(body)))
	}
}

// reply sends a frame whole, and wipes it. If the client is gone, the next read
// finds out.
func (c *conn) reply(frame []byte) {
	c.write.Lock()
	_, _ = c.socket.Write(frame)
	c.write.Unlock()
	secret.Wipe(frame)
}

func errorFrame(b []byte, code uint32, rv p11.RV) []byte {
	b, start := wire.AppendFrame(b, code, "")
	w := wire.NewWriter(b, wire.V0)
	w.Header(uint32(wire.CallError), "u")
	w.Ulong(uint64(rv))
	if err := wire.EndFrame(w.B, start); err != nil {
		panic(err) // 20 bytes always fit
	}
	return w.B
}

func callOf(body []byte) wire.Call {
	call, _ := wire.NewReader(body, wire.V0).Header()
	return wire.Call(call)
}

// slow reports whether a call may take milliseconds, or wait.
func slow(call wire.Call) bool {
	switch call {
	case wire.CallWaitForSlotEvent, wire.CallGenerateKey, wire.CallGenerateKeyPair, wire.CallInitToken, wire.CallInitToken2,
		wire.CallInitPIN, wire.CallSetPIN, wire.CallLogin, wire.CallLoginUser, wire.CallCreateObject, wire.CallCopyObject,
		wire.CallDestroyObject, wire.CallSetAttributeValue, wire.CallUnwrapKey, wire.CallDeriveKey, wire.CallDeriveKey2:
		return true
	}
	return false
}
