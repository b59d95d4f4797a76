package etcdtest

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A link is the way to one member: a listener that passes on what comes, unless it is cut.
// Like a network that drops packets it does not say that it is cut: what is sent waits, and
// arrives once the link is healed, if those who sent it still wait.
type link struct {
	l     net.Listener
	wg    sync.WaitGroup
	ended chan struct{} // closed when the link is

	mu     sync.Mutex
	healed *sync.Cond    // cut or closed has changed
	to     string        // where the member listens; empty while it does not
	cut    [2]bool       // by direction
	slow   time.Duration // by which each piece of what comes is late
	closed bool
	conns  map[net.Conn]bool
}

// The directions of a link.
const (
	out = iota // to the member
	in
)

// newLink listens on a free port.
func newLink() (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &link{l: l, conns: make(map[net.Conn]bool), ended: make(chan struct{})}
	k.healed = sync.NewCond(&k.mu)
	k.wg.Go(k.accept)
	return k, nil
}

func (k *link) addr() string { return k.l.Addr().String() }

// point has new connections go to address. Those that are there end.
func (k *link) point(address string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.to = address
	for c := range k.conns {
		_ = c.Close()
	}
}

// set cuts or heals both directions.
func (k *link) set(cutOut, cutIn bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = [2]bool{out: cutOut, in: cutIn}
	k.healed.Broadcast()
}

// delay has what the member answers be late, piece by piece.
func (k *link) delay(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slow = d
}

// late waits as long as a piece of what comes is late.
func (k *link) late() {
	k.mu.Lock()
	d := k.slow
	k.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-k.ended:
		}
	}
}

// close ends all connections, and waits for them.
func (k *link) close() {
	k.mu.Lock()
	k.closed = true
	close(k.ended)
	for c := range k.conns {
		_ = c.Close()
	}
	k.healed.Broadcast()
	k.mu.Unlock()
	_ = k.l.Close()
	k.wg.Wait()
}

func (k *link) accept() {
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		k.wg.Go(func() { k.serve(c) })
	}
}

// pass waits until direction is whole. It returns false once the link is closed.
func (k *link) pass(direction int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.cut[direction] && !k.closed {
		k.healed.Wait()
	}
	return !k.closed
}

// hold notes a connection for point and close to end.
func (k *link) hold(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.conns[c] = true
	return true
}

func (k *link) drop(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
	_ = c.Close()
}

// serve passes on what one connection brings.
func (k *link) serve(c net.Conn) {
	if !k.hold(c) {
		_ = c.Close()
		return
	}
	defer k.drop(c)
	if !k.pass(out) || !k.pass(in) {
		return
	}
	k.mu.Lock()
	to := k.to
	k.mu.Unlock()
	if to == "" {
		return
	}
	m, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	if !k.hold(m) {
		_ = m.Close()
		return
	}
	defer k.drop(m)
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.copy(c, m, in)
	}()
	k.copy(m, c, out)
	<-done
}

// copy passes on one direction. When it ends both connections do: nobody here uses half of one.
func (k *link) copy(to, from net.Conn, direction int) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if direction == in {
				k.late()
			}
			if !k.pass(direction) {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
	}
}
