package ep11tok

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"p11fs/p11"
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

// TestCardKilledAtChange ends the cards before each call of those that change a key: it is the
// key of before, and then the other.
func TestCardKilledAtChange(t *testing.T) {
	t.Parallel()
	via, dir := softCard(t)
	cut := &cutter{Transport: via}
	now := time.Now()
	tok := bed{via: cut, now: func() time.Time { return now }}.token(t, t.TempDir())
	a, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, parse(t, "class=secret-key key-type=aes value-len=32 token=true sign=true"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := tok.Create(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	set, err := soft.OpenSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for _, step := range []string{soft.ChangeNew, soft.ChangeCommit} { // so that a change takes two calls
		if err := set.Change(nil, soft.WK, step); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tok.Reencipher(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	values := func() (sign bool, blob, next []byte) {
		t.Helper()
		o, err := tok.ByHandle(o.Handle)
		if err != nil {
			t.Fatal(err)
		}
		return valueOf(t, o, p11.CKA_SIGN)[0] != 0, valueOf(t, o, p11.CKA_IBM_OPAQUE), valueOf(t, o, p11.CKA_IBM_OPAQUE_REENC)
	}
	_, blob, next := values()
	for n := 1; ; n++ {
		cut.left = n
		err := change(t, tok, o, "sign=false")
		cut.left = 0
		sign, isBlob, isNext := values()
		if err == nil {
			if sign || bytes.Equal(isBlob, blob) || bytes.Equal(isNext, next) {
				t.Error("the change is not in both blobs")
			}
			if n < 3 {
				t.Errorf("a change takes %d calls", n-1)
			}
			return
		}
		if p11.RVOf(err) != p11.CKR_DEVICE_REMOVED || !sign || !bytes.Equal(isBlob, blob) || !bytes.Equal(isNext, next) {
			t.Fatalf("cut off at call %d: %v; sign=%v", n, err, sign)
		}
		now = now.Add(time.Minute) // the pause of a card that did not answer is over
	}
}

// A cutter is a card that does not answer from the call on that left counts down to.
type cutter struct {
	card.Transport
	left int
}

func (c *cutter) Call(ctx context.Context, call *card.Call) error {
	if c.left == 1 {
		return p11.CKR_DEVICE_REMOVED
	}
	if c.left > 1 {
		c.left--
	}
	return c.Transport.Call(ctx, call)
}
