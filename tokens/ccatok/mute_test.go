package ccatok

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// mute is a card that does not answer.
type mute struct{}

func (mute) Call(ctx context.Context, _ *card.Call) error {
	<-ctx.Done()
	return ctx.Err()
}

func (mute) Close() error { return nil }

// TestMuteCard: a card that does not answer is not waited for without end, as it would be
// where a token is opened.
func TestMuteCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &link{via: mute{}, Health: card.Health{Now: time.Now}}
		for range 2 { // the second one does not ask
			if err := l.call(t.Context(), func(card.Transport) error { return nil }); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
				t.Error(err)
			}
		}
	})
}
