package rpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// state is what a connection is between C_Initialize and C_Finalize.
type state struct {
	conn *conn

	mu      sync.Mutex          // guards all below; not held while the engine is called
	app     *engine.Application // nil before C_Initialize and after C_Finalize
	ended   chan struct{}       // closed with app
	drained map[drain]drainMark
}

// drain is an operation of which a client with protocol 0 was told that a call has
// an empty result. It may ask once more: see answered.
type drain struct {
	session *engine.Session
	flag    p11.Flags // CKF_ENCRYPT and the like
}

// drainMark is that call: its number and what it was given.
type drainMark struct {
	call wire.Call
	part [sha256.Size]byte
}

func (st *state) init(c *conn) { st.conn = c }

func (st *state) initialize() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.app != nil {
		return p11.CKR_CRYPTOKI_ALREADY_INITIALIZED
	}
	p := st.conn.peer
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID)) // it may have gone
	st.app = st.conn.server.config.Engine.NewApplication(engine.Owner{
		UID: p.UID, GID: p.GID, Groups: p.Groups, PID: int(p.PID), Door: "rpc", Command: strings.TrimSpace(string(command)), Unit: p.Unit,
	}, engine.ForPrograms)
	st.ended = make(chan struct{})
	st.drained = map[drain]drainMark{}
	return nil
}

// waitsForLock notes that a call of the client waits for a lock.
func (st *state) waitsForLock(path string) (ended func()) {
	st.mu.Lock()
	app := st.app
	st.mu.Unlock()
	if app == nil {
		return func() {}
	}
	return app.WaitsForLock(path)
}

func (st *state) finalize() {
	st.mu.Lock()
	app, ended := st.app, st.ended
	st.app = nil
	st.mu.Unlock()
	if app != nil {
		close(ended)
		app.Close()
	}
}

func (st *state) application() (*engine.Application, <-chan struct{}, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.app == nil {
		return nil, nil, p11.CKR_CRYPTOKI_NOT_INITIALIZED
	}
	return st.app, st.ended, nil
}

// drain marks an operation. settle forgets its mark, and reports whether it was
// left by the same call with the same data.
func (st *state) drain(d drain, m drainMark) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.drained[d] = m
}

func (st *state) settle(d drain, call wire.Call, data []byte) bool {
	st.mu.Lock()
	was, ok := st.drained[d]
	delete(st.drained, d)
	st.mu.Unlock()
	return ok && was.call == call && was.part == sha256.Sum256(data)
}

// forget drops the marks of sessions that have ended.
func (st *state) forget() {
	st.mu.Lock()
	defer st.mu.Unlock()
	maps.DeleteFunc(st.drained, func(d drain, _ drainMark) bool {
		select {
		case <-d.session.Done():
			return true
		default:
			return false
		}
	})
}

// A request is one call being answered.
type request struct {
	ctx   context.Context
	conn  *conn
	app   *engine.Application
	ended <-chan struct{} // closed when the application ends
	call  wire.Call
	r     *wire.Reader
	w     *wire.Writer
	err   error // the first failure of an argument
	held  int   // in the account, until the call is answered
	turn  *engine.Turn

	// What a call of a session is given, in the order of its signature.
	session   *engine.Session
	numbers   [6]uint64
	arrays    [4]wire.Array
	templates [2]p11.Attributes
	mechanism wire.Mechanism
	room      wire.Room
	wanted    []wire.Wanted
}

// frameCost is the processor time of a frame's way through a socket, there and back: two
// system calls, a wake-up, and what a wake-up takes from whom it interrupts.
const frameCost = 50 * time.Microsecond

// roadCost is that of a request's way through shared memory: it is taken up, copied and
// answered, and a worker that waits for its turn is woken.
const roadCost = 5 * time.Microsecond

