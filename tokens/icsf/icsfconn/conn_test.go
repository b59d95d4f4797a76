package icsfconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/icsf/icsftest/icsfrig"
	"p11fs/tokens/icsf/icsftest/icsfserver"
	"p11fs/tokens/icsf/icsfwire"
)

const (
	dn       = "racfid=USER1,profiletype=user,cn=RACF"
	password = "RACFPASS"
)

// serve starts a server, with TLS if conf is not nil, and returns it and its address.
func serve(t testing.TB, conf *tls.Config, before func(*icsfwire.Request)) (*icsfserver.Server, string) {
	t.Helper()
	s := icsfserver.New(icsfserver.Config{DN: dn, Password: password, Tokens: []string{"TESTTOKEN"}, Before: before})
	return s, icsfrig.Serve(t, conf, s)
}

func conn(t testing.TB, c Config) *Conn {
	t.Helper()
	if c.Password == nil {
		c.Password = func() (*secret.Bytes, error) { return secret.New([]byte(password)) }
	}
	x := New(c)
	t.Cleanup(x.Close)
	return x
}

// pki makes an authority and what it has signed, and returns the directory of ca.pem,
// server.pem and client.pem, which have their keys in them.
func pki(t testing.TB) string {
	t.Helper()
	a := icsfrig.NewAuthority(t)
	for _, name := range []string{"server", "client"} {
		a.Sign(t, name, &x509.Certificate{Subject: pkix.Name{CommonName: name + ".pem"}})
	}
	return a.Dir
}

var listTokens = &icsfwire.Request{Rules: []string{"TOKEN"}, Data: &icsfwire.ListTokens{Room: 1160, Max: 10}}

func list(t testing.TB, c *Conn) error {
	t.Helper()
	var out icsfwire.TokenList
	_, err := c.Call(t.Context(), listTokens, &out)
	if err == nil && (len(out.Records) != icsfwire.TokenRecordSize || !bytes.HasPrefix(out.Records, []byte("TESTTOKEN "))) {
		t.Errorf("the tokens are %q", out.Records)
	}
	return err
}

func create(c *Conn, label string) (icsfwire.Handle, error) {
	return c.Call(context.Background(), &icsfwire.Request{Handle: "TESTTOKEN", Rules: []string{"OBJECT"}, Data: &icsfwire.CreateObject{Attributes: p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)}, {Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_LABEL, Value: []byte(label)},
	}}}, nil)
}

// TestBinds binds in each way, with TLS and without.
func TestBinds(t *testing.T) {
	dir := pki(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	plain, err := icsfserver.TLS(file("server.pem"), file("server.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	mutual, err := icsfserver.TLS(file("server.pem"), file("server.pem"), file("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := func() (*secret.Bytes, error) { return secret.New([]byte("WRONG")) }
	for name, c := range map[string]struct {
		tls  *tls.Config
		conf Config
		want p11.RV
		says string
	}{
		"SIMPLE":                    {nil, Config{DN: dn}, p11.CKR_OK, ""},
		"SIMPLE in TLS":             {plain, Config{DN: dn, CACert: file("ca.pem")}, p11.CKR_OK, ""},
		"EXTERNAL":                  {mutual, Config{External: true, CACert: file("ca.pem"), Cert: file("client.pem"), Key: file("client.pem")}, p11.CKR_OK, ""},
		"a wrong password":          {nil, Config{DN: dn, Password: wrong}, p11.CKR_DEVICE_ERROR, "refused the stored password"},
		"another name":              {nil, Config{DN: "cn=x"}, p11.CKR_DEVICE_ERROR, "refused the stored password"},
		"no trust":                  {plain, Config{DN: dn}, p11.CKR_TOKEN_NOT_PRESENT, "unknown authority"},
		"no certificate":            {mutual, Config{External: true, CACert: file("ca.pem")}, p11.CKR_TOKEN_NOT_PRESENT, ""},
		"a certificate in vain":     {plain, Config{External: true, CACert: file("ca.pem"), Cert: file("client.pem"), Key: file("client.pem")}, p11.CKR_DEVICE_ERROR, "does not know the certificate"},
		"no file":                   {plain, Config{External: true, CACert: file("none.pem")}, p11.CKR_FUNCTION_FAILED, "CACERT"},
		"a server without TLS":      {nil, Config{DN: dn, URI: "ldaps"}, p11.CKR_TOKEN_NOT_PRESENT, "there is no TLS"},
		"no TLS where there is one": {plain, Config{DN: dn, URI: "ldap"}, p11.CKR_TOKEN_NOT_PRESENT, "does not answer as a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := serve(t, c.tls, nil)
			scheme := c.conf.URI
			if scheme == "" {
				if scheme = "ldap"; c.tls != nil {
					scheme = "ldaps"
				}
			}
			c.conf.URI = scheme + "://" + addr
			x := conn(t, c.conf)
			err := list(t, x)
			if got := p11.RVOf(err); got != c.want || c.says != "" && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %v", got, err)
			}
			if (x.Failed() == nil) != (c.want == p11.CKR_OK) {
				t.Errorf("offline: %v", x.Failed())
			}
		})
	}
}

// TestAway calls a server that is not there, and then is.
func TestAway(t *testing.T) {
	// An address that nobody else gets: a socket that is bound, and does not listen yet.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*unix.SockaddrInet4).Port))
	c := conn(t, Config{URI: "ldap://" + addr, DN: dn})
	var first time.Time
	for range 3 {
		c.mu.Lock()
		c.next = time.Now() // it is tried each time
		c.mu.Unlock()
		if err := list(t, c); p11.RVOf(err) != p11.CKR_TOKEN_NOT_PRESENT || c.Failed() == nil {
			t.Fatalf("a server that is not there: %v", err)
		}
		since, why := c.Away()
		if first.IsZero() {
			first = since
		}
		if why == nil || since.IsZero() || !since.Equal(first) {
			t.Errorf("it is away since %v, not %v: %v", since, first, why)
		}
	}
	s := icsfserver.New(icsfserver.Config{DN: dn, Password: password, Tokens: []string{"TESTTOKEN"}})
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
		s.Close()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(firstPause) {
		if err = list(t, c); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a server that has come back: %v", err)
		}
	}
	if c.Failed() != nil || c.Offline() != nil {
		t.Errorf("offline: %v", c.Failed())
	}
}

