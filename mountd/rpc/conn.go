package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/locks"
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
	account *engine.Account
	input   *input
	refused error
	cancel  context.CancelFunc // of all calls

	protocol wire.Protocol
	state    state
	road     *road // nil if the client has none; its reader's

	write sync.Mutex     // orders replies; nothing is locked under it
	wg    sync.WaitGroup // of calls
}

// run serves the connection until the client closes it, and then calls gone.
func (c *conn) run(ctx context.Context, gone func()) {
	end := func() {
		c.cancel()
		c.road.close()
		c.wg.Wait()
		c.road.free()
		c.state.finalize()
		_ = c.socket.Close() // nothing is left to be said
		gone()
	}
	r, err := c.greet()
	if err != nil {
		end() // the client went away, or the server ends
		return
	}
	c.state.init(c)
	newReader(c, r, func() {
		end()
		// Its memory has what the last requests held.
		r.Reset(zeros{})
		_, _ = r.Peek(r.Size())
	}).run(context.WithValue(ctx, locks.WaitsKey{}, locks.Noted(c.state.waitsForLock)))
}

// zeros gives zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// greet agrees with the client on the protocol. It returns what requests come from.
func (c *conn) greet() (*bufio.Reader, error) {
	var err error
	if c.input, err = newInput(c.socket, c.account, c.server.pollers, &c.server.skipped, c.server.config.FrameTime); err != nil {
		return nil, err
	}
	c.input.begun(true)
	r := bufio.NewReaderSize(c.input, 4<<10)
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
		c.input.begun(false)
		_, err := r.Peek(1)
		c.input.begun(true)
		if err == nil {
			code, body, err = wire.ReadFrame(r, in, &wire.Memory{Parts: &c.server.parts, Skip: c.input.skip, Allow: func(n int) bool {
				if c.account.Take(n) != nil {
					return false
				}
				granted += n
				return true
			}})
		}
		if err == nil {
			return code, body, true
		}
		c.account.Give(granted)
		switch {
		case errors.Is(err, wire.ErrTooLong):
			c.reply(errorFrame(nil, code, p11.CKR_DATA_LEN_RANGE))
			continue
		case errors.Is(err, wire.ErrNotAllowed):
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
			continue
		}
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

// unbranch takes the grant back.
func (c *conn) unbranch() { c.user.calls.Add(-1) }

// maxFreeReply is the longest reply whose memory is not counted.
const maxFreeReply = 4 << 10

// send sends the reply to the call with that code.
func (c *conn) send(code uint32, b []byte) {
	n := len(b)
	switch {
	case n <= maxFreeReply:
		c.reply(b)
	case c.account.Take(n) == nil:
		c.reply(b)
		c.account.Give(n)
	default:
		secret.Wipe(b)
		c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
	}
}

// done wipes a request, which may hold a PIN or a key, and gives its memory back.
func (c *conn) done(body []byte, own bool) {
	secret.Wipe(body)
	if own {
		c.account.Give(len(body))
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
