package engine

import (
	"context"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// Logout, lock-out and the end of the session cut operations with private keys
// between any two of their calls.
func TestOperationsAreCut(t *testing.T) {
	cuts := []struct {
		name string
		cut  func(*testing.T, *bench, *Session)
		want p11.RV
		// publicGoesOn says that an operation with a public key is not cut.
		publicGoesOn bool
	}{
		{"logout", func(t *testing.T, _ *bench, s *Session) { want(t, s.Logout(t.Context()), p11.CKR_OK) }, p11.CKR_USER_NOT_LOGGED_IN, true},
		{"logout and login", func(t *testing.T, _ *bench, s *Session) {
			want(t, s.Logout(t.Context()), p11.CKR_OK)
			logIn(t, s, p11.CKU_USER, "1234")
		}, p11.CKR_USER_NOT_LOGGED_IN, true},
		{"lock-out by another process", func(_ *testing.T, b *bench, _ *Session) { b.token.Lock() }, p11.CKR_USER_NOT_LOGGED_IN, true},
		{"token initialised by another process", func(t *testing.T, b *bench, _ *Session) {
			want(t, b.token.InitToken(t.Context(), pin(t, "87654321"), "x"), p11.CKR_OK)
		}, p11.CKR_USER_NOT_LOGGED_IN, true},
		{"close", func(t *testing.T, _ *bench, s *Session) { want(t, s.Close(), p11.CKR_OK) }, p11.CKR_SESSION_HANDLE_INVALID, false},
		{"end of the application", func(_ *testing.T, _ *bench, s *Session) { s.Application().Close() }, p11.CKR_SESSION_HANDLE_INVALID, false},
	}
	for _, c := range cuts {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			b := newBench(t, hooks.Options{})
			s := b.user(t)
			private := create(t, s, macKey+" token=true")
			public := create(t, s, macKey+" private=false")
			m := mech(t, "sha256-hmac")
			secret, err := s.Begin(ctx, p11.CKF_SIGN, m, private)
			if err != nil {
				t.Fatal(err)
			}
			defer secret.Close()
			open, err := s.Begin(ctx, p11.CKF_SIGN, m, public)
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			want(t, s.SignInit(ctx, m, private), p11.CKR_OK)
			want(t, errOf(secret.Update(ctx, []byte("x"))), p11.CKR_OK)
			want(t, errOf(open.Update(ctx, []byte("x"))), p11.CKR_OK)
			want(t, s.SignUpdate(ctx, []byte("x")), p11.CKR_OK)

			c.cut(t, b, s)

			_, err = secret.Result(ctx, nil)
			want(t, err, c.want)
			want(t, errOf(secret.Update(ctx, []byte("y"))), c.want)
			_, err = secret.Final(ctx, nil)
			want(t, err, c.want)
			_, err = open.Result(ctx, nil)
			if c.publicGoesOn {
				want(t, err, p11.CKR_OK)
			} else {
				want(t, err, c.want)
			}
			_, err = open.Final(ctx, nil)
			if c.publicGoesOn {
				want(t, err, p11.CKR_OK)
			} else {
				want(t, err, c.want)
			}
			if _, err = s.SignFinal(ctx, NoLimit); err == nil {
				t.Error("C_SignFinal went on")
			}
			if n := b.Stats().Operations; n != 0 {
				t.Errorf("%d operations left", n)
			}
		})
	}
}

// A logout does not wait for a call in progress, whose result is then refused
// or was the last; the key is given up when the call returns.
func TestLogoutDuringACall(t *testing.T) {
	for _, c := range []struct {
		method string // of the token
		call   func(context.Context, *Operation) error
	}{
		{"Signature.Update", func(ctx context.Context, o *Operation) error { return errOf(o.Update(ctx, []byte("x"))) }},
		{"Signature.Final", func(ctx context.Context, o *Operation) error { _, err := o.Result(ctx, nil); return err }},
	} {
		t.Run(c.method, func(t *testing.T) {
			ctx := t.Context()
			inCall, finish := make(chan struct{}), make(chan struct{})
			b := newBench(t, hooks.Options{Before: func(method string) error {
				if method == c.method {
					close(inCall)
					<-finish
				}
				return nil
			}})
			s := b.user(t)
			o, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), create(t, s, macKey))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- c.call(ctx, o) }()
			<-inCall
			want(t, s.Logout(ctx), p11.CKR_OK)
			if n := b.Stats().Operations; n != 1 {
				t.Errorf("%d operations during the call, want 1", n)
			}
			close(finish)
			<-done //nolint:errcheck // cut by the logout, or just before it
			if n := b.Stats().Operations; n != 0 {
				t.Errorf("%d operations after the call, want 0", n)
			}
			_, err = o.Final(ctx, nil)
			want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
		})
	}
}