// TestPause: who asks whether the server is away is told so until it is time to try again.
func TestPause(t *testing.T) {
	c := New(Config{})
	c.failed, c.next = p11.CKR_TOKEN_NOT_PRESENT, time.Now().Add(time.Hour)
	if c.Offline() == nil || c.Failed() == nil {
		t.Error("a server that has just failed is there")
	}
	c.next = time.Now()
	if err := c.Offline(); err != nil || c.Failed() == nil {
		t.Errorf("the next use is not to try: %v", err)
	}
	if _, why := c.Away(); why == nil {
		t.Error("between two tries the server is there")
	}
}

// TestLost cuts the connection while calls are under way: what changes nothing is done again,
// what may have been done is not.
func TestLost(t *testing.T) {
	var cut atomic.Int32
	cutting := func() {}
	s, addr := serve(t, nil, func(*icsfwire.Request) {
		if cut.Add(-1) >= 0 {
			cutting()
		}
	})
	cutting = s.Cut
	c := conn(t, Config{URI: "ldap://" + addr, DN: dn})
	if err := list(t, c); err != nil {
		t.Fatal(err)
	}
	cut.Store(1)
	if err := list(t, c); err != nil {
		t.Errorf("a listing on a connection that was cut: %v", err)
	}
	if got := s.Calls(icsfwire.TRL); got != 3 {
		t.Errorf("it was asked for %d times", got)
	}
	cut.Store(1)
	if _, err := create(c, "x"); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("an object made on a connection that was cut: %v", err)
	}
	if got := s.Calls(icsfwire.TRC); got != 1 {
		t.Errorf("an object was made %d times", got)
	}
	cut.Store(0)
	link, err := c.Link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Cut() // between calls
	<-link.Lost()
	if _, err := create(c, "y"); err != nil {
		t.Errorf("after it was cut between calls: %v", err)
	}
	cut.Store(1000)
	if err := list(t, c); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a server that ends each call: %v", err)
	}
}

// TestManyAtOnce has calls share a connection.
func TestManyAtOnce(t *testing.T) {
	s, addr := serve(t, nil, nil)
	c := conn(t, Config{URI: "ldap://" + addr, DN: dn})
	var wg sync.WaitGroup
	handles := make([]icsfwire.Handle, 32)
	for i := range handles {
		wg.Go(func() {
			var err error
			if handles[i], err = create(c, string(rune('a'+i))); err != nil {
				t.Error(err)
				return
			}
			var out icsfwire.AttributeList
			if _, err := c.Call(t.Context(), &icsfwire.Request{Handle: handles[i], Data: &icsfwire.GetAttributes{Room: 1000}}, &out); err != nil || out.Attributes.Label() != string(rune('a'+i)) {
				t.Errorf("%d: the label is %q, %v", i, out.Attributes.Label(), err)
			}
		})
	}
	wg.Wait()
	if got := len(s.Objects("TESTTOKEN")); got != len(handles) {
		t.Errorf("there are %d objects", got)
	}
}

