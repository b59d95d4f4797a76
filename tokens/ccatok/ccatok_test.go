package ccatok

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	tok, err := newKind(swtok.GoProvider(), func(conf, tokens.Place) (card.Transport, error) { return via, nil }).Open(t.Context(), p)
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
		SOPIN: tokens.DefaultSOPIN, Shown: []p11.AttributeType{p11.CKA_IBM_OPAQUE}, Exchanged: p11.CKK_AES, KDF: p11.CKD_SHA256_KDF,
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			return open(t, place(t, dir), d)
		},
	})
}

// TestOwnCard makes a token with a software card of its own, which is there when the token is
// opened again, and one whose card is elsewhere and does not answer.
func TestOwnCard(t *testing.T) {
	t.Parallel()
	p := place(t, t.TempDir())
	kind := NewKind(swtok.GoProvider(), filepath.Join(t.TempDir(), "absent"))
	var key *tokens.Object
	for i, setting := range []string{"card = new", ""} {
		p.Config = ""
		if setting != "" {
			p.Config = filepath.Join(t.TempDir(), "settings")
			if err := os.WriteFile(p.Config, []byte(setting), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := kind.Open(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		tok := opened.(*token)
		if i == 0 {
			key = adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 16)}))
		}
		if _, err := do(t, tok, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, key, make([]byte, 16), 16, nil); err != nil {
			t.Errorf("opened for the %d. time: %v", i+1, err)
		}
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	}
	elsewhere := place(t, t.TempDir())
	elsewhere.Config = filepath.Join(t.TempDir(), "settings")
	socket := filepath.Join(t.TempDir(), "absent")
	if err := os.WriteFile(elsewhere.Config, []byte("card = "+socket), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	elsewhere.Now = func() time.Time { return now }
	opened, err := kind.Open(t.Context(), elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	if opened.(tokens.Offliner).Offline() == nil {
		t.Error("a card that is not there is online")
	}
	if now = now.Add(card.Retry); opened.(tokens.Offliner).Offline() != nil {
		t.Error("the next use does not ask it again")
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if wrong, mend := kind.Check(elsewhere); !strings.Contains(wrong, "no cca card answers at "+socket) || mend != "p11fs card serve --kind cca --dir DIR --socket "+socket {
		t.Errorf("the doctor says %q, %q", wrong, mend)
	}
	answered(t, kind, elsewhere, socket)
	if err := os.WriteFile(elsewhere.Config, []byte("card ="), 0o600); err != nil {
		t.Fatal(err)
	}
	if wrong, mend := kind.Check(elsewhere); !strings.Contains(wrong, "the token stays closed") || mend != "editor "+elsewhere.Config {
		t.Errorf("of a configuration that is none the doctor says %q, %q", wrong, mend)
	}
	elsewhere.Config = ""
	if c, err := readConf(elsewhere); err != nil || c.card != socket {
		t.Errorf("the token's own configuration says %q, %v", c.card, err)
	}
}

// answered has a card answer at the socket, and the doctor say nothing.
func answered(t *testing.T, kind tokens.Kind, p tokens.Place, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, cards := make(chan error), newCards(t)
	go func() {
		done <- (&card.Server{ABI: card.CCA, Card: cards, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	if wrong, _ := kind.Check(p); wrong != "" {
		t.Errorf("of a card that answers the doctor says %q", wrong)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
