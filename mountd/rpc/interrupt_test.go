package rpc

import (
	"context"
	"runtime"
	"testing"
	"time"

	"p11fs/mountd/rpc/wire"
	"p11fs/mountd/rpc/wire/wiretest"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// slowToken is a token whose operations take until they are interrupted.
type slowToken struct {
	*hooks.Token
	inCall, interrupted chan struct{}
}

func (t *slowToken) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	o, err := t.Token.Begin(ctx, use, m, key)
	return slowOperation{o, t}, err
}

type slowOperation struct {
	tokens.Operation
	token *slowToken
}

func (o slowOperation) Update(ctx context.Context, _ []byte) ([]byte, error) {
	o.token.inCall <- struct{}{}
	select {
	case <-ctx.Done():
		o.token.interrupted <- struct{}{}
		return nil, ctx.Err()
	case <-time.After(waitLimit):
		return nil, p11.CKR_DEVICE_ERROR
	}
}

// TestCloseInterrupts: the end of the server waits for no call, also where none may go on
// beside the reading of its connection.
func TestCloseInterrupts(t *testing.T) {
	token := &slowToken{hooks.New("slow", hooks.Options{}), make(chan struct{}, 1), make(chan struct{}, 1)}
	path, server := serveTokens(t, Config{MaxCalls: -1}, token)
	beginSlow(t, path, token)
	go server.Close()
	select {
	case <-token.interrupted:
	case <-time.After(waitLimit / 2):
		t.Error("the call goes on")
	}
}

// beginSlow has a new client make a call, and returns when the token has it.
func beginSlow(t *testing.T, path string, token *slowToken) (k *client, session uint64) {
	k = dial(t, path, wire.V2).initialize()
	session = k.session()
	k.must(wire.CallDigestInit, func(w *wiretest.Writer) {
		w.Ulong(session)
		w.Mechanism(wire.Mechanism{Mechanism: p11.Mechanism{Type: p11.CKM_SHA256}})
	})
	w := k.begin(wire.CallDigestUpdate)
	w.Ulong(session)
	w.Array(data([]byte("data")))
	k.send(w)
	<-token.inCall
	return k, session
}

// TestInterrupt cuts a call that is at the token: by C_SessionCancel on the same
// connection, and by the end of the client. Neither waits for the token.
func TestInterrupt(t *testing.T) {
	token := &slowToken{hooks.New("slow", hooks.Options{}), make(chan struct{}, 1), make(chan struct{}, 1)}
	path, server := serveTokens(t, Config{}, token)
	begin := func(t *testing.T) (*client, uint64) { return beginSlow(t, path, token) }
	isInterrupted := func(t *testing.T) {
		t.Helper()
		select {
		case <-token.interrupted:
		case <-time.After(waitLimit / 2):
			t.Fatal("nothing interrupts the token")
		}
	}

	t.Run("C_SessionCancel", func(t *testing.T) {
		k, session := begin(t)
		update := k.code
		w := k.begin(wire.CallSessionCancel)
		w.Ulong(session)
		w.Ulong(uint64(p11.CKF_DIGEST))
		k.send(w)
		isInterrupted(t)
		want := map[uint32]p11.RV{update: p11.CKR_FUNCTION_CANCELED, k.code: p11.CKR_OK}
		for range 2 {
			code, _, rv := k.receive()
			if rv != want[code] {
				t.Errorf("the reply to %d is %v, want %v", code, rv, want[code])
			}
			delete(want, code)
		}
		if _, rv := k.call(wire.CallDigestFinal, func(w *wiretest.Writer) { w.Ulong(session); w.Room(32) }); rv != p11.CKR_OPERATION_NOT_INITIALIZED {
			t.Errorf("the operation goes on: %v", rv)
		}
	})
	t.Run("the client ends", func(t *testing.T) {
		k, _ := begin(t)
		_ = k.c.Close()
		isInterrupted(t)
	})
	t.Run("nothing is left", func(t *testing.T) {
		before := runtime.NumGoroutine()
		for range 10 {
			k, _ := begin(t)
			_ = k.c.Close()
			isInterrupted(t)
		}
		inFlight := func() (n int64) {
			server.mu.Lock()
			defer server.mu.Unlock()
			for _, u := range server.users {
				n += u.calls.Load()
			}
			return n
		}
		for began := time.Now(); runtime.NumGoroutine() > before || inFlight() > 0; time.Sleep(time.Millisecond) {
			if time.Since(began) > waitLimit {
				t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
			}
		}
	})
}