// handle answers one request and appends the reply's frame to b.
func (c *conn) handle(ctx context.Context, b []byte, code uint32, body []byte) (out []byte) {
	start := len(b)
	w := wire.NewWriter(b, c.protocol) // which has the earlier replies, too, wherever they move
	// Before the reply: a client that has its reply finds the call counted.
	c.server.calls.Add(1)
	defer func() {
		if p := recover(); p != nil {
			c.server.panics.Add(1)
			// Not the value, which may hold a PIN that the client sent. The
			// stack shows no values.
			c.server.config.Log.Error("panic in an RPC call", "kind", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			out = errorFrame(w.B[:start], code, p11.CKR_GENERAL_ERROR)
		}
	}()
	q := &request{ctx: ctx, conn: c, r: wire.NewReader(body, c.protocol), w: w, turn: c.account.Turn(ctx)}
	defer func() { q.turn.End() }()
	if code&wire.RoadCode == 0 {
		q.turn.Charge(frameCost)
	} else {
		q.turn.Charge(roadCost)
	}
	var at int
	w.B, at = wire.AppendFrame(b, code, "")
	err := q.answer()
	c.account.Give(q.held)
	if err == nil {
		err = wire.EndFrame(w.B, at)
	}
	if err != nil {
		rv := p11.RVOf(err)
		if rv == p11.CKR_OK {
			rv = p11.CKR_GENERAL_ERROR
		}
		return errorFrame(w.B[:start], code, rv)
	}
	return w.B
}

func (q *request) answer() error {
	call, signature := q.r.Header()
	if err := q.r.Err(); err != nil {
		return err
	}
	q.call = wire.Call(call)
	s, ok := wire.Signatures(q.call)
	if !ok || !q.conn.offers(q.call) {
		return p11.Errorf(p11.CKR_FUNCTION_NOT_SUPPORTED, "there is no call %d", call)
	}
	if signature != s.Request {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "%s has signature %q, not %q", s.Name, s.Request, signature)
	}
	if q.conn.refused != nil {
		return q.conn.refused
	}
	q.w.Header(call, s.Response)
	if q.call == wire.CallInitialize {
		return q.initialize()
	}
	var err error
	if q.app, q.ended, err = q.conn.state.application(); err != nil {
		return err
	}
	if h := handlers[q.call]; h != nil {
		return h(q)
	}
	return q.inSession(s.Request)
}

// offers reports whether the connection's protocol has the call.
func (c *conn) offers(call wire.Call) bool {
	return call < wire.CallSignOnce || c.protocol == wire.Own
}

func (q *request) initialize() error {
	handshake := q.r.Array()
	q.r.Byte()
	q.r.Array()
	if err := q.r.End(); err != nil {
		return err
	}
	if string(handshake.Data) != wire.Handshake {
		return p11.Errorf(p11.CKR_GENERAL_ERROR, "unknown handshake")
	}
	return q.conn.state.initialize()
}

// The functions below read one argument each. The first failure is kept until end
// or failure returns it, so that callers check once, before they use anything.

func (q *request) fail(err error) {
	if q.err == nil {
		q.err = err
	}
}

// failure returns the first failure so far.
func (q *request) failure() error {
	if q.err == nil {
		q.err = q.r.Err()
	}
	return q.err
}

// end returns the first failure, which may be that arguments are left over.
func (q *request) end() error {
	if q.err == nil {
		q.err = q.r.End()
	}
	return q.err
}

// take counts n bytes that the call needs until it is answered, before they are had.
func (q *request) take(n int) error {
	if n <= maxFreeReply {
		return nil
	}
	err := q.conn.account.Take(n)
	if err == nil {
		q.held += n
	}
	return err
}

// slot reads the slot of a call; nil after a failure.
func (q *request) slot() *engine.Slot {
	id := q.r.Ulong()
	if q.failure() != nil {
		return nil
	}
	s, err := q.conn.server.config.Engine.Slot(p11.SlotID(id))
	if err != nil {
		q.fail(err)
		return nil
	}
	return s
}

func (q *request) template() p11.Attributes {
	list := q.r.Attributes()
	if q.failure() != nil {
		return nil
	}
	template, err := wire.Template(list)
	if err != nil {
		q.fail(err)
	}
	return template
}

// input reads an `ay` of data.
func (q *request) input() wire.Array {
	a := q.r.Array()
	if q.failure() == nil && a.Absent && a.Length != 0 {
		q.fail(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%d bytes at a NULL pointer", a.Length))
	}
	return a
}

// result writes the `ay` of a function with room for its result: the result,
// or how long it is.
func (q *request) result(b []byte, err error) error {
	var short *engine.BufferError
	switch {
	case errors.As(err, &short) && short.Need == 0:
		q.nothing()
	case errors.As(err, &short):
		q.w.Need(short.Need)
	case err != nil:
		return err
	default:
		q.w.Result(b)
	}
	return nil
}

// nothing writes the `ay` of an empty result that was asked for without a buffer.
// p11-kit's server writes a NULL pointer; its clients up to protocol 0 do not
// read that.
func (q *request) nothing() {
	q.w.Array(wire.Array{Null: q.conn.protocol != wire.V0 && q.conn.protocol != wire.Own})
}
