package stocktpm

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tpm/desk"
)

// TestGone takes the TPM away in the middle of signatures: each says so soon, and when it is
// back all is as before. Objects are found meanwhile.
func TestGone(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	g.device = desk.Device(g.tpm.Device())
	tok := g.open(t)
	login(t, tok, p11.CKU_USER, g.UserPIN)
	key := find(t, tok, p11.CKO_PRIVATE_KEY, "gen-priv")
	sign := func(ctx context.Context) error {
		op, err := tok.Begin(ctx, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS}, key)
		if err != nil {
			return err
		}
		defer op.Close()
		if _, err := op.Update(ctx, []byte("hello")); err != nil {
			return err
		}
		_, err = op.Final(ctx, nil)
		return err
	}
	noError(t, sign(t.Context()))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				begun := time.Now()
				err := sign(t.Context())
				if took := time.Since(begun); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				if err != nil {
					wantRV(t, "a signature", err, p11.CKR_DEVICE_REMOVED)
					return
				}
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	g.tpm.Kill()
	all.Wait()
	if tok.Offline() == nil {
		t.Error("the TPM is not known to be away")
	}
	_, err := tok.Login(t.Context(), p11.CKU_USER, pin(t, "wrong PIN"))
	wantRV(t, "a PIN that nobody looks at", err, p11.CKR_DEVICE_REMOVED)
	info, err := tok.Info(t.Context())
	if noError(t, err); info.Flags&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.Error("it is counted")
	}
	find(t, tok, p11.CKO_PUBLIC_KEY, "gen-priv")
	g.tpm.Run(t)
	for begun := time.Now(); sign(t.Context()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatal("it does not come back")
		}
	}
	g.signs(t, tok, "gen-priv", "ext-priv")
	if err := tok.Offline(); err != nil {
		t.Error(err)
	}
	// Who is interrupted does not wait for the TPM.
	g.tpm.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := sign(ctx); !errors.Is(err, context.DeadlineExceeded) && p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED || time.Since(begun) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	g.tpm.Signal(syscall.SIGCONT)
}
