package icsfserver

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"p11fs/tokens/icsf/icsfwire"
)

// Config says what a server is.
type Config struct {
	// DN and Password are what a client binds with, if it shows no certificate.
	DN, Password string
	// Tokens are the names of those that there are. One whose name begins with READONLY may
	// not be written to.
	Tokens []string
	// Log is told of each call, without anything of its data.
	Log *slog.Logger
	// Before, if not nil, is called with each request before it is answered, and may close
	// connections meanwhile.
	Before func(*icsfwire.Request)
}

// A Server has tokens.
type Server struct {
	conf Config

	mu     sync.Mutex // guards all below, and the attributes of objects
	tokens map[string]*token
	conns  map[*conn]bool
	closed bool
	calls  map[icsfwire.Service]int
	done   sync.WaitGroup
}

// New makes a server.
func New(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{conf: c, tokens: make(map[string]*token), conns: make(map[*conn]bool), calls: make(map[icsfwire.Service]int)}
	for i, name := range c.Tokens {
		s.tokens[name] = newToken(name, "IBM z/OS ICSF", "ICSF TKDS", fmt.Sprintf("SER%d", i), strings.HasPrefix(name, "READONLY"))
	}
	return s
}

// Serve answers the connections of l, until it or the server is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		x := &conn{Conn: c, s: s, chains: make(map[string]any)}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return errors.Join(c.Close(), net.ErrClosed)
		}
		s.conns[x] = true
		s.done.Add(1)
		s.mu.Unlock()
		go x.serve()
	}
}

// Cut closes all connections, as a network does that fails.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// Close ends the server once its calls are answered. The listener stays the caller's.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Cut()
	s.done.Wait()
}

// Calls is how often a service was asked for.
func (s *Server) Calls(service icsfwire.Service) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[service]
}

// Objects are the handles of a token's objects, in their order.
func (s *Server) Objects(name string) (list []icsfwire.Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[name]; t != nil {
		for _, o := range t.sorted() {
			list = append(list, o.handle)
		}
	}
	return list
}

// A conn is one connection, of one client.
type conn struct {
	net.Conn
	s      *Server
	who    string         // empty before it is known
	chains map[string]any // running states, by the first bytes of chain data
}

// maxChains bounds the running states of a connection.
const maxChains = 1024

// idle is how long a client may say nothing.
const idle = time.Hour

func (c *conn) serve() {
	defer c.s.done.Done()
	defer c.end()
	for {
		_ = c.SetReadDeadline(time.Now().Add(idle))
		m, err := icsfwire.ReadMessage(c)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				c.s.conf.Log.Warn("a connection ends", "err", err)
			}
			return
		}
		answer, err := c.answer(m)
		if err != nil || answer == nil {
			if err != nil {
				c.s.conf.Log.Warn("no message of a client", "err", err)
			}
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// end destroys the objects of the connection's session.
func (c *conn) end() {
	_ = c.Close()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c)
	for _, t := range c.s.tokens {
		for h, o := range t.objects {
			if o.owner == c {
				delete(t.objects, h)
			}
		}
	}
}

// answer answers a message; nil ends the connection.
func (c *conn) answer(m *icsfwire.Message) ([]byte, error) {
	switch m.Op {
	case icsfwire.BindRequest:
		return c.bind(m)
	case icsfwire.SearchRequest:
		entry, err := icsfwire.PrintEntry(m.ID, "1.3.6.1.4.1.1466.20037", icsfwire.RequestOID)
		if err != nil {
			return nil, err
		}
		end, err := icsfwire.PrintResult(m.ID, icsfwire.SearchDone, icsfwire.Success, "", nil)
		return slices.Concat(entry, end), err
	case icsfwire.ExtendedRequest:
		return c.extended(m)
	case icsfwire.UnbindRequest:
		return nil, nil
	}
	return nil, fmt.Errorf("there is no operation %#x", byte(m.Op))
}

func (c *conn) bind(m *icsfwire.Message) ([]byte, error) {
	who, err := icsfwire.ParseBind(m.Body)
	if err != nil {
		return nil, err
	}
	c.who = ""
	code := icsfwire.InvalidCredentials
	switch right := subtle.ConstantTimeCompare(who.Password, []byte(c.s.conf.Password)) == 1; {
	case who.External:
		if t, ok := c.Conn.(*tls.Conn); ok {
			if list := t.ConnectionState().PeerCertificates; len(list) > 0 {
				code, c.who = icsfwire.Success, list[0].Subject.String()
			}
		}
	case c.s.conf.DN != "" && strings.EqualFold(who.DN, c.s.conf.DN) && right:
		code, c.who = icsfwire.Success, who.DN
	}
	c.s.conf.Log.Info("bind", "dn", who.DN, "external", who.External, "code", code)
	return icsfwire.PrintResult(m.ID, icsfwire.BindResponse, code, "", nil)
}

func (c *conn) extended(m *icsfwire.Message) ([]byte, error) {
	oid, value, err := icsfwire.ParseExtended(m.Body)
	if err != nil {
		return nil, err
	}
	refuse := func(code int) ([]byte, error) {
		return icsfwire.PrintResult(m.ID, icsfwire.ExtendedResponse, code, "", nil)
	}
	switch {
	case oid != icsfwire.RequestOID:
		return refuse(icsfwire.ProtocolError)
	case c.who == "":
		return refuse(icsfwire.InsufficientAccess)
	}
	r, err := icsfwire.ParseRequest(value)
	if err != nil {
		c.s.conf.Log.Warn("no request", "err", err)
		return refuse(icsfwire.ProtocolError)
	}
	if c.s.conf.Before != nil {
		c.s.conf.Before(r)
	}
	service := icsfwire.ServiceOf(r.Data)
	c.s.mu.Lock()
	c.s.calls[service]++
	h, data, err := c.do(r)
	c.s.mu.Unlock()
	var why refusal
	if err != nil && !errors.As(err, &why) {
		c.s.conf.Log.Warn("a call fails", "service", service, "err", err)
		why = refusal{16, 0}
	}
	c.s.conf.Log.Log(context.Background(), slog.LevelInfo, service.String(), "handle", string(r.Handle), "rules", strings.Join(r.Rules, " "), "return", why.ret, "reason", why.reason)
	answer, err := icsfwire.PrintResponse(why.ret, why.reason, h, service, data)
	if err != nil {
		return nil, err
	}
	return icsfwire.PrintResult(m.ID, icsfwire.ExtendedResponse, icsfwire.Success, "", answer)
}

// A refusal is the return and the reason code of a call that fails.
type refusal struct{ ret, reason int }

func (r refusal) Error() string {
	return fmt.Sprintf("return code %d, reason code %d", r.ret, r.reason)
}

// The refusals that clients tell apart.
func refused(reason int) error { return refusal{8, reason} }

const (
	unaligned      = 72
	badWrapped     = 2028
	noRoom         = 3003
	noToken        = 3019
	badValue       = 3030
	incomplete     = 3033
	readOnly       = 3034
	notPermitted   = 3038
	wrongType      = 3039
	unwrappable    = 3041
	noObject       = 3043
	unextractable  = 3045
	writeProtected = 3063
	badData        = 11000
)

// TLS is what a server has TLS with: its certificate, and, where ca is not empty, who signs
// those of its clients, which need one then. It ends at TLS 1.2: OpenLDAP with GnuTLS shows a
// server of Go's no certificate with 1.3.
func TLS(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	if ca == "" {
		return conf, nil
	}
	b, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !conf.ClientCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	return conf, nil
}
