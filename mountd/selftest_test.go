package mountd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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
		d := &Daemon{now: time.Now}
		if err := d.selfTest(t.Context(), mute{}); !errors.Is(err, context.DeadlineExceeded) || len(d.selfTestFailed) != 1 {
			t.Errorf("%v, failed %v", err, d.selfTestFailed)
		}
	})
}
