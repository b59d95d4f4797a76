package engine

import (
	"errors"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// bench is an engine with one token in memory.
type bench struct {
	*Engine
	token *hooks.Token
	slot  *Slot
}

// newBench returns an engine that is checked to be empty once the test has
// closed it.
func newBench(t testing.TB, o hooks.Options) *bench {
	return newLimitedBench(t, o, Limits{})
}

func newLimitedBench(t testing.TB, o hooks.Options, l Limits) *bench {
	t.Helper()
	token := hooks.New("tok", o)
	return benchOf(t, token, token, l)
}

// benchOf is a bench with a token that is made of the usual one.
func benchOf(t testing.TB, token *hooks.Token, served tokens.Token, l Limits) *bench {
	t.Helper()
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: served}, {ID: 4}}, Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		st := e.Stats()
		if st.Applications != 0 || st.Sessions != 0 || st.SessionObjects != 0 || st.Operations != 0 || st.PrivateObjects != 0 {
			t.Errorf("left over after Close: %+v", st)
		}
		if n := token.Logins(); n != 0 {
			t.Errorf("%d logins left over", n)
		}
		if n := len(e.quota.users); n != 0 {
			t.Errorf("%d users still hold something", n)
		}
		if n := e.list()[0].handles.len(); n != 0 {
			t.Errorf("%d handles left over", n)
		}
	})
	return &bench{Engine: e, token: token, slot: e.list()[0]}
}

const (
	ro = p11.CKF_SERIAL_SESSION
	rw = p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION
)

func (b *bench) app() *Application {
	return b.NewApplication(Owner{UID: 1000, Command: "test"}, ForPrograms)
}

func (b *bench) session(t testing.TB, a *Application, flags p11.Flags) *Session {
	t.Helper()
	s, err := a.OpenSession(t.Context(), b.slot, flags)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// user returns a read-write session of a new application with the user logged
// in.
func (b *bench) user(t testing.TB) *Session {
	t.Helper()
	s := b.session(t, b.app(), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	return s
}

func pin(t testing.TB, s string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func logIn(t testing.TB, s *Session, user p11.UserType, text string) {
	t.Helper()
	if err := s.Login(t.Context(), user, pin(t, text)); err != nil {
		t.Fatalf("login: %v", err)
	}
}

func tmpl(t testing.TB, text string) p11.Attributes {
	t.Helper()
	a, err := p11.ParseTemplate(text)
	if err != nil {
		t.Fatalf("template %q: %v", text, err)
	}
	return a
}

func create(t testing.TB, s *Session, text string) p11.ObjectHandle {
	t.Helper()
	h, err := s.CreateObject(t.Context(), tmpl(t, text))
	if err != nil {
		t.Fatalf("create %q: %v", text, err)
	}
	return h
}

// want checks the RV of an error; CKR_OK is no error.
func want(t testing.TB, err error, rv p11.RV) {
	t.Helper()
	if got := p11.RVOf(err); got != rv {
		t.Errorf("got %v (%v), want %v", got, err, rv)
	}
	if err != nil && p11.RVOf(err) == p11.CKR_GENERAL_ERROR && !errors.Is(err, p11.CKR_GENERAL_ERROR) {
		t.Errorf("error without an RV: %v", err)
	}
}

func get(t testing.TB, s *Session, h p11.ObjectHandle, typ p11.AttributeType) AttributeResult {
	t.Helper()
	r, err := s.GetAttributeValue(t.Context(), h, typ)
	if err != nil {
		t.Fatalf("%s: %v", typ, err)
	}
	return r[0]
}

func flag(t testing.TB, s *Session, h p11.ObjectHandle, typ p11.AttributeType) bool {
	t.Helper()
	r := get(t, s, h, typ)
	if r.Err != nil {
		t.Fatalf("%s: %v", typ, r.Err)
	}
	return len(r.Value) == 1 && r.Value[0] == 1
}

func mech(t testing.TB, text string) p11.Mechanism {
	t.Helper()
	m, err := p11.ParseMechanism(text)
	if err != nil {
		t.Fatalf("mechanism %q: %v", text, err)
	}
	return m
}

const (
	aesKey = "class=secret-key key-type=aes value=0x000102030405060708090a0b0c0d0e0f"
	macKey = "class=secret-key key-type=generic-secret value=0x0001020304050607"
)

// generateEC makes a P-256 key pair.
func generateEC(t testing.TB, s *Session, public, private string) (pub, priv p11.ObjectHandle) {
	t.Helper()
	pub, priv, err := s.GenerateKeyPair(t.Context(), mech(t, "ec-key-pair-gen"),
		tmpl(t, "ec-params=secp256r1 "+public), tmpl(t, private))
	if err != nil {
		t.Fatal(err)
	}
	return pub, priv
}
