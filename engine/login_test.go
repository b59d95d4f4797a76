package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestLoginIsTheApplications(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s, other := b.user(t), b.session(t, b.app(), rw)
	if _, ok := other.Application().LoggedIn(b.slot); ok {
		t.Error("a login shows in another application")
	}
	want(t, other.Logout(t.Context()), p11.CKR_USER_NOT_LOGGED_IN)
	if u, ok := s.Application().LoggedIn(b.slot); !ok || u != p11.CKU_USER {
		t.Errorf("LoggedIn = %v, %v", u, ok)
	}
	logIn(t, other, p11.CKU_SO, "87654321")
	if stateOf(s) != p11.CKS_RW_USER_FUNCTIONS {
		t.Error("the security officer of another application changed the state")
	}
}

func TestLoginRefused(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{NoUserPIN: true})
	s := b.session(t, b.app(), rw)
	want(t, s.Login(ctx, p11.CKU_USER, pin(t, "1234")), p11.CKR_USER_PIN_NOT_INITIALIZED)
	want(t, s.Login(ctx, 7, pin(t, "1234")), p11.CKR_USER_TYPE_INVALID)
	want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, "1234")), p11.CKR_OPERATION_NOT_INITIALIZED)
}

func TestLoginGeneration(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a := b.app()
	seen := map[uint64]string{}
	check := func(when string) {
		t.Helper()
		g := a.LoginGeneration(b.slot)
		if before, ok := seen[g]; ok {
			t.Errorf("%s: generation %d was there %s", when, g, before)
		}
		if again := a.LoginGeneration(b.slot); again != g {
			t.Errorf("%s: generation changed from %d to %d by itself", when, g, again)
		}
		seen[g] = when
	}
	check("at first")
	want(t, a.InitToken(ctx, b.slot, pin(t, "87654321"), "new"), p11.CKR_OK)
	check("after InitToken")
	s := b.session(t, a, rw)
	logIn(t, s, p11.CKU_SO, "87654321")
	check("after SO login")
	want(t, s.InitPIN(ctx, pin(t, "1234")), p11.CKR_OK)
	want(t, s.Logout(ctx), p11.CKR_OK)
	check("after SO logout")
	logIn(t, s, p11.CKU_USER, "1234")
	check("after login")
	b.token.Lock()
	check("after lock-out")
}

func TestPINs(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a := b.app()
	readOnly, s := b.session(t, a, ro), b.session(t, a, rw)
	old, fresh := pin(t, "1234"), pin(t, "4321")
	want(t, readOnly.SetPIN(ctx, old, fresh), p11.CKR_SESSION_READ_ONLY)
	want(t, s.InitPIN(ctx, fresh), p11.CKR_USER_NOT_LOGGED_IN)
	want(t, s.SetPIN(ctx, fresh, old), p11.CKR_PIN_INCORRECT)
	want(t, s.SetPIN(ctx, old, pin(t, "1")), p11.CKR_PIN_LEN_RANGE)
	want(t, s.SetPIN(ctx, old, fresh), p11.CKR_OK) // public session: the user's
	logIn(t, s, p11.CKU_USER, "4321")
	want(t, s.InitPIN(ctx, fresh), p11.CKR_USER_NOT_LOGGED_IN)
	want(t, s.SetPIN(ctx, fresh, old), p11.CKR_OK)
	want(t, s.Logout(ctx), p11.CKR_OK)
	want(t, readOnly.Close(), p11.CKR_OK)
	logIn(t, s, p11.CKU_SO, "87654321")
	want(t, s.SetPIN(ctx, pin(t, "87654321"), pin(t, "11111111")), p11.CKR_OK)
	want(t, s.InitPIN(ctx, fresh), p11.CKR_OK)
	want(t, s.Logout(ctx), p11.CKR_OK)
	logIn(t, s, p11.CKU_SO, "11111111")
	want(t, s.Logout(ctx), p11.CKR_OK)
	logIn(t, s, p11.CKU_USER, "4321")
}

func TestInitToken(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	a, other := b.app(), b.app()
	s := b.session(t, other, rw)
	create(t, s, "class=data token=true label=public")
	want(t, a.InitToken(ctx, b.slot, pin(t, "87654321"), "new"), p11.CKR_SESSION_EXISTS)
	want(t, s.Close(), p11.CKR_OK)
	want(t, a.InitToken(ctx, b.slot, pin(t, "1"), "new"), p11.CKR_PIN_INCORRECT)
	want(t, a.InitToken(ctx, b.slot, pin(t, "87654321"), "a label that is longer than 32 bytes"), p11.CKR_ARGUMENTS_BAD)
	want(t, a.InitToken(ctx, b.list()[1], pin(t, "87654321"), "new"), p11.CKR_TOKEN_NOT_PRESENT)
	want(t, a.InitToken(ctx, b.slot, pin(t, "87654321"), "new"), p11.CKR_OK)
	list, err := a.Objects(ctx, b.slot, nil)
	if err != nil || len(list) != 0 {
		t.Errorf("after C_InitToken: %d objects, %v", len(list), err)
	}
	info, err := b.slot.TokenInfo(ctx)
	if err != nil || info.Label != "new" {
		t.Errorf("label %q, %v", info.Label, err)
	}
	want(t, b.session(t, a, rw).Login(ctx, p11.CKU_USER, pin(t, "1234")), p11.CKR_USER_PIN_NOT_INITIALIZED)
}

// The log says whose sessions are in the way of C_InitToken; who is refused is not told.
func TestHoldersAreLogged(t *testing.T) {
	var said bytes.Buffer
	token := hooks.New("tok", hooks.Options{})
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}
	for range maxHolders + 1 {
		b.by(t, 1000, "files")
	}
	err = b.app().InitToken(t.Context(), b.slot, pin(t, "87654321"), "new")
	want(t, err, p11.CKR_SESSION_EXISTS)
	if strings.Contains(err.Error(), "guess") {
		t.Errorf("the refused one is told of others: %v", err)
	}
	line := said.String()
	if n := strings.Count(line, `1 of files \"guess\", uid 1000, pid 77`); n != maxHolders || !strings.Contains(line, "and more") || !strings.Contains(line, "token=tok") {
		t.Errorf("%d of %d are named: %s", n, maxHolders, line)
	}
}

// A session opened while C_InitToken runs waits for it.
func TestOpenDuringInitToken(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if method == "InitToken" {
			close(running)
			<-finish
		}
		return nil
	}})
	a := b.app()
	done := make(chan error)
	so := pin(t, "87654321")
	go func() { done <- a.InitToken(t.Context(), b.slot, so, "new") }()
	<-running
	want(t, b.app().InitToken(t.Context(), b.slot, so, "x"), p11.CKR_SESSION_EXISTS)
	opened := make(chan error)
	go func() {
		_, err := b.app().OpenSession(t.Context(), b.slot, ro)
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("session opened during C_InitToken (%v)", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(finish)
	want(t, <-done, p11.CKR_OK)
	want(t, <-opened, p11.CKR_OK)
}
