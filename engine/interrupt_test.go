package engine

import (
	"context"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// slowToken is a token whose calls, where a test wants it, take until they are
// interrupted.
type slowToken struct {
	*hooks.Token
	slow   chan struct{} // one for each call that is to be slow
	inCall chan struct{} // one for each of them that has begun
}

func newSlowBench(t *testing.T) (*bench, *slowToken) {
	t.Helper()
	token := &slowToken{hooks.New("tok", hooks.Options{}), make(chan struct{}, 1), make(chan struct{}, 1)}
	return benchOf(t, token.Token, token, Limits{}), token
}

func (t *slowToken) wait(ctx context.Context) error {
	select {
	case <-t.slow:
	default:
		return nil
	}
	t.inCall <- struct{}{}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Second):
		return p11.CKR_DEVICE_ERROR
	}
}

func (t *slowToken) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	if err := t.wait(ctx); err != nil {
		return nil, err
	}
	o, err := t.Token.Begin(ctx, use, m, key)
	return slowOperation{o, t}, err
}

func (t *slowToken) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if err := t.wait(ctx); err != nil {
		return nil, err
	}
	return t.Token.GenerateKey(ctx, m, template)
}

func (t *slowToken) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) ([]byte, error) {
	if err := t.wait(ctx); err != nil {
		return nil, err
	}
	return t.Token.WrapKey(ctx, m, wrapping, key)
}

func (t *slowToken) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	if err := t.wait(ctx); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return t.Token.Adopt(ctx, attrs)
}

func (t *slowToken) GenerateRandom(ctx context.Context, b []byte) error {
	if err := t.wait(ctx); err != nil {
		return err
	}
	return t.Token.GenerateRandom(ctx, b)
}

type slowOperation struct {
	tokens.Operation
	token *slowToken
}

func (o slowOperation) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := o.token.wait(ctx); err != nil {
		return nil, err
	}
	return o.Operation.Update(ctx, part)
}

func (o slowOperation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.token.wait(ctx); err != nil {
		return nil, err
	}
	return o.Operation.Final(ctx, signature)
}

// cut makes a slow call, cuts it while it is at the token, and returns its error.
func (t *slowToken) cut(test *testing.T, call func(ctx context.Context) error, cut func(cancel func())) error {
	test.Helper()
	ctx, cancel := context.WithCancel(test.Context())
	defer cancel()
	t.slow <- struct{}{}
	done := make(chan error)
	go func() { done <- call(ctx) }()
	<-t.inCall
	cut(cancel)
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		test.Fatal("nothing interrupts the token")
		return nil
	}
}

func interruptNow(cancel func()) { cancel() }

// An interrupt reaches the token in the middle of a call; the operation goes on as if
// the call had not been made.
func TestInterruptInTheToken(t *testing.T) {
	ctx := t.Context()
	b, token := newSlowBench(t)
	s := b.user(t)
	mac, aes := create(t, s, macKey), create(t, s, aesKey+" wrap=true extractable=true")
	hmac := mech(t, "sha256-hmac")
	o, err := s.Begin(ctx, p11.CKF_SIGN, hmac, mac)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	data := []byte("data")
	update := func(ctx context.Context) error { return errOf(o.Update(ctx, data)) }
	result := func(ctx context.Context) error { return errOf(o.Result(ctx, nil)) }
	want(t, token.cut(t, update, interruptNow), p11.CKR_FUNCTION_CANCELED)
	want(t, update(ctx), p11.CKR_OK)
	want(t, token.cut(t, result, interruptNow), p11.CKR_FUNCTION_CANCELED)
	want(t, result(ctx), p11.CKR_OK)
	want(t, token.cut(t, update, interruptNow), p11.CKR_FUNCTION_CANCELED) // while it is begun anew
	want(t, token.cut(t, func(ctx context.Context) error { return errOf(o.Final(ctx, nil)) }, interruptNow), p11.CKR_FUNCTION_CANCELED)
	sig, err := o.Final(ctx, nil)
	want(t, err, p11.CKR_OK)
	want(t, s.VerifyInit(ctx, hmac, mac), p11.CKR_OK)
	want(t, s.Verify(ctx, data, sig), p11.CKR_OK)

	objects := b.Stats().SessionObjects
	for name, call := range map[string]func(ctx context.Context) error{
		"SignInit": func(ctx context.Context) error { return s.SignInit(ctx, hmac, mac) },
		"Generate": func(ctx context.Context) error {
			_, err := s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16"))
			return err
		},
		"Wrap": func(ctx context.Context) error {
			_, err := s.WrapKey(ctx, mech(t, "aes-cbc-pad,iv="+zeroIV), aes, aes)
			return err
		},
		"Create": func(ctx context.Context) error { _, err := s.CreateObject(ctx, tmpl(t, macKey)); return err },
		"Random": func(ctx context.Context) error { _, err := s.GenerateRandom(ctx, 8); return err },
	} {
		t.Run(name, func(t *testing.T) {
			want(t, token.cut(t, call, interruptNow), p11.CKR_FUNCTION_CANCELED)
		})
	}
	if st := b.Stats(); st.SessionObjects != objects || st.Operations != 0 {
		t.Errorf("%d objects, were %d, and %d operations", st.SessionObjects, objects, st.Operations)
	}
}

