package icsfconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/icsf/icsfwire"
)

// Config says which server is called, and how.
type Config struct {
	// URI is ldap://HOST or ldaps://HOST, with a port if it is not the usual one.
	URI string
	// DN is what the server knows the client by, and Password returns its password, which
	// the Conn closes, each time it has to be shown.
	DN       string
	Password func() (*secret.Bytes, error)
	// External has the certificate of the connection take their place.
	External bool
	// CACert, Cert and Key are paths of PEM files: who has signed the server's certificate
	// (empty: those whom the system trusts), and the client's own certificate and key.
	CACert, Cert, Key string
	// Timeout is how long one answer is waited for, zero for ten seconds.
	Timeout time.Duration
	// Trace gets each request and answer in hexadecimal, a line each, with zeros in the
	// place of data and secrets. It may be nil.
	Trace io.Writer
}

const usualTimeout = 10 * time.Second

func (c *Config) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return usualTimeout
}

func (c *Config) trace(direction string, value []byte) {
	if c.Trace != nil {
		fmt.Fprintf(c.Trace, "%s %s %x\n", time.Now().UTC().Format("15:04:05.000"), direction, icsfwire.Redact(value))
	}
}

// How long after a failure the next attempt to connect is made: twice as long after each.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// A Conn calls the services.
type Conn struct {
	conf Config

	making chan struct{} // has room for one: who connects

	mu     sync.Mutex // guards all below
	link   *Link
	closed bool
	failed error     // of the last attempt to connect
	since  time.Time // of the first of the attempts that have failed
	pause  time.Duration
	next   time.Time // of the next attempt
}

// New makes a Conn, which does not connect yet.
func New(c Config) *Conn { return &Conn{conf: c, making: make(chan struct{}, 1)} }

// Close ends the connection, and with it the objects of the session.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	l := c.link
	c.link = nil
	c.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

// Detach takes the connection away, which the next call makes anew, and returns it to be closed;
// nil where there is none.
func (c *Conn) Detach() *Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.link
	c.link = nil
	return l
}

// Failed is why the server could not be reached when it was tried last; nil if it could, or
// was not tried.
func (c *Conn) Failed() error {
	_, why := c.Away()
	return why
}

// Away is Failed, and since when: until a connection is made.
func (c *Conn) Away() (since time.Time, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil || c.link != nil && c.link.Broken() == nil {
		return time.Time{}, nil
	}
	return c.since, c.failed
}

// Offline is Failed until it is time to try again, which the next use then is to do.
func (c *Conn) Offline() error {
	_, err := c.live()
	return err
}

// live is the link that there is, nil without one, or why none is made now.
func (c *Conn) live() (*Link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
	case c.link != nil && c.link.Broken() == nil:
		return c.link, nil
	case c.failed != nil && time.Now().Before(c.next):
		return nil, c.failed
	}
	return nil, nil
}

// Link returns the connection, which it makes if there is none.
func (c *Conn) Link(ctx context.Context) (*Link, error) {
	if l, err := c.live(); l != nil || err != nil {
		return l, err
	}
	select {
	case c.making <- struct{}{}:
		defer func() { <-c.making }()
	case <-ctx.Done():
		return nil, interrupted(ctx.Err())
	}
	if l, err := c.live(); l != nil || err != nil {
		return l, err // somebody else has just tried
	}
	l, err := c.connect(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, interrupted(ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, p11.CKR_USER_NOT_LOGGED_IN) {
		return nil, err // the password is not to be had, whatever the server does
	}
	if err != nil {
		if c.failed == nil {
			c.since = time.Now()
		}
		c.pause = min(max(2*c.pause, firstPause), lastPause)
		c.failed, c.next = err, time.Now().Add(c.pause)
		return nil, err
	}
	if c.closed {
		l.breaks(net.ErrClosed)
		return nil, p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
	}
	c.link, c.failed, c.pause = l, nil, 0
	return l, nil
}

func interrupted(err error) error {
	return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
}

// connect makes a link.
func (c *Conn) connect(ctx context.Context) (*Link, error) {
	conn, host, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := newLink(conn, &c.conf)
	if err := l.bind(ctx); err != nil {
		l.breaks(err)
		return nil, noDirectory(host, err)
	}
	return l, nil
}

// tries is how often what may be repeated is tried.
const tries = 3

// Call is Link.Call on the connection that there is. What was under way on one that is lost is
// asked for again, if it changes nothing.
func (c *Conn) Call(ctx context.Context, r *icsfwire.Request, out icsfwire.Data) (icsfwire.Handle, error) {
	for try := 1; ; try++ {
		l, err := c.Link(ctx)
		if err != nil {
			return "", err
		}
		h, err := l.Call(ctx, r, out)
		lost, busy := errors.Is(err, errLost), errors.Is(err, errBusy)
		switch {
		case ctx.Err() != nil && err != nil:
			return "", interrupted(ctx.Err())
		case errors.Is(err, context.DeadlineExceeded):
			l.breaks(err) // a server that does not answer has no use
			return "", p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has not answered %s in %v", icsfwire.ServiceOf(r.Data), c.conf.timeout())
		case !lost && !busy:
			return h, err
		case try == tries || lost && !Repeatable(r):
			return "", Lost(err)
		}
		select {
		case <-time.After(firstPause):
		case <-ctx.Done():
			return "", interrupted(ctx.Err())
		}
	}
}

// Lost makes an error of PKCS#11 of one of a Link that was lost.
func Lost(err error) error {
	if errors.Is(err, errLost) {
		return p11.Errorf(p11.CKR_DEVICE_ERROR, "the call is not repeated: %w", err)
	}
	return err
}

// Repeatable says whether a request changes nothing, so that it may be done twice.
func Repeatable(r *icsfwire.Request) bool {
	switch icsfwire.ServiceOf(r.Data) {
	case icsfwire.GAV, icsfwire.TRL, icsfwire.PKS, icsfwire.PKV, icsfwire.WPK:
		return true
	case icsfwire.SKE, icsfwire.SKD, icsfwire.OWH, icsfwire.HMG, icsfwire.HMV:
		return slices.Contains(r.Rules, "ONLY")
	}
	return false
}
