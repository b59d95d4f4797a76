package ep11tok

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/securekey"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
)

// softCard is a software card of the domains, with its directory.
func softCard(t testing.TB, apqns ...card.APQN) (card.Transport, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "card")
	if len(apqns) == 0 {
		apqns = []card.APQN{{Adapter: 0, Domain: 1}}
	}
	if err := soft.MakeSet(dir, "ep11", apqns, []string{soft.WK}); err != nil {
		t.Fatal(err)
	}
	return openCard(t, dir), dir
}

func openCard(t testing.TB, dir string) card.Transport {
	t.Helper()
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := soft.NewEP11(set, swtok.GoProvider(), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// kept is a transport that the token does not close.
type kept struct{ card.Transport }

func (kept) Close() error { return nil }

// A bed is what a token is opened on.
type bed struct {
	via    card.Transport
	conf   string // the text of ep11tok.conf
	format p11.Version
	now    func() time.Time
	log    *slog.Logger
}

// open opens the token in dir, making it.
func (b bed) open(t testing.TB, dir string) (tokens.Token, error) {
	t.Helper()
	lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	place := tokens.Place{
		Name: "mine", Dir: filepath.Join(dir, "token"), Lock: lock, Create: true, Group: locks.NoGroup, Format: b.format, Log: b.log, Now: b.now,
	}
	if place.Log == nil {
		place.Log = slog.New(slog.DiscardHandler)
	}
	if place.Now == nil {
		place.Now = time.Now
	}
	if b.conf != "" {
		place.Config = filepath.Join(t.TempDir(), confFile)
		if err := os.WriteFile(place.Config, []byte(b.conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return newKind(swtok.GoProvider(), func(conf, tokens.Place) (card.Transport, error) { return kept{b.via}, nil }).Open(t.Context(), place)
}

// token is a token that is closed when the test ends.
func (b bed) token(t testing.TB, dir string) *token {
	t.Helper()
	tok, err := b.open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tok.Close() })
	return tok.(*token)
}

// TestToken runs the suite of all tokens.
func TestToken(t *testing.T) {
	via, _ := softCard(t)
	tokentest.Run(t, tokentest.Backend{
		SOPIN: "87654321", Shown: securekey.Blobs(),
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			tok, err := bed{via: via}.open(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if tok.Name() != "mine" || tok.Kind() != Kind {
				t.Errorf("%s, %s", tok.Name(), tok.Kind())
			}
			return tok
		},
	})
}

// TestOtherCurves has public keys on a curve that Go's library has not, and the card may have.
func TestOtherCurves(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	tok := bed{via: via}.token(t, t.TempDir())
	for name, tt := range map[string]struct {
		key string
		rv  p11.RV
	}{
		"of Brainpool": {
			"ec-params=0x06092b2403030208010107 ec-point=0x044104a7d254281e4de670e2461cd2bba9ae68289763b98080bffcadb23e35c96d165905a212293f10d549fa3deb55460b698d7e36178038f464904d646d28a1ee3673",
			p11.CKR_OK,
		},
		"of NIST, and not on its curve": {
			"ec-params=0x06082a8648ce3d030107 ec-point=0x044104a7d254281e4de670e2461cd2bba9ae68289763b98080bffcadb23e35c96d165905a212293f10d549fa3deb55460b698d7e36178038f464904d646d28a1ee3673",
			p11.CKR_ATTRIBUTE_VALUE_INVALID,
		},
		"of nobody": {"ec-params=0x06022a03 ec-point=0x0403040101", p11.CKR_CURVE_NOT_SUPPORTED},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := p11.ParseTemplate("class=public-key key-type=ec " + tt.key)
			if err != nil {
				t.Fatal(err)
			}
			a, err = tok.Adopt(t.Context(), a)
			if p11.RVOf(err) != tt.rv && (err != nil || tt.rv != p11.CKR_OK) {
				t.Fatalf("%v, want %v", err, tt.rv)
			}
			if _, err := keyBlob(a); tt.rv == p11.CKR_OK && (err != nil || !a.Has(p11.CKA_PUBLIC_KEY_INFO)) {
				t.Errorf("it has %v, %v", a, err)
			}
		})
	}
}
