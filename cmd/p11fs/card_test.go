package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card"
	"p11fs/tokens/card/ep11"
)

// serveCards runs p11fs card serve, and returns what ends it.
func serveCards(t *testing.T, dir, socket string, args ...string) (stop func()) {
	t.Helper()
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"card", "serve", "--dir", dir, "--socket", socket}, args...), streams{out: in, err: io.Discard})
		_ = in.CloseWithError(errors.Join(io.EOF, err)) // which never fails
		done <- err
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, "answer at "+socket) {
		cancel()
		t.Fatalf("%q, %v, %v", line, err, <-done)
	}
	stopped := false
	stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("card serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestCard serves cards, uses them, and changes them meanwhile by the other commands.
func TestCard(t *testing.T) {
	root := t.TempDir()
	dir, socket := filepath.Join(root, "card"), filepath.Join(root, "socket")
	do := func(code int, args ...string) string {
		t.Helper()
		r := command(t, "", append(append([]string{"card"}, args...), "--dir", dir)...)
		if r.code != code {
			t.Fatalf("card %v: %+v", args, r)
		}
		return r.out
	}
	do(exitFailure, "status") // there are none yet
	stop := serveCards(t, dir, socket, "--apqn", "00.0001,0a.0002", "--provider", "go")
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", st.Mode(), err)
	}
	do(exitBusy, "serve", "--socket", socket)
	via := card.Dial(socket, card.EP11)
	t.Cleanup(func() { _ = via.Close() }) // the server is gone then
	template, err := p11.ParseTemplate("key-type=generic-secret value-len=32 sign=true")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := ep11.GenerateKey(t.Context(), via, nil, p11.Mechanism{Type: p11.CKM_GENERIC_SECRET_KEY_GEN}, template, nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(target card.Target, want p11.RV) {
		t.Helper()
		_, err := ep11.SignSingle(t.Context(), via, target, key, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, []byte("x"))
		if p11.RVOf(err) != want {
			t.Errorf("sign: %v, not %v", err, want)
		}
	}
	sign(nil, p11.CKR_OK)
	do(exitOK, "offline", "00.0001")
	sign(card.Target{{Adapter: 0, Domain: 1}}, ep11.TransportError)
	if out := do(exitOK, "status"); strings.Count(out, "wk=") != 2 || !strings.Contains(out, "00.0001 offline") || !strings.Contains(out, "0a.0002 online") || strings.Contains(out, "committed") {
		t.Errorf("status:\n%s", out)
	}
	do(exitOK, "online", "00.0001")
	do(exitFailure, "wk", "activate")
	do(exitOK, "wk", "new")
	do(exitOK, "wk", "commit")
	if out := do(exitOK, "status"); strings.Count(out, "committed") != 2 {
		t.Errorf("status:\n%s", out)
	}
	if r := command(t, "", "card", "wk", "activate", "--dir", dir); r.code != exitFailure || !strings.Contains(r.err, "p11fs card reencipher TOKEN") {
		t.Errorf("activate before reencipher: %+v", r)
	}
	do(exitUsage, "wk", "new", "--force")
	next, err := ep11.Reencrypt(t.Context(), via, nil, key)
	if err != nil {
		t.Fatal(err)
	}
	do(exitOK, "wk", "activate")
	sign(nil, ep11.WKIDMismatch)
	key = next
	sign(nil, p11.CKR_OK)
	for _, change := range []string{"new", "commit"} { // of the change before no key is under this one
		do(exitOK, "wk", change)
	}
	do(exitFailure, "wk", "activate")
	do(exitOK, "wk", "activate", "--force")
	sign(nil, ep11.WKIDMismatch)
	if key, _, err = ep11.GenerateKey(t.Context(), via, nil, p11.Mechanism{Type: p11.CKM_GENERIC_SECRET_KEY_GEN}, template, nil); err != nil {
		t.Fatal(err)
	}
	sign(nil, p11.CKR_OK)
	do(exitOK, "wk", "separate", "--apqn", "0a.0002")
	sign(card.Target{{Adapter: 10, Domain: 2}}, ep11.WKIDMismatch)
	cardPoints(t, do, sign)
	do(exitUsage, "wk", "rotate")
	do(exitUsage, "offline", "nothing")
	do(exitUsage, "status", "--kind", "none")
	do(exitUsage, "serve", "--apqn", "00.0003", "--socket", socket)
	stop()
	serveCards(t, dir, socket)
	sign(nil, p11.CKR_OK) // with another process, as it were
}

// cardPoints shows and switches control points of cards whose key sign uses.
func cardPoints(t *testing.T, do func(int, ...string) string, sign func(card.Target, p11.RV)) {
	t.Helper()
	points := do(exitOK, "points")
	if !strings.Contains(points, "\n3 SIGN_SYMM=on\n") || !strings.Contains(points, "\n37 USER_SET_TRUSTED=off\n") {
		t.Errorf("points:\n%s", points)
	}
	do(exitOK, "points", "SIGN_SYMM=off", "37=on")
	sign(nil, ep11.StaticPolicy)
	if out := do(exitOK, "points"); out != strings.NewReplacer("3 SIGN_SYMM=on", "3 SIGN_SYMM=off", "USER_SET_TRUSTED=off", "USER_SET_TRUSTED=on").Replace(points) {
		t.Errorf("points:\n%s", out)
	}
	do(exitOK, "points", "XCP_CPB_SIGN_SYMM=on")
	sign(nil, p11.CKR_OK)
	for _, bad := range []string{"SIGN_SYMM", "SIGN_SYMM=", "SIGN=on", "128=on", "-1=off"} {
		do(exitUsage, "points", "--", bad)
	}
	do(exitUsage, "points", "--kind", "cca")
}

// TestCardSocket is of what is at the socket's place.
func TestCardSocket(t *testing.T) {
	root := t.TempDir()
	file, stale := filepath.Join(root, "file"), filepath.Join(root, "stale")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "", "card", "serve", "--dir", filepath.Join(root, "card"), "--socket", file); r.code != exitFailure {
		t.Errorf("a file: %+v", r)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	serveCards(t, filepath.Join(root, "card"), stale)
}