// TestInterrupts gives calls up that a server does not answer.
func TestInterrupts(t *testing.T) {
	stop := make(chan struct{})
	entered := make(chan struct{}, 16)
	_, addr := serve(t, nil, func(*icsfwire.Request) {
		entered <- struct{}{}
		<-stop
	})
	// Before serve's own cleanup, which waits for the calls.
	t.Cleanup(func() { close(stop) })
	c := conn(t, Config{URI: "ldap://" + addr, DN: dn, Timeout: 100 * time.Millisecond})
	if err := list(t, c); p11.RVOf(err) != p11.CKR_DEVICE_ERROR || !strings.Contains(err.Error(), "not answered") {
		t.Errorf("a server that does not answer: %v", err)
	}
	<-entered
	patient := conn(t, Config{URI: "ldap://" + addr, DN: dn, Timeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	_, err := patient.Call(ctx, listTokens, &icsfwire.TokenList{})
	if p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED || !errors.Is(err, context.Canceled) {
		t.Errorf("a call that is given up: %v", err)
	}
	patient.Close()
	if err := list(t, patient); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
		t.Errorf("a call after the end: %v", err)
	}
}

// TestHostile talks to servers that say what no server says.
func TestHostile(t *testing.T) {
	for name, says := range map[string]string{
		"nothing": "", "words": "HTTP/1.1 400 Bad Request\r\n\r\n", "much": "\x30\x84\x7f\xff\xff\xff", "an answer to nobody": "\x30\x0c\x02\x01\x63\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
		"a bind that is cut off": "\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.ReadFull(c, make([]byte, 2))
					_, _ = io.WriteString(c, says)
					_ = c.Close()
				}
			}()
			c := conn(t, Config{URI: "ldap://" + l.Addr().String(), DN: dn})
			if err := list(t, c); p11.RVOf(err) != p11.CKR_TOKEN_NOT_PRESENT {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestTrace looks for secrets in a trace.
func TestTrace(t *testing.T) {
	_, addr := serve(t, nil, nil)
	var trace bytes.Buffer
	c := conn(t, Config{URI: "ldap://" + addr, DN: dn, Trace: &trace})
	value := []byte("the value of a key ..")
	h, err := c.Call(t.Context(), &icsfwire.Request{Handle: "TESTTOKEN", Rules: []string{"OBJECT"}, Data: &icsfwire.CreateObject{Attributes: p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
		{Type: p11.CKA_LABEL, Value: []byte("a label")}, {Type: p11.CKA_VALUE, Value: value},
	}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var read icsfwire.AttributeList
	if _, err := c.Call(t.Context(), &icsfwire.Request{Handle: h, Data: &icsfwire.GetAttributes{Room: 1000}}, &read); err != nil {
		t.Fatal(err)
	}
	if got, _ := read.Attributes.Get(p11.CKA_VALUE); !bytes.Equal(got, value) {
		t.Errorf("the trace has changed the value to %q", got)
	}
	var mac icsfwire.MACResult
	text := []byte("what is signed")
	if _, err := c.Call(t.Context(), &icsfwire.Request{Handle: h, Rules: []string{"SHA-256", "ONLY"}, Data: &icsfwire.MAC{Text: text, Chain: make([]byte, icsfwire.ChainSize), Room: 64}}, &mac); err != nil {
		t.Fatal(err)
	}
	said := trace.String()
	for name, b := range map[string][]byte{"a value": value, "a message": text, "a MAC": mac.MAC, "the password": []byte(password)} {
		if strings.Contains(said, hex.EncodeToString(b)) {
			t.Errorf("the trace has %s", name)
		}
	}
	for name, b := range map[string][]byte{"a label": []byte("a label"), "a handle": h.Print(), "a rule": []byte("SHA-256 ONLY")} {
		if !strings.Contains(said, hex.EncodeToString(b)) {
			t.Errorf("the trace has not %s", name)
		}
	}
	if got := strings.Count(said, "\n"); got != 6 {
		t.Errorf("the trace has %d lines", got)
	}
}

// TestErrors translates codes of ICSF.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		service     icsfwire.Service
		ret, reason int
		want        p11.RV
	}{
		{icsfwire.PKS, 0, 0, p11.CKR_OK}, {icsfwire.HMV, 4, 8000, p11.CKR_SIGNATURE_INVALID}, {icsfwire.PKV, 4, 11000, p11.CKR_SIGNATURE_INVALID},
		{icsfwire.PKS, 4, 1, p11.CKR_FUNCTION_FAILED}, {icsfwire.PKS, 8, 11000, p11.CKR_DATA_LEN_RANGE}, {icsfwire.PKS, 8, 3043, p11.CKR_KEY_HANDLE_INVALID},
		{icsfwire.GAV, 8, 3043, p11.CKR_OBJECT_HANDLE_INVALID}, {icsfwire.TRL, 8, 3019, p11.CKR_TOKEN_NOT_PRESENT}, {icsfwire.SAV, 8, 3063, p11.CKR_FUNCTION_REJECTED},
		{icsfwire.PKS, 8, 1, p11.CKR_FUNCTION_FAILED}, {icsfwire.PKS, 12, 0, p11.CKR_DEVICE_ERROR}, {icsfwire.PKS, 16, 4, p11.CKR_DEVICE_ERROR},
	} {
		if err := serviceError(c.service, c.ret, c.reason); p11.RVOf(err) != c.want {
			t.Errorf("%s %d/%d: %v", c.service, c.ret, c.reason, err)
		}
	}
	for code, want := range map[int]p11.RV{0: p11.CKR_OK, 2: p11.CKR_FUNCTION_NOT_SUPPORTED, 12: p11.CKR_FUNCTION_NOT_SUPPORTED, 50: p11.CKR_FUNCTION_REJECTED, 51: p11.CKR_DEVICE_ERROR, 80: p11.CKR_DEVICE_ERROR} {
		if err := resultError(icsfwire.Result{Code: code}); p11.RVOf(err) != want {
			t.Errorf("result %d: %v", code, err)
		}
	}
}
