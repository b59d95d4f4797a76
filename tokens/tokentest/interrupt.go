package tokentest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// done is a context that has ended.
func done(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// canceled says whether err is that of a ctx that was done before anything happened.
func canceled(err error) bool {
	return p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED || errors.Is(err, context.Canceled)
}

// testInterrupted changes the token under a context that has ended: each call says
// so, and nothing has happened.
func (b Backend) testInterrupted(t *testing.T) {
	tok := b.ready(t, t.TempDir())
	ctx, end := t.Context(), done(t)
	kept, err := tok.Create(ctx, data("kept", "old", false))
	noError(t, err)
	so := login(t, tok, p11.CKU_SO, soPIN)
	login(t, tok, p11.CKU_USER, userPIN)
	flags := tokenFlags(t, tok)
	created := data("new", "value", false)
	for name, call := range map[string]func() error{
		"InitToken": func() error { return tok.InitToken(end, PIN(t, soPIN), "x") },
		"Login":     func() error { _, err := tok.Login(end, p11.CKU_USER, PIN(t, "wrongpin")); return err },
		"InitPIN":   func() error { return tok.InitPIN(end, so, PIN(t, "new-pin")) },
		"SetPIN":    func() error { return tok.SetPIN(end, p11.CKU_USER, PIN(t, userPIN), PIN(t, "new-pin")) },
		"Create":    func() error { _, err := tok.Create(end, created); return err },
		"Update": func() error {
			_, err := tok.Update(end, kept.Handle, func(a p11.Attributes) (p11.Attributes, error) {
				return a.With(p11.CKA_VALUE, []byte("new")), nil
			})
			return err
		},
		"Destroy": func() error { return tok.Destroy(end, kept.Handle, func(p11.Attributes) error { return nil }) },
		"CreateAll": func() error {
			batch, ok := tok.(tokens.BatchCreator)
			if !ok {
				return context.Canceled
			}
			_, err := batch.CreateAll(end, []p11.Attributes{data("one", "", false), data("two", "", false)})
			return err
		},
	} {
		if err := call(); !canceled(err) {
			t.Errorf("%s under a context that has ended: %v", name, err)
		}
	}
	wantWiped(t, "an interrupted Create", created)
	if got := tokenFlags(t, tok); got != flags {
		t.Errorf("the flags became %v, were %v", got, flags)
	}
	if info, err := tok.Info(ctx); err != nil || info.Label != "suite" {
		t.Errorf("the label became %q, %v", info.Label, err)
	}
	noError(t, so.Valid())
	noError(t, login(t, tok, p11.CKU_USER, userPIN).Close())
	if got := labels(t, tok, nil, true); got != "kept " {
		t.Errorf("the objects became %q", got)
	}
	newest, err := tok.ByHandle(kept.Handle)
	noError(t, err)
	if got := attribute(t, newest, p11.CKA_VALUE); string(got) != "old" {
		t.Errorf("the value became %q", got)
	}
}

// testInterruptedOperations interrupts each call of each operation before it makes it:
// what says that it was interrupted has done nothing.
func (b Backend) testInterruptedOperations(t *testing.T) {
	tok := b.forKeys(t)
	r := newRing(t, tok)
	for _, m := range tok.Mechanisms() {
		facts, _ := p11.MechanismFacts(m.Type)
		if passedOver(m.Type, facts) {
			continue
		}
		mech := p11.Mechanism{Type: m.Type, Param: p11.SampleParam(m.Type)}
		t.Run(m.Type.Short(), func(t *testing.T) {
			switch {
			case m.Flags&p11.CKF_DIGEST != 0:
				got := r.interrupted(t, p11.CKF_DIGEST, mech, nil, message, nil)
				if !bytes.Equal(got, r.sum(t, mech, message)) {
					t.Errorf("the digest became %x", got)
				}
			case m.Flags&p11.CKF_SIGN != 0:
				pub, priv := r.keys(t, facts)
				sig := r.interrupted(t, p11.CKF_SIGN, mech, priv, signable(mech), nil)
				r.interrupted(t, p11.CKF_VERIFY, mech, pub, signable(mech), sig)
			case m.Flags&p11.CKF_ENCRYPT != 0:
				pub, priv := r.keys(t, facts)
				plain := string(bytes.Repeat([]byte("16 bytes a block"), 3))
				ct := r.interrupted(t, p11.CKF_ENCRYPT, mech, pub, plain, nil)
				got := r.interrupted(t, p11.CKF_DECRYPT, mech, priv, string(ct), nil)
				if !bytes.HasSuffix(got, []byte(plain)) {
					t.Errorf("decrypted %q", got)
				}
			}
		})
	}
}

// interrupted does an operation, each call of it first under a context that has
// ended.
func (r *ring) interrupted(t *testing.T, use p11.Flags, m p11.Mechanism, key *tokens.Object, in string, signature []byte) (out []byte) {
	t.Helper()
	end := done(t)
	o, err := r.Begin(end, use, m, key)
	if canceled(err) {
		o, err = r.Begin(t.Context(), use, m, key)
	}
	noError(t, err)
	defer o.Close()
	call := func(f func(context.Context) ([]byte, error)) {
		x, err := f(end)
		if canceled(err) {
			x, err = f(t.Context())
		}
		noError(t, err)
		out = append(out, x...)
	}
	for _, part := range []string{in[:7], in[7:]} {
		call(func(ctx context.Context) ([]byte, error) { return o.Update(ctx, []byte(part)) })
	}
	call(func(ctx context.Context) ([]byte, error) { return o.Final(ctx, signature) })
	return out
}
