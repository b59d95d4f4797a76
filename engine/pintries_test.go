package engine

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// slowBench is a bench where wrong PINs cost a second, in a bubble of its own time.
func slowBench(t *testing.T, run func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		token := hooks.New("tok", hooks.Options{})
		e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, PINDelay: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		run(t, &bench{Engine: e, token: token, slot: e.list()[0]})
	})
}

// by returns a session of a new application of a uid.
func (b *bench) by(t *testing.T, uid uint32, door string) *Session {
	return b.session(t, b.NewApplication(Owner{UID: uid, PID: 77, Command: "guess", Door: door}, ForPrograms), rw)
}

func TestWrongPINsWait(t *testing.T) {
	slowBench(t, func(t *testing.T, b *bench) {
		ctx, start := t.Context(), time.Now()
		after := func(what string, n time.Duration) {
			t.Helper()
			if got := time.Since(start); got != n*time.Second {
				t.Errorf("%s after %v, not %d s", what, got, n)
			}
		}
		files, rpc := b.by(t, 1000, "files"), b.by(t, 1000, "rpc")
		want(t, files.Login(ctx, p11.CKU_USER, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
		after("the first", 0)
		other := b.by(t, 1001, "files")
		want(t, other.Login(ctx, p11.CKU_USER, pin(t, "1234")), p11.CKR_OK)
		after("another uid's", 0)
		want(t, files.Login(ctx, p11.CKU_SO, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
		after("another role's", 0)
		want(t, rpc.SetPIN(ctx, pin(t, "wrong"), pin(t, "new-1")), p11.CKR_PIN_INCORRECT)
		after("the second, through another door", 1)
		want(t, files.Login(ctx, p11.CKU_USER, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
		after("the third", 3)
	})
}

func TestWrongPINsOfInitTokenWait(t *testing.T) {
	slowBench(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		a := b.NewApplication(Owner{UID: 1000}, ForPrograms)
		want(t, a.InitToken(ctx, b.slot, pin(t, "wrong"), "x"), p11.CKR_PIN_INCORRECT)
		done := make(chan error)
		go func() { done <- a.InitToken(ctx, b.slot, pin(t, "wrong"), "x") }()
		synctest.Wait()
		start := time.Now()
		other := b.by(t, 1001, "files") // no try that waits keeps others out
		want(t, other.Close(), p11.CKR_OK)
		if d := time.Since(start); d > 0 {
			t.Errorf("another's session waited %v", d)
		}
		want(t, <-done, p11.CKR_PIN_INCORRECT)
		if d := time.Since(start); d != time.Second {
			t.Errorf("the second C_InitToken took %v", d)
		}
	})
}

func TestWaitingPINsAreBounded(t *testing.T) {
	slowBench(t, func(t *testing.T, b *bench) {
		s := b.by(t, 1000, "files")
		want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		for range maxPINsWaiting {
			go func() { errs <- s.Login(ctx, p11.CKU_USER, pin(t, "wrong")) }()
		}
		synctest.Wait()
		want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "wrong")), p11.CKR_DEVICE_MEMORY)
		cancel()
		for range maxPINsWaiting {
			want(t, <-errs, p11.CKR_FUNCTION_CANCELED)
		}
		// An interrupt has tried nothing, and shortens nothing.
		start := time.Now()
		want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "1234")), p11.CKR_OK)
		if d := time.Since(start); d != time.Second {
			t.Errorf("the next try waited %v", d)
		}
		want(t, s.Logout(t.Context()), p11.CKR_OK)
		start = time.Now()
		want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
		if d := time.Since(start); d > 0 {
			t.Errorf("a wrong PIN after a right one waited %v", d)
		}
	})
}

func TestWhoGaveWrongPINs(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.by(t, 1000, "rpc")
	for range 2 {
		want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "wrong")), p11.CKR_PIN_INCORRECT)
	}
	list := b.slot.WrongPINs(p11.CKU_USER)
	if len(list) != 2 || list[1].Owner.UID != 1000 || list[1].Owner.PID != 77 || list[1].Owner.Command != "guess" || list[1].At.IsZero() {
		t.Errorf("wrong PINs: %+v", list)
	}
	if so := b.slot.WrongPINs(p11.CKU_SO); len(so) != 0 {
		t.Errorf("wrong PINs of the SO: %+v", so)
	}
	want(t, s.Login(t.Context(), p11.CKU_USER, pin(t, "1234")), p11.CKR_OK)
	if list := b.slot.WrongPINs(p11.CKU_USER); len(list) != 0 {
		t.Errorf("after the right PIN: %+v", list)
	}
}

// The log says who gave a wrong PIN, and not which.
func TestWrongPINsAreLogged(t *testing.T) {
	var said bytes.Buffer
	token := hooks.New("tok", hooks.Options{})
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}
	want(t, b.by(t, 1000, "rpc").Login(t.Context(), p11.CKU_USER, pin(t, "4711")), p11.CKR_PIN_INCORRECT)
	line := said.String()
	for _, word := range []string{"token=tok", "uid=1000", "pid=77", "command=guess", "door=rpc", "user"} {
		if !strings.Contains(line, word) {
			t.Errorf("the log has no %s: %q", word, line)
		}
	}
	if strings.Contains(line, "4711") {
		t.Errorf("the log has the PIN: %q", line)
	}
}