// What ends an operation interrupts its call.
func TestCutInTheToken(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(*testing.T, *Session, *Operation)
		want p11.RV
	}{
		"C_SessionCancel": {func(t *testing.T, s *Session, _ *Operation) {
			want(t, s.SessionCancel(t.Context(), p11.CKF_SIGN), p11.CKR_OK)
		}, p11.CKR_FUNCTION_CANCELED},
		"Close":          {func(_ *testing.T, _ *Session, o *Operation) { o.Close() }, p11.CKR_FUNCTION_CANCELED},
		"C_Logout":       {func(t *testing.T, s *Session, _ *Operation) { want(t, s.Logout(t.Context()), p11.CKR_OK) }, p11.CKR_USER_NOT_LOGGED_IN},
		"C_CloseSession": {func(t *testing.T, s *Session, _ *Operation) { want(t, s.Close(), p11.CKR_OK) }, p11.CKR_SESSION_HANDLE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			b, token := newSlowBench(t)
			s := b.user(t)
			want(t, s.SignInit(ctx, mech(t, "sha256-hmac"), create(t, s, macKey)), p11.CKR_OK)
			o := s.active[p11.CKF_SIGN]
			err := token.cut(t, func(ctx context.Context) error { return s.SignUpdate(ctx, []byte("data")) },
				func(func()) { c.cut(t, s, o) })
			want(t, err, c.want)
			if n := b.Stats().Operations; n != 0 {
				t.Errorf("%d operations left", n)
			}
		})
	}
}

// A function of one part that is interrupted when it has taken its data ends the
// operation: made again, it would take them twice.
func TestInterruptAfterTheData(t *testing.T) {
	ctx := t.Context()
	at := ""
	cctx, cancel := context.WithCancel(ctx)
	b := newBench(t, hooks.Options{Before: func(method string) error {
		if method != at {
			return nil
		}
		cancel()
		return cctx.Err()
	}})
	s := b.user(t)
	mac, aes := create(t, s, macKey), create(t, s, aesKey)
	hmac, ctr := mech(t, "sha256-hmac"), mech(t, "aes-ctr,bits=128,counter="+zeroIV)
	want(t, s.SignInit(ctx, hmac, mac), p11.CKR_OK)
	at = "Signature.Final"
	_, err := s.Sign(cctx, []byte("data"), NoLimit)
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	_, err = s.Sign(ctx, []byte("data"), NoLimit)
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)

	for name, c := range map[string]struct {
		flag, second p11.Flags
		at           string
	}{
		"encrypt": {p11.CKF_ENCRYPT, p11.CKF_SIGN, "Signature.Update"},
		"decrypt": {p11.CKF_DECRYPT, p11.CKF_VERIFY, "Verification.Update"},
	} {
		t.Run(name, func(t *testing.T) {
			cctx, cancel = context.WithCancel(ctx)
			at = ""
			want(t, s.Init(ctx, c.flag, ctr, aes), p11.CKR_OK)
			want(t, s.Init(ctx, c.second, hmac, mac), p11.CKR_OK)
			at = c.at
			_, err := s.UpdateBoth(cctx, c.flag, c.second, []byte("data"), NoLimit)
			want(t, err, p11.CKR_FUNCTION_CANCELED)
			if s.active[c.flag] != nil || s.active[c.second] == nil {
				t.Error("the cipher, which has taken the data, goes on, or the other has ended")
			}
			want(t, s.SessionCancel(ctx, c.flag|c.second), p11.CKR_OK)
		})
	}
}

// An endingContext is done after it was asked a few times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestInterruptedSearch(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	for range 300 {
		create(t, s, "class=data token=true")
	}
	a, secret := s.Application(), tmpl(t, "value=0x")
	for name, run := range map[string]func(ctx context.Context) error{
		"Objects": func(ctx context.Context) error { _, err := a.Objects(ctx, b.slot, nil); return err },
		"EachObject": func(ctx context.Context) error {
			return a.EachObject(ctx, b.slot, nil, func(ObjectInfo) bool { return true })
		},
		"FindObjects": func(ctx context.Context) error { return s.FindObjectsInit(ctx, secret) },
	} {
		ctx := &endingContext{t.Context(), 30}
		if err := run(ctx); p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED || ctx.left < -10 {
			t.Errorf("%s: %v, and the context was asked %d times after its end", name, err, -ctx.left)
		}
	}
}
