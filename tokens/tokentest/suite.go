package tokentest

import (
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A Backend is a kind of token under test.
type Backend struct {
	// Open opens the token in dir, making it in an empty one. Tokens that are
	// open on one directory at the same time see each other's changes. The
	// suite closes it.
	Open func(t *testing.T, dir string) tokens.Token
	// SOPIN is the PIN that initialises a new token.
	SOPIN string
	// KeysUnderPINs says that the token makes pairs of keys only once its PINs are set.
	KeysUnderPINs bool
	// Exchanged is the type of the keys that the token wraps, and agrees on with the function
	// KDF; 0 for generic-secret, and none.
	Exchanged p11.KeyType
	KDF       p11.KDF
	// Shown are attributes of the token's own that everybody may read.
	Shown []p11.AttributeType
}

const (
	soPIN   = "so-pin-1"
	userPIN = "user-pin"
)

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Run("initialisation", b.testInit)
	t.Run("PINs", b.testPINs)
	t.Run("lockout", b.testLockout)
	t.Run("logins", b.testLogins)
	t.Run("objects", b.testObjects)
	t.Run("versions", b.testVersions)
	t.Run("private objects", b.testPrivate)
	t.Run("two in turns", b.testTwo)
	t.Run("two at once", b.testConcurrent)
	t.Run("interrupts", b.testInterrupted)
	t.Run("mechanisms", b.testMechanisms)
	t.Run("absent mechanisms", b.testAbsent)
	t.Run("stored keys", b.testStoredKeys)
	t.Run("interrupted operations", b.testInterruptedOperations)
	t.Run("adopted keys", b.testAdopted)
	t.Run("forgotten keys", b.testForgotten)
	t.Run("optional parts", b.testOptional)
	t.Run("dates", b.testDates)
	t.Run("counter", b.testCounter)
	t.Run("random", b.testRandom)
}

// open opens a token and closes it when the test ends.
func (b Backend) open(t *testing.T, dir string) tokens.Token {
	t.Helper()
	tok := b.Open(t, dir)
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tok
}

// ready opens an initialised token with both PINs set.
func (b Backend) ready(t *testing.T, dir string) tokens.Token {
	t.Helper()
	tok := b.open(t, dir)
	noError(t, tok.InitToken(t.Context(), PIN(t, b.SOPIN), "suite"))
	noError(t, tok.SetPIN(t.Context(), p11.CKU_SO, PIN(t, b.SOPIN), PIN(t, soPIN)))
	so := login(t, tok, p11.CKU_SO, soPIN)
	noError(t, tok.InitPIN(t.Context(), so, PIN(t, userPIN)))
	noError(t, so.Close())
	return tok
}

// forKeys opens a token that makes keys, in a directory of its own.
func (b Backend) forKeys(t *testing.T) tokens.Token {
	t.Helper()
	if b.KeysUnderPINs {
		return b.ready(t, t.TempDir())
	}
	return b.open(t, t.TempDir())
}

// PIN is a PIN that is wiped when the test ends.
func PIN(t testing.TB, s string) *secret.Bytes {
	t.Helper()
	p, err := secret.New([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func login(t *testing.T, tok tokens.Token, user p11.UserType, pin string) tokens.Login {
	t.Helper()
	l, err := tok.Login(t.Context(), user, PIN(t, pin))
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantRV(t *testing.T, what string, err error, want ...p11.RV) {
	t.Helper()
	for _, rv := range want {
		if p11.RVOf(err) == rv {
			return
		}
	}
	t.Errorf("%s: got %v (%v), want %v", what, p11.RVOf(err), err, want)
}

func tokenFlags(t *testing.T, tok tokens.Token) p11.Flags {
	t.Helper()
	info, err := tok.Info(t.Context())
	noError(t, err)
	return info.Flags
}

func (b Backend) testInit(t *testing.T) {
	dir := t.TempDir()
	tok := b.open(t, dir)
	if tok.Name() == "" || tok.Kind() == "" {
		t.Errorf("name %q, kind %q", tok.Name(), tok.Kind())
	}
	if tokenFlags(t, tok)&p11.CKF_TOKEN_INITIALIZED != 0 {
		t.Error("a new token is initialised")
	}
	wantRV(t, "initialise with a wrong PIN", tok.InitToken(t.Context(), PIN(t, "wrongpin"), "x"), p11.CKR_PIN_INCORRECT)
	if tokenFlags(t, tok)&p11.CKF_TOKEN_INITIALIZED != 0 {
		t.Error("a wrong PIN initialised the token")
	}
	noError(t, tok.InitToken(t.Context(), PIN(t, b.SOPIN), "first label"))
	_, err := tok.Create(t.Context(), data("kept", "1", false))
	noError(t, err)
	_, err = tok.Login(t.Context(), p11.CKU_USER, PIN(t, userPIN))
	wantRV(t, "login of a user without PIN", err, p11.CKR_USER_PIN_NOT_INITIALIZED)

	again := b.open(t, dir)
	info, err := again.Info(t.Context())
	noError(t, err)
	if info.Label != "first label" || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 || info.Flags&p11.CKF_USER_PIN_INITIALIZED != 0 {
		t.Errorf("after another open: label %q, flags %#x", info.Label, uint64(info.Flags))
	}
	if public, _ := again.Counts(); public != 1 {
		t.Errorf("%d objects after another open", public)
	}

	noError(t, tok.InitToken(t.Context(), PIN(t, b.SOPIN), "second label"))
	noError(t, again.Refresh(t.Context()))
	for _, x := range []tokens.Token{tok, again} {
		if public, private := x.Counts(); public+private != 0 {
			t.Errorf("%d public and %d private objects survive the initialisation", public, private)
		}
	}
	info, err = again.Info(t.Context())
	noError(t, err)
	if info.Label != "second label" {
		t.Errorf("label %q", info.Label)
	}
}

func (b Backend) testRandom(t *testing.T) {
	tok := b.open(t, t.TempDir())
	seen := make(map[[16]byte]bool)
	for range 100 {
		var r [16]byte
		noError(t, tok.GenerateRandom(t.Context(), r[:]))
		if seen[r] {
			t.Fatal("the generator repeats itself")
		}
		seen[r] = true
	}
	if s, ok := tok.(tokens.RandomSeeder); ok {
		noError(t, s.SeedRandom(t.Context(), []byte("seed")))
	}
}
