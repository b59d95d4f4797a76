package engine

import (
	"context"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// step is one event of the session state machine (PKCS#11 v3.1 §5.6) and what
// follows: the RV, and the state of each session that is open.
type step struct {
	do   string // "open ro", "open rw", "login user|so [PIN]", "logout", "close N", "lock", "closeall"
	n    int    // the session that does it
	want p11.RV
	// states after it, by session number; 0 for a closed one.
	states []p11.State
}

const none = ^p11.State(0)

func TestStateMachine(t *testing.T) {
	ropub, rouser := p11.State(p11.CKS_RO_PUBLIC_SESSION), p11.State(p11.CKS_RO_USER_FUNCTIONS)
	rwpub, rwuser, rwso := p11.State(p11.CKS_RW_PUBLIC_SESSION), p11.State(p11.CKS_RW_USER_FUNCTIONS), p11.State(p11.CKS_RW_SO_FUNCTIONS)
	tests := []struct {
		name  string
		steps []step
	}{
		{"user in both kinds of session", []step{
			{"open ro", 0, p11.CKR_OK, []p11.State{ropub}},
			{"open rw", 0, p11.CKR_OK, []p11.State{ropub, rwpub}},
			{"login user", 0, p11.CKR_OK, []p11.State{rouser, rwuser}},
			{"login user", 1, p11.CKR_USER_ALREADY_LOGGED_IN, []p11.State{rouser, rwuser}},
			{"login so", 1, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, []p11.State{rouser, rwuser}},
			{"open ro", 0, p11.CKR_OK, []p11.State{rouser, rwuser, rouser}},
			{"logout", 2, p11.CKR_OK, []p11.State{ropub, rwpub, ropub}},
			{"logout", 2, p11.CKR_USER_NOT_LOGGED_IN, []p11.State{ropub, rwpub, ropub}},
		}},
		{"security officer", []step{
			{"open rw", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"login so", 0, p11.CKR_OK, []p11.State{rwso}},
			{"open ro", 0, p11.CKR_SESSION_READ_WRITE_SO_EXISTS, []p11.State{rwso}},
			{"open rw", 0, p11.CKR_OK, []p11.State{rwso, rwso}},
			{"login so", 1, p11.CKR_USER_ALREADY_LOGGED_IN, []p11.State{rwso, rwso}},
			{"login user", 1, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, []p11.State{rwso, rwso}},
			{"logout", 0, p11.CKR_OK, []p11.State{rwpub, rwpub}},
			{"open ro", 0, p11.CKR_OK, []p11.State{rwpub, rwpub, ropub}},
			{"login so", 0, p11.CKR_SESSION_READ_ONLY_EXISTS, []p11.State{rwpub, rwpub, ropub}},
			{"close", 2, p11.CKR_OK, []p11.State{rwpub, rwpub, none}},
			{"login so", 0, p11.CKR_OK, []p11.State{rwso, rwso, none}},
		}},
		{"the last session logs out", []step{
			{"open rw", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"login user", 0, p11.CKR_OK, []p11.State{rwuser}},
			{"open rw", 0, p11.CKR_OK, []p11.State{rwuser, rwuser}},
			{"close", 0, p11.CKR_OK, []p11.State{none, rwuser}},
			{"close", 0, p11.CKR_SESSION_HANDLE_INVALID, []p11.State{none, rwuser}},
			{"close", 1, p11.CKR_OK, []p11.State{none, none}},
			{"open rw", 0, p11.CKR_OK, []p11.State{none, none, rwpub}},
		}},
		{"wrong PINs", []step{
			{"open rw", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"login user 9999", 0, p11.CKR_PIN_INCORRECT, []p11.State{rwpub}},
			{"login user", 0, p11.CKR_OK, []p11.State{rwuser}},
			{"logout", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"login user 9999", 0, p11.CKR_PIN_INCORRECT, []p11.State{rwpub}},
			{"login user 9999", 0, p11.CKR_PIN_INCORRECT, []p11.State{rwpub}},
			{"login user 9999", 0, p11.CKR_PIN_INCORRECT, []p11.State{rwpub}},
			{"login user", 0, p11.CKR_PIN_LOCKED, []p11.State{rwpub}},
			{"login so", 0, p11.CKR_OK, []p11.State{rwso}},
		}},
		{"a lock-out elsewhere logs out", []step{
			{"open rw", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"login user", 0, p11.CKR_OK, []p11.State{rwuser}},
			{"lock", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"logout", 0, p11.CKR_USER_NOT_LOGGED_IN, []p11.State{rwpub}},
			{"login user", 0, p11.CKR_PIN_LOCKED, []p11.State{rwpub}},
			{"login so", 0, p11.CKR_OK, []p11.State{rwso}},
		}},
		{"C_CloseAllSessions", []step{
			{"open rw", 0, p11.CKR_OK, []p11.State{rwpub}},
			{"open ro", 0, p11.CKR_OK, []p11.State{rwpub, ropub}},
			{"login user", 0, p11.CKR_OK, []p11.State{rwuser, rouser}},
			{"closeall", 0, p11.CKR_OK, []p11.State{none, none}},
			{"open ro", 0, p11.CKR_OK, []p11.State{none, none, ropub}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, hooks.Options{})
			a := b.app()
			var sessions []*Session
			for i, st := range tt.steps {
				want(t, b.step(t, a, &sessions, st), st.want)
				for n, state := range st.states {
					if got := stateOf(sessions[n]); got != state {
						t.Fatalf("step %d (%s): session %d is in state %v, want %v", i, st.do, n, got, state)
					}
				}
			}
		})
	}
}

func (b *bench) step(t *testing.T, a *Application, sessions *[]*Session, st step) error {
	t.Helper()
	ctx := t.Context()
	switch st.do {
	case "open ro", "open rw":
		flags := ro
		if st.do == "open rw" {
			flags = rw
		}
		s, err := a.OpenSession(ctx, b.slot, flags)
		if err == nil {
			*sessions = append(*sessions, s)
		}
		return err
	case "login user":
		return (*sessions)[st.n].Login(ctx, p11.CKU_USER, pin(t, "1234"))
	case "login user 9999":
		return (*sessions)[st.n].Login(ctx, p11.CKU_USER, pin(t, "9999"))
	case "login so":
		return (*sessions)[st.n].Login(ctx, p11.CKU_SO, pin(t, "87654321"))
	case "logout":
		return (*sessions)[st.n].Logout(ctx)
	case "close":
		return (*sessions)[st.n].Close()
	case "closeall":
		return a.CloseAllSessions(b.slot)
	case "lock":
		b.token.Lock()
		return nil
	}
	t.Fatalf("no such step: %q", st.do)
	return nil
}

func stateOf(s *Session) p11.State {
	info, err := s.Info()
	if err != nil {
		return none
	}
	return info.State
}

func TestSessionHandles(t *testing.T) {
	b := newBench(t, hooks.Options{})
	a, other := b.app(), b.app()
	first, second := b.session(t, a, ro), b.session(t, a, ro)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	third := b.session(t, a, rw)
	if first.Handle() != 1 || second.Handle() != 2 || third.Handle() != 3 {
		t.Errorf("handles %d, %d, %d; want 1, 2, 3", first.Handle(), second.Handle(), third.Handle())
	}
	if h := b.session(t, other, ro).Handle(); h != 1 {
		t.Errorf("another application's first handle is %d", h)
	}
	if s, err := a.Session(3); err != nil || s != third {
		t.Errorf("Session(3) = %v, %v", s, err)
	}
	_, err := a.Session(2)
	want(t, err, p11.CKR_SESSION_HANDLE_INVALID)
	select {
	case <-second.Done():
	default:
		t.Error("Done is open after Close")
	}
	info, err := third.Info()
	if err != nil || info.SlotID != 3 || info.Flags != rw {
		t.Errorf("Info = %+v, %v", info, err)
	}
	ti, err := b.slot.TokenInfo(t.Context())
	if err != nil || ti.Sessions != 3 || ti.RWSessions != 1 {
		t.Errorf("token counts %d sessions, %d read-write (%v); want 3, 1", ti.Sessions, ti.RWSessions, err)
	}
}

func TestOpenSessionRefused(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{WriteProtected: true})
	a := b.app()
	_, err := a.OpenSession(ctx, b.slot, 0)
	want(t, err, p11.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
	_, err = a.OpenSession(ctx, b.slot, rw)
	want(t, err, p11.CKR_TOKEN_WRITE_PROTECTED)
	_, err = a.OpenSession(ctx, b.list()[1], ro)
	want(t, err, p11.CKR_TOKEN_NOT_PRESENT)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = a.OpenSession(gone, b.slot, ro)
	want(t, err, p11.CKR_FUNCTION_CANCELED)
	a.Close()
	_, err = a.OpenSession(ctx, b.slot, ro)
	want(t, err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

func TestClosedSession(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	h := create(t, s, aesKey)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Info":          func() error { _, err := s.Info(); return err },
		"Login":         func() error { return s.Login(ctx, p11.CKU_USER, pin(t, "1234")) },
		"Logout":        func() error { return s.Logout(ctx) },
		"Find":          func() error { _, err := s.Find(ctx, nil); return err },
		"Create":        func() error { _, err := s.CreateObject(ctx, tmpl(t, "class=data private=false")); return err },
		"Get":           func() error { _, err := s.GetAttributeValue(ctx, h, p11.CKA_LABEL); return err },
		"Set":           func() error { return s.SetAttributeValue(ctx, h, tmpl(t, "label=x")) },
		"Destroy":       func() error { return s.DestroyObject(ctx, h) },
		"Digest":        func() error { _, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0); return err },
		"Sign":          func() error { _, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), h); return err },
		"SignInit":      func() error { return s.SignInit(ctx, mech(t, "sha256-hmac"), h) },
		"SignUpdate":    func() error { return s.SignUpdate(ctx, nil) },
		"Random":        func() error { _, err := s.GenerateRandom(ctx, 1); return err },
		"Seed":          func() error { return s.SeedRandom(ctx, nil) },
		"Generate":      func() error { _, err := s.GenerateKey(ctx, mech(t, "aes-key-gen"), nil); return err },
		"FindObjects":   func() error { _, err := s.FindObjects(ctx, 1); return err },
		"SessionCancel": func() error { return s.SessionCancel(ctx, p11.CKF_SIGN) },
		"InitPIN":       func() error { return s.InitPIN(ctx, pin(t, "1234")) },
		"SetPIN":        func() error { return s.SetPIN(ctx, pin(t, "1234"), pin(t, "12345")) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) { want(t, call(), p11.CKR_SESSION_HANDLE_INVALID) })
	}
}

// A program that hears of no number takes a small one for the most sessions.
func TestMostSessions(t *testing.T) {
	for limit, want := range map[int]uint64{0: 4096, 7: 7, -1: 0} {
		b := newLimitedBench(t, hooks.Options{}, Limits{Sessions: limit})
		info, err := b.slot.TokenInfo(t.Context())
		if err != nil || info.MaxSessions != want || info.MaxRWSessions != want {
			t.Errorf("limit %d: %d and %d, %v, want %d", limit, info.MaxSessions, info.MaxRWSessions, err, want)
		}
	}
}
