package card

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
)

// What programs may have at once, and how long a frame may take.
const (
	maxPrograms = 384 // connections
	maxOfUser   = 256 // and of one user, so that nobody keeps all others out
	maxLarge    = 4   // large frames
	largeOfUser = 2   // and of one user
	frameTime   = 30 * time.Second
)

// A Server makes the cards behind a Transport reachable at a socket.
type Server struct {
	ABI  ABI
	Card Transport
	Log  *slog.Logger

	mu       sync.Mutex       // guards all below
	programs int              // connections
	users    map[uint32]*user // that have connections
	again    time.Time        // when a warning may be told again
}

// A user is what one has of a server's places.
type user struct {
	programs int           // connections
	large    chan struct{} // has room for the large frames that are under way
}

// warn tells of what programs do wrong. They can do it without end, so that it is told once
// in ten seconds.
func (s *Server) warn(text string, args ...any) {
	const pause = 10 * time.Second
	s.mu.Lock()
	now := time.Now()
	quiet := now.Before(s.again)
	if !quiet {
		s.again = now.Add(pause)
	}
	s.mu.Unlock()
	if !quiet {
		s.Log.Warn("card socket: "+text, args...)
	}
}

// seat takes a place for a connection of a user, which leave gives back. It is nil where
// there is none.
func (s *Server) seat(uid uint32) *user {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == nil {
		s.users = make(map[uint32]*user)
	}
	u := s.users[uid]
	if u == nil {
		u = &user{large: make(chan struct{}, largeOfUser)}
	}
	if s.programs == maxPrograms || u.programs == maxOfUser {
		return nil
	}
	s.programs++
	u.programs++
	s.users[uid] = u
	return u
}

func (s *Server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs--
	if s.users[uid].programs--; s.users[uid].programs == 0 {
		delete(s.users, uid)
	}
}

// A places is where large frames of a user have room: among his own, and among all.
type places [2]chan struct{}

// take waits for room until ctx ends, and returns what gives it back.
func (p places) take(ctx context.Context) (give func()) {
	for i, c := range p {
		select {
		case c <- struct{}{}:
		case <-ctx.Done(): // and the connection is closed
			for _, had := range p[:i] {
				<-had
			}
			return func() {}
		}
	}
	return func() {
		for _, c := range p {
			<-c
		}
	}
}

// Serve answers on l until ctx ends, and then returns nil, or until l fails. It closes l,
// and waits for the calls in progress.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // wakes AcceptUnix
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	defer cancel()
	defer stop()
	large := make(chan struct{}, maxLarge)
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close() // whose program asks again
			}
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ECONNABORTED):
			s.warn("cannot accept", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		case err != nil:
			return fmt.Errorf("card socket: %w", err)
		}
		uid, peer := peerOf(c)
		u := s.seat(uid)
		if u == nil {
			s.warn("too many connections", "most", maxPrograms, "most of one user", maxOfUser, "peer", peer)
			_ = c.Close() // it was told nothing yet
			continue
		}
		wg.Go(func() {
			defer s.leave(uid)
			s.serve(ctx, c, peer, places{u.large, large})
		})
	}
}

// serve answers one program.
func (s *Server) serve(ctx context.Context, c *net.UnixConn, peer string, large places) {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // wakes what waits
	defer func() { _ = c.Close() }()                         // both ends have said all
	_ = c.SetDeadline(time.Now().Add(frameTime))             // a socket of which this fails fails next
	order, err := s.greet(c)
	if err != nil {
		s.warn("no greeting", "peer", peer, "err", err)
		return
	}
	s.Log.Debug("card socket: connected", "peer", peer)
	for err == nil {
		_ = c.SetDeadline(time.Time{})
		err = s.turn(ctx, c, order, large)
	}
	if errors.Is(err, errMalformed) {
		s.warn("connection ended", "peer", peer, "err", err)
		return
	}
	s.Log.Debug("card socket: gone", "peer", peer)
}

// greet reads the first frame, and answers it.
func (s *Server) greet(c net.Conn) (binary.ByteOrder, error) {
	frame, err := readFrame(c, nil)
	if err != nil {
		return nil, err
	}
	r := &reader{b: frame}
	if string(r.take(8)) != magic || r.u16() != version {
		return nil, fmt.Errorf("%w: no greeting", errMalformed)
	}
	abi, little := ABI(r.u8()), r.flag()
	r.u32() // the process, as it sees itself
	if err := r.end(); err != nil {
		return nil, err
	}
	w := newWriter()
	if abi != s.ABI {
		w.u64(uint64(p11.CKR_DEVICE_REMOVED))
		err = fmt.Errorf("%w: a program of %v cards", errMalformed, abi)
	} else {
		w.u64(0)
	}
	answer, _ := w.frame() // which is short
	if _, e := c.Write(answer); e != nil {
		return nil, e
	}
	if little {
		return binary.LittleEndian, err
	}
	return binary.BigEndian, err
}

// turn answers one request.
func (s *Server) turn(ctx context.Context, c net.Conn, order binary.ByteOrder, large places) error {
	give := func() {}
	frame, err := readFrame(&timed{Conn: c}, func() { give = large.take(ctx) })
	defer func() {
		give()
		secret.Wipe(frame)
	}()
	if err != nil {
		return err
	}
	call, err := readRequest(s.ABI, frame)
	if call != nil {
		defer call.wipe()
	}
	switch {
	case err != nil && !errors.Is(err, errMalformed) && call != nil:
		call = &Call{Function: &Function{}, Return: uint64(p11.RVOf(err))}
	case err != nil:
		return err
	default:
		call.Order = order
		if err := s.Card.Call(ctx, call); err != nil {
			// Who waits for the answer learns it by the end of the connection.
			return fmt.Errorf("no card answered: %w", err)
		}
	}
	w := newWriter()
	call.answer(w)
	call.Drop()
	answer, err := w.frame()
	defer secret.Wipe(answer)
	if err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Now().Add(frameTime))
	_, err = c.Write(answer)
	return err
}

// timed is a connection that gives a frame its time once the frame has begun.
type timed struct {
	net.Conn
	begun bool
}

func (t *timed) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 && !t.begun {
		t.begun = true
		_ = t.SetReadDeadline(time.Now().Add(frameTime)) // a socket of which this fails fails next
	}
	return n, err
}

// peerOf says who is at the other end.
func peerOf(c *net.UnixConn) (uid uint32, text string) {
	const nobody = ^uint32(0)
	raw, err := c.SyscallConn()
	if err != nil {
		return nobody, "unknown"
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return nobody, "unknown"
	}
	return cred.Uid, fmt.Sprintf("pid %d uid %d gid %d", cred.Pid, cred.Uid, cred.Gid)
}
