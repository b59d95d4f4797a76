package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// Config is what a Server is made of.
type Config struct {
	Engine  *engine.Engine
	Log     *slog.Logger
	Version p11.Version // of p11fs, for C_GetInfo
	// Allow says whether a peer may use the tokens; nil allows all whom the
	// socket's mode lets in.
	Allow func(Peer) error
	// Limits on what clients hold; zero values mean the defaults.
	MaxConnections int   // 4096
	MaxPerUID      int   // connections of one uid but root's: 2048
	MaxMemory      int64 // bytes of long requests and replies of one uid in flight: 256 MiB
	MaxCalls       int64 // calls of one uid in flight, beyond one a connection: 4096
}

// A Peer is who is at the other end, from SO_PEERCRED and SO_PEERGROUPS.
type Peer struct {
	UID, GID uint32
	PID      int32
	Groups   []uint32 // the supplementary ones
}

// Stats are counts for the daemon's status and metrics.
type Stats struct {
	Connections int    // open now
	Accepted    uint64 // since the start
	Calls       uint64 // taken up since the start
	Panics      uint64
}

// A Server serves the RPC protocol.
type Server struct {
	config  Config
	pollers *pollers

	mu       sync.Mutex // guards all below
	conns    map[*conn]struct{}
	users    map[uint32]*user
	closed   bool
	accepted uint64

	calls  atomic.Uint64
	panics atomic.Uint64
	wg     sync.WaitGroup // of connections
}

// user is what one uid holds.
type user struct {
	conns  int // guarded by Server.mu
	memory atomic.Int64
	calls  atomic.Int64 // in flight beside the read loops
}

// New returns a server; it serves nothing yet.
func New(c Config) *Server {
	if c.MaxConnections == 0 {
		c.MaxConnections = 4096
	}
	if c.MaxPerUID == 0 {
		c.MaxPerUID = 2048
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = 256 << 20
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = 4096
	}
	return &Server{config: c, pollers: newPollers(), conns: map[*conn]struct{}{}, users: map[uint32]*user{}}
}

// Serve accepts connections on l until Close or an error of l; it returns nil
// after Close.
func (s *Server) Serve(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
			s.start(c)
		case s.isClosed():
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED):
			// The kernel keeps the client waiting; a descriptor gets free
			// when another one leaves.
			s.config.Log.Warn("RPC socket: cannot accept", "err", err)
			if !s.pause() {
				return nil
			}
		default:
			return fmt.Errorf("RPC socket: %w", err)
		}
	}
}

// Close ends all connections and waits for their calls to end. The listener is
// its maker's to close, before this.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.socket.Close() // wakes its read loop, which is all that counts
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Stats returns the counts as they stand now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Connections: len(s.conns), Accepted: s.accepted, Calls: s.calls.Load(), Panics: s.panics.Load()}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// start admits a connection and runs it. Who is not admitted finds every call
// refused rather than the connection closed.
func (s *Server) start(socket *net.UnixConn) {
	peer, err := peerOf(socket)
	if err != nil {
		s.config.Log.Warn("RPC socket: no credentials of the peer", "err", err)
		_ = socket.Close() // nothing has been said on it
		return
	}
	c := &conn{server: s, socket: socket, peer: peer}
	s.mu.Lock()
	u := s.users[peer.UID]
	if u == nil {
		u = &user{}
		s.users[peer.UID] = u
	}
	c.user = u
	switch {
	case s.closed:
		s.mu.Unlock()
		_ = socket.Close() // the server ends
		return
	case len(s.conns) >= s.config.MaxConnections, peer.UID != 0 && u.conns >= s.config.MaxPerUID:
		c.refused = p11.Errorf(p11.CKR_SESSION_COUNT, "too many connections of uid %d", peer.UID)
	}
	// A refused connection beyond all bounds is the one that is closed: its
	// descriptor is what there is too little of.
	if len(s.conns) >= 2*s.config.MaxConnections || u.conns >= 2*s.config.MaxPerUID {
		s.mu.Unlock()
		_ = socket.Close()
		return
	}
	u.conns++
	s.accepted++
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	if c.refused == nil && s.config.Allow != nil {
		c.refused = s.config.Allow(peer)
	}
	go func() {
		defer s.wg.Done()
		c.run()
		s.mu.Lock()
		delete(s.conns, c)
		if u.conns--; u.conns == 0 && u.memory.Load() == 0 {
			delete(s.users, peer.UID)
		}
		s.mu.Unlock()
	}()
}

func peerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	var sockErr error
	var groups []uint32
	if err := raw.Control(func(fd uintptr) {
		if cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr == nil {
			groups, sockErr = peerGroups(fd)
		}
	}); err != nil {
		return p, err
	}
	if sockErr != nil {
		return p, sockErr
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Groups: groups}, nil
}

// peerGroups returns the supplementary groups that the other end of a Unix socket
// had when it connected.
func peerGroups(fd uintptr) ([]uint32, error) {
	const size = 4 // bytes of a gid
	for n := 32; ; {
		list := make([]uint32, n)
		length := uint32(size * n)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&length)), 0)
		switch n = int(length / size); {
		case errno == 0:
			return list[:n], nil
		case errno != unix.ERANGE || n <= len(list): // else n is how many there are
			return nil, errno
		}
	}
}

// conn is one connection. Its read loop owns r and buf.
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

// run reads frames until the client closes.
func (c *conn) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		c.wg.Wait()
		c.state.finalize()
		_ = c.socket.Close() // nothing is left to be said
	}()
	socket, err := newInput(c.socket, c.server.pollers)
	if err != nil {
		return // the server ends
	}
	r := bufio.NewReaderSize(socket, 4<<10)
	offered, err := r.ReadByte()
	if err != nil {
		return
	}
	c.protocol = wire.Protocol(offered)
	if _, err := c.socket.Write([]byte{c.protocol.Answer()}); err != nil {
		return
	}
	c.state.init(c)
	var (
		in      = make([]byte, 0, 4<<10)
		out     []byte
		multi   bool // the client has calls of several threads in flight
		granted int  // to the request that is being read
	)
	allow := func(n int) bool {
		if !c.allow(n) {
			return false
		}
		granted = n
		return true
	}
	for {
		granted = 0
		code, body, err := wire.ReadFrame(r, in, allow)
		switch {
		case errors.Is(err, wire.ErrTooLong):
			c.reply(errorFrame(nil, code, p11.CKR_DATA_LEN_RANGE))
			continue
		case errors.Is(err, wire.ErrNotAllowed):
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
			continue
		case err != nil:
			c.user.memory.Add(-int64(granted))
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.ECONNRESET) {
				c.server.config.Log.Info("RPC connection ends in the middle of a request", "uid", c.peer.UID, "pid", c.peer.PID, "err", err)
			}
			return
		}
		own := cap(body) > cap(in) // the body is not the loop's buffer
		call := callOf(body)
		// A call is handled here, on the goroutine that is awake already,
		// unless it may take long, or others wait behind it: waking another
		// one costs more than most calls.
		// A client that sends and does not read stops here, at one that is
		// handled by the loop: its replies must not pile up.
		if multi = multi || r.Buffered() > 0; (multi || slow(call)) && c.branch() {
			if !own {
				body = append([]byte(nil), body...)
				secret.Wipe(in[:cap(in)])
			}
			c.wg.Add(1)
			go func() {
				defer c.wg.Done()
				c.answer(ctx, nil, code, body)
				c.done(body, own)
				c.user.calls.Add(-1)
			}()
			continue
		}
		if call == wire.CallWaitForSlotEvent { // the loop cannot wait
			c.reply(errorFrame(nil, code, p11.CKR_DEVICE_MEMORY))
		} else {
			out = c.answer(ctx, out[:0], code, body)
		}
		c.done(body, own)
		if cap(out) > 64<<10 {
			out = nil
		}
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

// maxFreeReply is how long a reply may be without being counted while the client
// does not read it.
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

// reply sends a frame whole, and wipes it. That the client is gone shows at the
// next read.
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

// slow says that a call may take milliseconds, or wait.
func slow(call wire.Call) bool {
	switch call {
	case wire.CallWaitForSlotEvent, wire.CallGenerateKey, wire.CallGenerateKeyPair, wire.CallInitToken, wire.CallInitToken2,
		wire.CallInitPIN, wire.CallSetPIN, wire.CallLogin, wire.CallLoginUser, wire.CallCreateObject, wire.CallCopyObject,
		wire.CallDestroyObject, wire.CallSetAttributeValue, wire.CallUnwrapKey, wire.CallDeriveKey, wire.CallDeriveKey2:
		return true
	}
	return false
}
