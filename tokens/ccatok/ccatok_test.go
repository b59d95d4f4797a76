package ccatok

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// cards are software cards of a test.
type cards struct {
	*softcca.Cards
	set *soft.Set
}

// Close leaves the cards to their other tokens.
func (cards) Close() error { return nil }

func newCards(t testing.TB) cards {
	t.Helper()
	dir := t.TempDir()
	if err := softcca.MakeSet(dir, []card.APQN{{Domain: 1}}); err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := softcca.NewCards(set, swtok.GoProvider(), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return cards{c, set}
}

// change gives the cards another master key.
func (c cards) change(t testing.TB, m softcca.Master, steps ...string) {
	t.Helper()
	for _, step := range steps {
		if err := c.set.Change(nil, m.String(), step); err != nil {
			t.Fatal(err)
		}
	}
}

// place is where a token of a test is, below dir.
func place(t testing.TB, dir string) tokens.Place {
	t.Helper()
	lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	return tokens.Place{
		Name: "mine", Dir: filepath.Join(dir, "token"), Lock: lock, Create: true, Group: locks.NoGroup,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

func open(t testing.TB, p tokens.Place, via card.Transport) tokens.Token {
	t.Helper()
	tok, err := newKind(swtok.GoProvider(), func(conf) card.Transport { return via }).Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestToken runs the suite of all tokens.
func TestToken(t *testing.T) {
	t.Parallel()
	d := newCards(t)
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN, Shown: []p11.AttributeType{p11.CKA_IBM_OPAQUE},
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			return open(t, place(t, dir), d)
		},
	})
}
