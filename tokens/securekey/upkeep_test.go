package securekey

import (
	"io"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// TestKeptWithCards: what would leave a card's part of a directory behind is refused, with
// what to do, and what is weak is not told to be mended so.
func TestKeptWithCards(t *testing.T) {
	old := true
	k := KeptWithCards(tokens.Kind{
		Upkeep: func(tokens.Place) tokens.Upkeep { return nil },
		Weak: func(tokens.Place) (why, mend string) {
			if old {
				why, mend = "old", "p11fs migrate x"
			}
			return why, mend
		},
	})
	u := k.Upkeep(tokens.Place{})
	_, err := u.Migrate(t.Context(), tokens.Migration{})
	for what, err := range map[string]error{"p11fs init": err, "cp -a": u.Backup(t.Context(), io.Discard, nil), "with cp -a": k.NoBackup} {
		if p11.RVOf(err) != p11.CKR_FUNCTION_NOT_SUPPORTED || !strings.Contains(p11.AdviceOf(err), what) {
			t.Errorf("%v", err)
		}
	}
	if why, mend := k.Weak(tokens.Place{}); !strings.Contains(why, "8 bytes") || strings.Contains(mend, "migrate") {
		t.Errorf("%s: %s", why, mend)
	}
	old = false
	if why, mend := k.Weak(tokens.Place{}); why+mend != "" {
		t.Errorf("%s: %s", why, mend)
	}
}
