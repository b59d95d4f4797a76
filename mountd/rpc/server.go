package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p11fs/cgroup"
	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// Config is what a Server is made of.
type Config struct {
	Engine  *engine.Engine
	Log     *slog.Logger
	Version p11.Version // of p11fs, for C_GetInfo
	// Allow returns why a peer may not use the tokens; without it all may whom
	// the socket's mode lets in.
	Allow func(Peer) error
	// Processors are how many there are for work; 0 is one.
	Processors int
	// Limits on what clients hold; zero values mean the defaults.
	MaxConnections int           // 4096, and a quarter of the descriptors
	MaxPerUID      int           // connections of one uid but root's: half of MaxConnections
	MaxCalls       int64         // calls of one uid in flight, beyond one a connection: 4096
	FrameTime      time.Duration // from the first byte of a request to its last: 30 s
	MaxRoads       int           // of one uid: 96, which is a sixth of what it may hold; negative: none
}

// A Peer is who is at the other end, from SO_PEERCRED and SO_PEERGROUPS.
type Peer struct {
	UID, GID uint32
	PID      int32
	Groups   []uint32 // the supplementary ones
	Unit     string   // the systemd unit of the process that connected; empty if it is of none, or has gone
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
	pollers *pollers     // of sockets
	lookers *pollers     // of roads
	workers atomic.Int32 // of roads
	apart   apart
	pass    pass

	mu       sync.Mutex // guards all below
	conns    map[*conn]struct{}
	users    map[uint32]*user
	closed   bool
	accepted uint64

	parts   wire.Parts // of requests that are not whole
	skipped sync.Pool  // of *skipped
	calls   atomic.Uint64
	panics  atomic.Uint64
	wg      sync.WaitGroup // of connections
}

// user is what one uid holds.
type user struct {
	conns   int          // guarded by Server.mu
	roads   int          // likewise
	calls   atomic.Int64 // in flight beside the read loops
	workers atomic.Int32 // of roads
}

// New returns a server; it serves nothing yet.
func New(c Config) *Server {
	if c.MaxConnections == 0 {
		c.MaxConnections = 4096
		if n := descriptors(); n > 0 {
			c.MaxConnections = max(1, min(4096, n/4))
		}
	}
	if c.MaxPerUID == 0 {
		c.MaxPerUID = max(1, c.MaxConnections/2)
	}
	if c.FrameTime == 0 {
		c.FrameTime = 30 * time.Second
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = 4096
	}
	if c.MaxRoads == 0 {
		c.MaxRoads = 96
	}
	c.Processors = max(1, c.Processors)
	return &Server{config: c, pollers: newPollers(c.Processors), lookers: newLookers(c.Processors), conns: map[*conn]struct{}{}, users: map[uint32]*user{}}
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
			// The kernel keeps the client waiting until another one leaves
			// and a descriptor is free.
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
		_ = c.socket.Close() // wakes its read loop
		c.cancel()           // which may wait with a call for its turn
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.pass.close()
}

// Stats returns the counts as they stand now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Connections: len(s.conns), Accepted: s.accepted, Calls: s.calls.Load(), Panics: s.panics.Load()}
}

// descriptors is how many this process may have, 0 where there is no bound.
func descriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// pause waits a little before the next accept; false means that the server ended.
func (s *Server) pause() bool {
	time.Sleep(50 * time.Millisecond)
	return !s.isClosed()
}

// start runs a connection. One over the limits stays open and has every call
// refused.
func (s *Server) start(socket *net.UnixConn) {
	peer, err := peerOf(socket)
	if err != nil {
		s.config.Log.Warn("RPC socket: no credentials of the peer", "err", err)
		_ = socket.Close() // nothing has been said on it
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{server: s, socket: socket, peer: peer, account: s.config.Engine.Account(peer.UID), cancel: cancel}
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
		cancel()
		_ = socket.Close() // the server ends
		return
	case len(s.conns) >= s.config.MaxConnections, peer.UID != 0 && u.conns >= s.config.MaxPerUID:
		c.refused = p11.Errorf(p11.CKR_SESSION_COUNT, "too many connections of uid %d", peer.UID)
	}
	// Far over the limits it is closed, since descriptors run out: logins, stores
	// and locks need some, too.
	if n, m := s.config.MaxConnections, s.config.MaxPerUID; len(s.conns) >= n+n/2 || u.conns >= m+m/2 && peer.UID != 0 {
		s.mu.Unlock()
		cancel()
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
	go c.run(ctx, func() {
		defer s.wg.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if u.conns--; u.conns == 0 {
			delete(s.users, peer.UID)
		}
	})
}

func peerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	var sockErr error
	var groups []uint32
	process := -1
	if err := raw.Control(func(fd uintptr) {
		if cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr == nil {
			groups, sockErr = peerGroups(fd)
			process = peerProcess(fd, cred)
		}
	}); err != nil {
		return p, err
	}
	if sockErr != nil {
		return p, sockErr
	}
	p = Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Groups: groups}
	if process >= 0 {
		p.Unit = cgroup.Unit(int(cred.Pid), uint32(os.Geteuid()))
		if ended(process) { // its number may be another's
			p.Unit = ""
		}
		_ = unix.Close(process) // nothing was written
	}
	return p, nil
}

// peerProcess returns a descriptor of the process that connected, or -1. A kernel that does
// not give it (before 6.5) leaves the number of that process: then it is the one that has
// the number now, if that is of the same user.
func peerProcess(fd uintptr, cred *unix.Ucred) int {
	process, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		unix.CloseOnExec(process)
		return process
	case !errors.Is(err, unix.ENOPROTOOPT) || cred.Pid <= 0:
		return -1
	}
	if process, err = unix.PidfdOpen(int(cred.Pid), 0); err != nil {
		return -1
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", cred.Pid), &st); err != nil || st.Uid != cred.Uid {
		_ = unix.Close(process) // nothing was written
		return -1
	}
	return process
}

// ended reports whether a process has ended: then its descriptor is readable.
func ended(process int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
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
