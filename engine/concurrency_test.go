package engine

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// A panic in any call of the token leaves no lock held: everything else goes on.
func TestPanicInToken(t *testing.T) {
	ctx := t.Context()
	var method string
	b := newBench(t, hooks.Options{Before: func(m string) error {
		if m == method {
			panic("boom")
		}
		return nil
	}})
	s := b.user(t)
	mac, aes := create(t, s, macKey), create(t, s, aesKey+" wrap=true unwrap=true")
	m, cbc := mech(t, "sha256-hmac"), mech(t, "aes-cbc-pad,iv="+zeroIV)
	sign := func() { _ = s.SignInit(ctx, m, mac); _, _ = s.Sign(ctx, []byte("x"), NoLimit) }
	calls := map[string]func(){
		"Sign":               sign,
		"Signature.Update":   sign,
		"Signature.Final":    sign,
		"Verification.Final": func() { _ = s.VerifyInit(ctx, m, mac); _ = s.Verify(ctx, nil, nil) },
		"Digest.Final":       func() { _ = s.DigestInit(ctx, mech(t, "sha256")); _, _ = s.Digest(ctx, nil, NoLimit) },
		"Cipher.Update":      func() { _ = s.EncryptInit(ctx, cbc, aes); _, _ = s.Encrypt(ctx, nil, NoLimit) },
		"Create":             func() { _, _ = s.CreateObject(ctx, tmpl(t, "class=data token=true")) },
		"Find":               func() { _, _ = s.Find(ctx, nil) },
		"Refresh":            func() { _, _ = s.Find(ctx, nil) },
		"GenerateKey":        func() { _, _ = s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16")) },
		"GenerateKeyPair":    func() { generateEC(t, s, "", "") },
		"UnwrapKey":          func() { _, _ = s.UnwrapKey(ctx, cbc, aes, nil, tmpl(t, "class=secret-key key-type=aes")) },
		"GenerateRandom":     func() { _, _ = s.GenerateRandom(ctx, 1) },
		"Info":               func() { _, _ = b.slot.TokenInfo(ctx) },
		"Login":              func() { _ = s.Logout(ctx); _ = s.Login(ctx, p11.CKU_USER, pin(t, "1234")) },
		"InitToken":          func() { s.Application().Close(); _ = b.app().InitToken(ctx, b.slot, pin(t, "87654321"), "x") },
	}
	for name, call := range calls {
		if name == "Login" || name == "InitToken" {
			continue // last: they end what the others need
		}
		t.Run(name, func(t *testing.T) { mustPanic(t, &method, name, call); mustWork(t, b) })
	}
	for _, name := range []string{"Login", "InitToken"} {
		t.Run(name, func(t *testing.T) { mustPanic(t, &method, name, calls[name]); mustWork(t, b) })
	}
}

func mustPanic(t *testing.T, method *string, name string, call func()) {
	t.Helper()
	defer func() {
		*method = ""
		if recover() == nil {
			t.Error("no panic came through")
		}
	}()
	*method = name
	call()
}

// mustWork runs a whole life of an application, within a time.
func mustWork(t *testing.T, b *bench) {
	t.Helper()
	done := make(chan error, 1)
	p := pin(t, "1234")
	go func() {
		ctx := t.Context()
		a := b.app()
		s, err := a.OpenSession(ctx, b.slot, rw)
		if err == nil {
			err = s.Login(ctx, p11.CKU_USER, p)
		}
		if err == nil {
			_, err = s.Find(ctx, nil)
		}
		if err == nil {
			err = s.DigestInit(ctx, p11.Mechanism{Type: p11.CKM_SHA256})
		}
		if err == nil {
			_, err = s.Digest(ctx, nil, NoLimit)
		}
		b.Stats()
		a.Close()
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("afterwards: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a lock is still held")
	}
}

// Applications that do everything at once disturb neither each other nor the
// counts; the race detector looks on.
func TestConcurrentApplications(t *testing.T) {
	b := newBench(t, hooks.Options{Forgiving: true})
	p := pin(t, "1234")
	bad := pin(t, "9999")
	mac, data := tmpl(t, macKey), tmpl(t, "class=data token=true")
	hmac := mech(t, "sha256-hmac")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(i)))
			a := b.NewApplication(Owner{UID: uint32(i % 3)}, ForPrograms)
			defer a.Close()
			ctx := t.Context()
			var shared sync.WaitGroup
			defer shared.Wait()
			for range 40 {
				s, err := a.OpenSession(ctx, b.slot, rw)
				if err != nil {
					t.Error(err)
					return
				}
				shared.Add(1)
				go func() { // another thread of the application in the same session
					defer shared.Done()
					_, _ = s.Find(ctx, nil)
					if o, err := s.Begin(ctx, p11.CKF_DIGEST, p11.Mechanism{Type: p11.CKM_SHA256}, 0); err == nil {
						_, _ = o.Update(ctx, []byte("x"))
						_, _ = o.Final(ctx, nil)
						o.Close()
					}
					_, _ = a.Objects(ctx, b.slot, nil)
				}()
				_ = s.Login(ctx, p11.CKU_USER, p)
				h, err := s.CreateObject(ctx, mac)
				if err == nil {
					if o, err := s.Begin(ctx, p11.CKF_SIGN, hmac, h); err == nil {
						_, _ = o.Update(ctx, []byte("x"))
						if r.IntN(2) == 0 {
							_ = s.Logout(ctx)
						}
						_, _ = o.Final(ctx, nil)
						o.Close()
					}
				}
				if h, err := s.CreateObject(ctx, data); err == nil {
					_ = s.SetAttributeValue(ctx, h, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(fmt.Sprint(i))}})
					want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
				}
				_ = s.Login(ctx, p11.CKU_USER, bad)
				if r.IntN(2) == 0 {
					_ = s.Close()
				}
			}
		}()
	}
	wg.Wait()
	st := b.Stats()
	if st.Applications != 0 || st.Sessions != 0 || st.SessionObjects != 0 || st.Operations != 0 || st.Handles != 0 {
		t.Errorf("left over: %+v", st)
	}
}

// Sessions of one application that log in and out against each other end in one
// of the two states, with the token's logins to match.
func TestLoginRace(t *testing.T) {
	b := newBench(t, hooks.Options{})
	p := pin(t, "1234")
	for range 50 {
		a := b.app()
		var wg sync.WaitGroup
		for range 4 {
			s := b.session(t, a, rw)
			wg.Add(1)
			go func() {
				defer wg.Done()
				_ = s.Login(t.Context(), p11.CKU_USER, p)
				_ = s.Logout(t.Context())
				_ = s.Login(t.Context(), p11.CKU_USER, p)
				_ = s.Close()
			}()
		}
		wg.Wait()
		if _, ok := a.LoggedIn(b.slot); ok || b.token.Logins() != 0 {
			t.Fatalf("logged in: %v, logins: %d, without a session", ok, b.token.Logins())
		}
		a.Close()
	}
}

// A panic in the token at the beginning of an operation leaves no key held.
func TestPanicGivesUpTheKey(t *testing.T) {
	ctx := t.Context()
	var method string
	b := newBench(t, hooks.Options{Before: func(m string) error {
		if m == method {
			panic("boom")
		}
		return nil
	}})
	s := b.user(t)
	h := create(t, s, macKey)
	key := s.appSlot.objects.get(h)
	mustPanic(t, &method, "Sign", func() { _ = s.SignInit(ctx, mech(t, "sha256-hmac"), h) })
	want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
	if _, err := key.Acquire(); err == nil {
		t.Error("the key is never wiped")
	}
}
