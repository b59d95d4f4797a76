package mountd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"p11fs/tokens"
)

// mute is a token whose device does not answer.
type mute struct{ tokens.Token }

func (mute) Name() string { return "mute" }

func (mute) SelfTest(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestMuteToken: a token that never ends its self-test fails it, and the others are served.
func TestMuteToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := selfTest(t.Context(), mute{}); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, new(selfTestError)) {
			t.Error(err)
		}
	})
}
