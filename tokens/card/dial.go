package card

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/secret"
)

// maxConnections is how many connections a client has: one for each call that waits.
const maxConnections = 16

// maxCall is how long a call may take: far longer than any does, as that which makes the
// largest key of RSA on a card with other work.
const maxCall = 5 * time.Minute

// Dial returns a transport to the cards that a Server has at the Unix socket path. It
// connects when the first call is made, and again after the server has gone and come. Close
// ends the calls in progress.
func Dial(path string, abi ABI) Transport {
	return &client{path: path, abi: abi, most: maxCall, seats: make(chan struct{}, maxConnections), closing: make(chan struct{})}
}

// A client is a Transport over a socket.
type client struct {
	path  string
	abi   ABI
	most  time.Duration // that a call may take
	seats chan struct{} // of the calls in progress

	closing chan struct{} // closed by Close

	mu     sync.Mutex // guards all below
	idle   []net.Conn
	closed bool
}

func (t *client) Call(ctx context.Context, c *Call) error {
	w := newWriter()
	c.request(w)
	frame, err := w.frame()
	defer func() { secret.Wipe(w.b) }()
	if err != nil {
		return err
	}
	select {
	case t.seats <- struct{}{}:
		defer func() { <-t.seats }()
	case <-t.closing:
		return t.gone(ctx, net.ErrClosed)
	case <-ctx.Done():
		return ctx.Err()
	}
	within, cancel := t.within(ctx)
	defer cancel()
	for {
		conn, fresh, err := t.connect(within)
		if err != nil {
			return t.gone(ctx, err)
		}
		answer, err := exchange(within, conn, frame)
		if err != nil {
			_ = conn.Close() // which has failed
			// The server may have gone and come since the last call. To ask twice is safe:
			// what a card keeps of a call is the same after the second.
			if !fresh && within.Err() == nil && !errors.Is(err, errMalformed) {
				continue
			}
			return t.gone(ctx, err)
		}
		err = c.readAnswer(answer)
		secret.Wipe(answer)
		if err != nil {
			_ = conn.Close() // nothing more comes of it
			return t.gone(ctx, err)
		}
		t.put(conn)
		return nil
	}
}

// within is ctx as long as a call may take, and until Close.
func (t *client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, t.most)
	ended := make(chan struct{})
	go func() {
		select {
		case <-t.closing:
			cancel()
		case <-ended:
		}
	}()
	return ctx, func() {
		close(ended)
		cancel()
	}
}

// gone is the error of a call that no card answered.
func (t *client) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return p11.Errorf(p11.CKR_DEVICE_REMOVED, "no %s card answers at %s: %w", t.abi, t.path, err)
}

// connect returns a connection that is free, or a fresh one.
func (t *client) connect(ctx context.Context) (c net.Conn, fresh bool, err error) {
	t.mu.Lock()
	n := len(t.idle)
	switch {
	case t.closed:
		err = net.ErrClosed
	case n > 0:
		c, t.idle = t.idle[n-1], t.idle[:n-1]
	}
	t.mu.Unlock()
	if c != nil || err != nil {
		return c, false, err
	}
	var d net.Dialer
	if c, err = d.DialContext(ctx, "unix", t.path); err != nil {
		return nil, false, err
	}
	if err := greet(ctx, c, t.abi); err != nil {
		_ = c.Close() // which has failed
		return nil, false, err
	}
	return c, true, nil
}

// greet says who calls.
func greet(ctx context.Context, c net.Conn, abi ABI) error {
	w := newWriter()
	w.b = append(w.b, magic...)
	w.u16(version)
	w.u8(byte(abi))
	w.flag(NativeOrder() == binary.LittleEndian)
	w.u32(uint32(os.Getpid()))
	frame, err := w.frame()
	if err != nil {
		return err
	}
	answer, err := exchange(ctx, c, frame)
	if err != nil {
		return err
	}
	r := &reader{b: answer}
	if rv := r.u64(); r.end() == nil && rv != 0 {
		return p11.Errorf(p11.RV(rv), "that is no socket of %s cards", abi)
	}
	return r.end()
}

// exchange sends a frame and receives one. The end of ctx ends the connection.
func exchange(ctx context.Context, c net.Conn, frame []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails what waits
	defer stop()
	if _, err := c.Write(frame); err != nil {
		return nil, err
	}
	answer, err := readFrame(c, nil)
	if err == nil && !stop() {
		secret.Wipe(answer)
		return nil, ctx.Err()
	}
	return answer, err
}

func (t *client) put(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close() // as the others
		return
	}
	t.idle = append(t.idle, c)
}

func (t *client) Close() error {
	t.mu.Lock()
	idle := t.idle
	if !t.closed {
		close(t.closing)
	}
	t.idle, t.closed = nil, true
	t.mu.Unlock()
	var errs []error
	for _, c := range idle {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
