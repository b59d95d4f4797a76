package icsfconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/icsf/icsfwire"
)

// A Link is one connection of a client that the server knows.
type Link struct {
	conn net.Conn
	conf *Config

	writing chan struct{} // has room for one: who writes a message

	mu      sync.Mutex // guards all below
	last    int        // the last message's number
	waiting map[int]chan *icsfwire.Message
	broken  error // why it is of no use any more
	gone    chan struct{}
}

// errLost is wrapped by the errors of a connection that was lost.
var errLost = errors.New("the connection to the server was lost")

func newLink(c net.Conn, conf *Config) *Link {
	l := &Link{conn: c, conf: conf, writing: make(chan struct{}, 1), waiting: make(map[int]chan *icsfwire.Message), gone: make(chan struct{})}
	go l.read()
	return l
}

// read hands each message to who waits for it, until the connection ends.
func (l *Link) read() {
	for {
		m, err := icsfwire.ReadMessage(l.conn)
		if err != nil {
			l.breaks(err)
			return
		}
		l.mu.Lock()
		to := l.waiting[m.ID]
		l.mu.Unlock()
		if to == nil {
			secret.Wipe(m.Body)
			continue // nobody waits for it any more
		}
		select {
		case to <- m:
		case <-l.gone:
		default: // more answers than one asked for
		}
	}
}

// breaks says that the link is of no use any more.
func (l *Link) breaks(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = fmt.Errorf("%w: %w", errLost, err)
		close(l.gone)
		_ = l.conn.Close()
	}
}

// Broken is why the link is of no use any more; nil while it is.
func (l *Link) Broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Lost is closed when the link is of no use any more.
func (l *Link) Lost() <-chan struct{} { return l.gone }

// Close unbinds, which destroys the objects of the session.
func (l *Link) Close() {
	select {
	case l.writing <- struct{}{}:
		if b, err := icsfwire.Unbind(l.number()); err == nil {
			_ = l.conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = l.conn.Write(b)
		}
		<-l.writing
	default: // somebody writes, who hears of the end
	}
	l.breaks(net.ErrClosed)
}

func (l *Link) number() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last++; l.last == 1<<31-1 {
		l.last = 1
	}
	return l.last
}

// answers is room for the answers to one message: those of a search are an entry and an end.
const answers = 8

// ask sends the message that print makes with its number, which is wiped, and returns the
// first answer of the kind that is wanted, and those before it.
func (l *Link) ask(ctx context.Context, want icsfwire.Op, print func(id int) ([]byte, error)) (before []*icsfwire.Message, _ *icsfwire.Message, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.conf.timeout())
	defer cancel()
	id := l.number()
	b, err := print(id)
	if err != nil {
		return nil, nil, err
	}
	defer secret.Wipe(b)
	to := make(chan *icsfwire.Message, answers)
	l.mu.Lock()
	l.waiting[id] = to
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, id)
	}()
	if err := l.write(ctx, b); err != nil {
		return nil, nil, err
	}
	for {
		var m *icsfwire.Message
		select {
		case m = <-to:
		case <-l.gone:
			select {
			case m = <-to: // it was read before the end was
			default:
				return nil, nil, l.Broken()
			}
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
		if m.Op == want {
			return before, m, nil
		}
		if before = append(before, m); len(before) == answers {
			return nil, nil, errors.New("the server answers something else")
		}
	}
}

func (l *Link) write(ctx context.Context, b []byte) error {
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-l.gone:
		return l.Broken()
	case <-ctx.Done():
		return ctx.Err()
	}
	deadline, _ := ctx.Deadline()
	_ = l.conn.SetWriteDeadline(deadline)
	if _, err := l.conn.Write(b); err != nil {
		l.breaks(err) // also where half a message was written
		return l.Broken()
	}
	return nil
}

// bind has the server know who it is, and looks whether it has the services.
func (l *Link) bind(ctx context.Context) error {
	print := icsfwire.BindExternal
	if !l.conf.External {
		password, err := l.conf.Password()
		if err != nil {
			return err
		}
		defer password.Close()
		print = func(id int) (b []byte, err error) {
			password.Use(func(p []byte) { b, err = icsfwire.Bind(id, l.conf.DN, p) })
			return b, err
		}
	}
	_, m, err := l.ask(ctx, icsfwire.BindResponse, print)
	if err != nil {
		return err
	}
	r, err := icsfwire.ParseResult(m.Body)
	if err == nil {
		err = bindError(r, l.conf.External)
	}
	if err != nil {
		return err
	}
	has, _, err := l.services(ctx)
	if err != nil {
		return err
	}
	return hasICSF(has)
}

// ErrPassword says that the server does not take the password.
var ErrPassword = errors.New("the server refused the stored password")

func bindError(r icsfwire.Result, external bool) error {
	switch {
	case r.Code == icsfwire.Success:
		return nil
	case r.Code == icsfwire.InvalidCredentials && !external:
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%w", ErrPassword), "it is that of BINDDN on the server, not the PIN: p11fs init icsf --new-password stores another, or stock's pkcsicsf for the machine's token")
	case r.Code == icsfwire.InvalidCredentials:
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the server does not know the certificate CERT"), "have its administrator map the certificate to a user")
	}
	return p11.Errorf(p11.CKR_DEVICE_ERROR, "the server refused the bind with the result %d %s", r.Code, r.Text)
}

// Call asks for a service, and reads what it gives into out, if that is not nil, which shares
// no memory with what others get. With CKR_BUFFER_TOO_SMALL it has the length.
func (l *Link) Call(ctx context.Context, r *icsfwire.Request, out icsfwire.Data) (icsfwire.Handle, error) {
	value, err := r.Print()
	if err != nil {
		return "", p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w", err)
	}
	defer secret.Wipe(value)
	l.conf.trace(">", value)
	_, m, err := l.ask(ctx, icsfwire.ExtendedResponse, func(id int) ([]byte, error) { return icsfwire.Extended(id, value) })
	if err != nil {
		return "", err
	}
	defer secret.Wipe(m.Body)
	result, err := icsfwire.ParseResult(m.Body)
	if err != nil {
		return "", damaged(err)
	}
	if err := resultError(result); err != nil {
		return "", err
	}
	l.conf.trace("<", result.Value)
	p, err := icsfwire.ParseResponse(result.Value)
	if err != nil {
		return "", damaged(err)
	}
	refused := serviceError(icsfwire.ServiceOf(r.Data), p.Return, p.Reason)
	if out != nil && (refused == nil || errors.Is(refused, p11.CKR_BUFFER_TOO_SMALL)) {
		if err := p.Into(out); err != nil {
			return "", damaged(err)
		}
	}
	return p.Handle, refused
}

func damaged(err error) error {
	return p11.Errorf(p11.CKR_DEVICE_ERROR, "the server's answer: %w", err)
}
