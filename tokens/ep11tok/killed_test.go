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
	cardtest.Main(m, card.EP11, func(s *soft.Set) card.Transport {
		return soft.NewEP11(s, swtok.GoProvider(), slog.New(slog.DiscardHandler))
	})
}

// TestKilled ends the process of the cards at each moment. It takes 2 s.
func TestKilled(t *testing.T) {
	t.Parallel()
	cardtest.Killed(t, cardtest.Bed{
		ABI: card.EP11, Masters: []string{soft.WK},
		Token: func(t *testing.T, dir string, via card.Transport, now func() time.Time) tokens.Token {
			t.Helper()
			return bed{via: via, now: now}.token(t, dir)
		},
	})
}