// A destroyed key serves the operations that have taken data to their end, and no others.
func TestDestroyDuringOperation(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	h := create(t, s, macKey+" token=true")
	o, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), h)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	want(t, errOf(o.Update(ctx, []byte("x"))), p11.CKR_OK)
	fresh, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), h)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
	_, err = o.Final(ctx, nil)
	want(t, err, p11.CKR_OK)
	want(t, errOf(fresh.Update(ctx, []byte("x"))), p11.CKR_KEY_HANDLE_INVALID)
	want(t, errOf(fresh.Final(ctx, nil)), p11.CKR_OPERATION_NOT_INITIALIZED)
}

// What ends the use of a key after the Init leaves no signature to be made.
func TestDestroyAfterInit(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s, other := b.user(t), b.user(t) // of which each has its own handles of what is private
	text, signing := []byte("text"), p11.Flags(p11.CKF_MESSAGE_SIGN)
	do := func() error { return errOf(s.Do(ctx, p11.CKF_SIGN, text, nil, NoLimit)) }
	message := func() error { return errOf(s.SignMessage(ctx, signing, text, nil, NoLimit)) }
	restrict := func(s *Session, h p11.ObjectHandle) error {
		return s.SetAttributeValue(ctx, h, tmpl(t, "sign=false"))
	}
	destroy := func(s *Session, h p11.ObjectHandle) error { return s.DestroyObject(ctx, h) }
	for _, c := range []struct {
		end  func(*Session, p11.ObjectHandle) error
		with p11.RV
	}{{destroy, p11.CKR_KEY_HANDLE_INVALID}, {restrict, p11.CKR_KEY_FUNCTION_NOT_PERMITTED}} {
		for where, by := range map[string]*Session{"": s, " token=true": s, " token=true private=false": other} {
			key := create(t, s, macKey+where)
			want(t, s.Init(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), key), p11.CKR_OK)
			want(t, s.SignMessagesInit(ctx, signing, mech(t, "sha256-hmac"), key), p11.CKR_OK)
			want(t, message(), p11.CKR_OK)
			want(t, errOf(s.Do(ctx, p11.CKF_SIGN, nil, nil, 0)), p11.CKR_BUFFER_TOO_SMALL)
			want(t, c.end(by, key), p11.CKR_OK)
			want(t, do(), c.with)
			want(t, do(), p11.CKR_OPERATION_NOT_INITIALIZED)
			want(t, message(), c.with)
			want(t, s.SignMessageBegin(ctx, signing), p11.CKR_OPERATION_NOT_INITIALIZED)
		}
	}
	// A state that was saved would go on as often as somebody likes.
	key := create(t, s, macKey+" token=true")
	want(t, s.Init(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), key), p11.CKR_OK)
	want(t, errOf(s.Update(ctx, p11.CKF_SIGN, text, NoLimit)), p11.CKR_OK)
	state, err := s.GetOperationState(ctx, NoLimit)
	want(t, err, p11.CKR_OK)
	want(t, destroy(s, key), p11.CKR_OK)
	want(t, errOf(s.Final(ctx, p11.CKF_SIGN, nil, NoLimit)), p11.CKR_OK)
	want(t, s.SetOperationState(ctx, state, 0, 0), p11.CKR_KEY_HANDLE_INVALID)
	want(t, errOf(s.Final(ctx, p11.CKF_SIGN, nil, NoLimit)), p11.CKR_OPERATION_NOT_INITIALIZED)
}

func TestInterrupt(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	o, err := s.Begin(t.Context(), p11.CKF_SIGN, mech(t, "sha256-hmac"), create(t, s, macKey))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, errOf(o.Update(ctx, []byte("x"))), p11.CKR_FUNCTION_CANCELED)
	_, err = o.Result(ctx, nil)
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	_, err = o.Final(ctx, nil)
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	before := b.Stats().SessionObjects
	_, err = s.CreateObject(ctx, tmpl(t, "class=data"))
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	_, err = s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	if n := b.Stats().SessionObjects; n != before {
		t.Error("an interrupted call made an object")
	}
	_, err = o.Final(t.Context(), nil) // nothing was done: it goes on
	want(t, err, p11.CKR_OK)
}
