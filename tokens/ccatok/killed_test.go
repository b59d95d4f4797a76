package ccatok

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardtest"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
	"p11fs/tokens/swtok"
)

func TestMain(m *testing.M) {
	cardtest.Main(m, card.CCA, func(s *soft.Set) card.Transport {
		return softcca.NewCards(s, swtok.GoProvider(), slog.New(slog.DiscardHandler))
	})
}

// TestKilled ends the process of the cards at each moment. It takes 2 s.
func TestKilled(t *testing.T) {
	t.Parallel()
	cardtest.Killed(t, cardtest.Bed{
		ABI: card.CCA, Masters: softcca.MasterNames(),
		Token: func(t *testing.T, dir string, via card.Transport, now func() time.Time) tokens.Token {
			t.Helper()
			p := place(t, dir)
			p.Now = now
			tok := open(t, p, via)
			t.Cleanup(func() {
				if err := tok.Close(); err != nil {
					t.Error(err)
				}
			})
			return tok
		},
	})
}

// TestTwoCards has two cards with different master keys: what one made the other does not
// use, and a token that expects those of one uses no other.
func TestTwoCards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := card.APQN{Adapter: 0, Domain: 1}, card.APQN{Adapter: 1, Domain: 1}
	if err := softcca.MakeSet(dir, []card.APQN{one, two}); err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := cards{softcca.NewCards(set, swtok.GoProvider(), slog.New(slog.DiscardHandler)), set}
	t.Cleanup(func() {
		if err := d.Cards.Close(); err != nil {
			t.Error(err)
		}
	})
	pattern, _, err := softcca.Pattern(set, one, softcca.AES, softcca.Current)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	on := func(a card.APQN, is bool) {
		t.Helper()
		if err := set.SetOnline(a, is); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * card.Retry)
	}
	var toks []*token
	for _, conf := range []string{"version cca-0", fmt.Sprintf("EXPECTED_MKVPS { AES = \"%x\" }", pattern)} {
		p := place(t, t.TempDir())
		p.Now = func() time.Time { return now }
		p.Config = filepath.Join(t.TempDir(), confFile)
		if err := os.WriteFile(p.Config, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		tok := open(t, p, d).(*token)
		t.Cleanup(func() {
			if err := tok.Close(); err != nil {
				t.Error(err)
			}
		})
		toks = append(toks, tok)
	}
	var keys []*tokens.Object
	for _, tok := range toks {
		keys = append(keys, adopted(t, tok, template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 16)})))
	}
	use := func(what string, want p11.RV) {
		t.Helper()
		for i, tok := range toks {
			_, err := do(t, tok, p11.CKF_ENCRYPT, p11.Mechanism{Type: p11.CKM_AES_ECB}, keys[i], make([]byte, 16), 16, nil)
			if want == p11.CKR_OK && err != nil || want != p11.CKR_OK && p11.RVOf(err) != want {
				t.Errorf("%s, token %d: %v, not %v", what, i, err, want)
			}
		}
	}
	on(one, false)
	use("the same master keys", p11.CKR_OK)
	on(one, true)
	for _, m := range softcca.Masters() {
		if err := set.Change(&two, m.String(), soft.ChangeSeparate); err != nil {
			t.Fatal(err)
		}
	}
	use("the card that has the keys", p11.CKR_OK)
	on(one, false)
	use("another card", p11.CKR_DEVICE_ERROR)
	on(two, false)
	use("no card", p11.CKR_DEVICE_REMOVED)
	on(two, true)
	_, err = toks[1].Adopt(t.Context(), template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 16)}))
	if p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("a key goes into a card that is not expected: %v", err)
	}
	on(one, true)
	use("the first card is back", p11.CKR_OK)
}
