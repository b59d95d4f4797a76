package ep11tok

import (
	"log/slog"
	"testing"
	"time"

	"p11fs/tokens"
	"p11fs/tokens/card"
	"p11fs/tokens/card/cardtest"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/swtok"
)

func TestMain(m *testing.M) {
	cardtest.Main(m, func(dir string) (card.ABI, card.Transport, error) {
		set, err := soft.OpenSet(dir)
		if err != nil {
			return 0, nil, err
		}
		return card.EP11, soft.NewEP11(set, swtok.GoProvider(), slog.New(slog.DiscardHandler)), nil
	})
}

// TestKilled ends the process of the cards at each moment. It takes 2 s.
func TestKilled(t *testing.T) {
	t.Parallel()
	b := cardtest.Bed{
		ABI: card.EP11, New: soft.ChangeNew, Commit: soft.ChangeCommit, Activate: soft.ChangeActivate,
		Make: func(dir string) error {
			return soft.MakeSet(dir, "ep11", []card.APQN{{Adapter: 0, Domain: 1}}, []string{soft.WK})
		},
		Token: func(t *testing.T, dir string, via card.Transport, now func() time.Time) tokens.Token {
			t.Helper()
			return bed{via: via, now: now}.token(t, dir)
		},
		Change: func(t *testing.T, dir, step string) {
			t.Helper()
			set, err := soft.OpenSet(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer set.Close()
			if err := set.Change(nil, soft.WK, step); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, test := range map[string]func(*testing.T, cardtest.Bed){"operations": cardtest.Operations, "import": cardtest.Import, "re-enciphering": cardtest.Reencipher} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}
