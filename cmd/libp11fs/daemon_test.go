package libp11fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/engine"
	"p11fs/locks"
	"p11fs/mountd/rpc"
	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

const (
	soPIN   = "87654321"
	userPIN = "1234567"
)

func splitFlags(s string) []string { return strings.Fields(s) }

func splitLines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

// A daemon is an RPC server over a software token in slot 3, as p11fs has it.
type daemon struct {
	t      testing.TB
	socket string
	engine *engine.Engine

	listener *net.UnixListener
	server   *rpc.Server
	done     chan error
}

// newToken makes a software token with both PINs set.
func newToken(t testing.TB, log *slog.Logger) tokens.Token {
	t.Helper()
	dir := t.TempDir()
	lock, err := locks.Open(filepath.Join(dir, "lock"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	ctx := context.Background()
	token, err := swtok.NewKind(swtok.LoadProvider(log)).Open(ctx, tokens.Place{Name: "swtok", Dir: filepath.Join(dir, "swtok"), Lock: lock, Create: true, Group: locks.NoGroup, Log: log, Now: time.Now})
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

// serve starts a daemon; nothing of its clients is left when the test ends.
func serve(t testing.TB) *daemon {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	token := newToken(t, log)
	e, err := engine.New(engine.Config{Slots: []engine.SlotConfig{{ID: 3, Description: "test", Manufacturer: "p11fs", Token: token}}, Log: log, Processors: 2})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, socket: filepath.Join(t.TempDir(), "s"), engine: e}
	d.start()
	t.Cleanup(func() {
		d.stop()
		if st := e.Stats(); st.Sessions != 0 || st.Applications != 0 {
			t.Errorf("left behind: %+v", st)
		}
		if err := errors.Join(e.Close(), token.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	if err != nil {
		d.t.Fatal(err)
	}
	s := rpc.New(rpc.Config{Engine: d.engine, Processors: 2, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	d.listener, d.server, d.done = l, s, done
}

func (d *daemon) stop() {
	d.t.Helper()
	if err := d.listener.Close(); err != nil {
		d.t.Error(err)
	}
	d.server.Close()
	if err := <-d.done; err != nil && !errors.Is(err, net.ErrClosed) {
		d.t.Error(err)
	}
}

// environment points the module at a socket, and lets no other daemon be found.
func environment(socket string) []string {
	return append(os.Environ(), "P11FS_SOCKET="+socket,
		"ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99", "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1", "TSAN_OPTIONS=halt_on_error=1:exitcode=99")
}

// command runs the test program on the daemon.
func (d *daemon) command(b build, args ...string) *exec.Cmd {
	c := exec.Command(b.check, append([]string{b.module}, args...)...)
	c.Env = environment(d.socket)
	return c
}

// run runs a program to its end, which comes within two minutes, and returns
// what it printed. Anything on stderr is a failure: the module prints nothing.
func run(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(2*time.Minute, func() { _ = c.Process.Kill() })
	err := c.Wait()
	kill.Stop()
	if err != nil || errs.Len() != 0 {
		t.Fatalf("%v: %v\n%s%s", c.Args, err, out.String(), errs.String())
	}
	return out.String()
}
