package rpc

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

const (
	soPIN   = "87654321"
	userPIN = "1234567"
)

// newToken makes a software token with both PINs set.
func newToken(t testing.TB, log *slog.Logger, name string) tokens.Token {
	t.Helper()
	dir := t.TempDir()
	lock, err := locks.Open(filepath.Join(dir, "lock"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	ctx := context.Background()
	token, err := swtok.NewKind(swtok.LoadProvider(log)).Open(ctx, tokens.Place{Name: name, Dir: filepath.Join(dir, "swtok"), Lock: lock, Create: true, Group: locks.NoGroup, Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	pin := func(s string) *secret.Bytes {
		p, err := secret.New([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	if err := token.InitToken(ctx, pin(soPIN), "test"); err != nil {
		t.Fatal(err)
	}
	so, err := token.Login(ctx, p11.CKU_SO, pin(soPIN))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(token.InitPIN(ctx, so, pin(userPIN)), so.Close()); err != nil {
		t.Fatal(err)
	}
	return token
}

// serve starts a server over a software token in slot 3 and returns the
// socket's path.
func serve(t testing.TB, config Config) (string, *Server) {
	t.Helper()
	return serveSlots(t, config, 1)
}

// serveSlots is serve with more slots behind slot 3.
func serveSlots(t testing.TB, config Config, slots int) (string, *Server) {
	t.Helper()
	var made []tokens.Token
	for i := range slots {
		made = append(made, newToken(t, slog.New(slog.DiscardHandler), "swtok"+strings.Repeat("x", i)))
	}
	return serveTokens(t, config, made...)
}

// serveTokens is serve over tokens in slot 3 and those behind it, which it closes.
func serveTokens(t testing.TB, config Config, made ...tokens.Token) (string, *Server) {
	t.Helper()
	return serveLimited(t, config, 0, made...)
}

// serveLimited is serveTokens where one uid may hold so many bytes; 0 is the default.
func serveLimited(t testing.TB, config Config, bytes int64, made ...tokens.Token) (string, *Server) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var list []engine.SlotConfig
	for i, token := range made {
		list = append(list, engine.SlotConfig{ID: p11.SlotID(3 + i), Description: "test", Manufacturer: "p11fs", Token: token})
	}
	e, err := engine.New(engine.Config{Slots: list, Log: log, Processors: 2, Limits: engine.Limits{Sessions: 10000, Bytes: bytes}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	config.Engine, config.Log, config.Processors = e, log, 2
	s := New(config)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if st := e.Stats(); st.Sessions != 0 || st.Applications != 0 {
			t.Errorf("left behind: %+v", st)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for _, token := range made {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return path, s
}

// client is the other end of a connection, in one protocol.
type client struct {
	t        testing.TB
	c        *net.UnixConn
	r        *bufio.Reader
	protocol wire.Protocol
	code     uint32
}

// dial connects and agrees on the protocol.
func dial(t testing.TB, path string, p wire.Protocol) *client {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	k := &client{t: t, c: c, r: bufio.NewReader(c), protocol: p, code: 15}
	if _, err := c.Write([]byte{byte(p)}); err != nil {
		t.Fatal(err)
	}
	if b, err := k.r.ReadByte(); err != nil || b != p.Answer() {
		t.Fatalf("version byte: %d, %v", b, err)
	}
	return k
}

// begin returns a Writer for a call's request.
func (k *client) begin(call wire.Call) *wiretest.Writer {
	k.code++
	b, _ := wire.AppendFrame(nil, k.code, "client")
	w := wiretest.NewWriter(b, k.protocol)
	s, ok := wire.Signatures(call)
	if !ok {
		k.t.Fatalf("no call %d", call)
	}
	w.Header(uint32(call), s.Request)
	return w
}

func (k *client) send(w *wiretest.Writer) {
	k.t.Helper()
	if err := wire.EndFrame(w.B, 0); err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.c.Write(w.B); err != nil {
		k.t.Fatal(err)
	}
}

// receive reads one reply: its code and a Reader behind the header, or the
// CK_RV of an error.
func (k *client) receive() (code uint32, r *wire.Reader, rv p11.RV) {
	k.t.Helper()
	code, body, err := wire.ReadFrame(k.r, nil, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	r = wire.NewReader(body, k.protocol)
	call, signature := r.Header()
	if wire.Call(call) == wire.CallError {
		rv = p11.RV(r.Ulong())
		if signature != "u" || r.End() != nil || rv == p11.CKR_OK {
			k.t.Fatalf("bad error reply %q, %v", signature, rv)
		}
		return code, r, rv
	}
	if s, ok := wire.Signatures(wire.Call(call)); !ok || s.Response != signature {
		k.t.Fatalf("reply %d with signature %q", call, signature)
	}
	return code, r, p11.CKR_OK
}

// call sends one request and reads its reply.
func (k *client) call(call wire.Call, fill func(*wiretest.Writer)) (*wire.Reader, p11.RV) {
	k.t.Helper()
	w := k.begin(call)
	if fill != nil {
		fill(w)
	}
	k.send(w)
	code, r, rv := k.receive()
	if code != k.code {
		k.t.Fatalf("reply to %d, sent %d", code, k.code)
	}
	return r, rv
}

func (k *client) must(call wire.Call, fill func(*wiretest.Writer)) *wire.Reader {
	k.t.Helper()
	r, rv := k.call(call, fill)
	if rv != p11.CKR_OK {
		s, _ := wire.Signatures(call)
		k.t.Fatalf("%s: %v", s.Name, rv)
	}
	return r
}

func data(b []byte) wire.Array { return wire.Array{Data: b} }

func (k *client) initialize() *client {
	k.t.Helper()
	k.must(wire.CallInitialize, func(w *wiretest.Writer) {
		w.Array(data([]byte(wire.Handshake)))
		w.Byte(0)
		w.Array(data([]byte{0}))
	})
	return k
}

// session opens a read-write session on slot 3.
func (k *client) session() uint64 {
	k.t.Helper()
	r := k.must(wire.CallOpenSession, func(w *wiretest.Writer) {
		w.Ulong(3)
		w.Ulong(uint64(p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION))
	})
	return r.Ulong()
}

func (k *client) login(session uint64) {
	k.t.Helper()
	k.must(wire.CallLogin, func(w *wiretest.Writer) {
		w.Ulong(session)
		w.Ulong(uint64(p11.CKU_USER))
		w.Array(data([]byte(userPIN)))
	})
}

func attribute(t p11.AttributeType, v []byte) wire.Attribute {
	return wire.Attribute{Type: t, Valid: true, Length: uint32(len(v)), Value: v}
}

// ecKey makes a P-256 pair of session objects.
func (k *client) ecKey(session uint64) (public, private uint64) {
	k.t.Helper()
	params, _ := p11.CurveParams("secp256r1")
	r := k.must(wire.CallGenerateKeyPair, func(w *wiretest.Writer) {
		w.Ulong(session)
		w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}})
		w.Attributes([]wire.Attribute{attribute(p11.CKA_EC_PARAMS, params), attribute(p11.CKA_VERIFY, p11.Bool(true))})
		w.Attributes([]wire.Attribute{attribute(p11.CKA_SIGN, p11.Bool(true))})
	})
	return r.Ulong(), r.Ulong()
}
