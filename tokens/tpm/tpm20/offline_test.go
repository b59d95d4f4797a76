package tpm20

import (
	"context"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
)

// TestGone takes the TPM away in the middle of many signatures: each says so soon, and
// when it is back, all is as before; once it was cleared, that is said too.
func TestGone(t *testing.T) {
	t.Parallel()
	tpm, c, p := fresh(t)
	p256 := curve(t, "P-256")
	auth := must[*secret.Bytes](t)(NewAuth())
	k := newKey(t, c, p, func(ctx context.Context) (Blob, error) { return c.CreateEC(ctx, p, p256, auth) })
	k.Auth = auth
	sign := func() error {
		_, _, err := k.SignECDSA(t.Context(), p256, []byte("digest"))
		return err
	}
	for _, away := range []struct {
		how    string
		take   func()
		give   func()
		within time.Duration
	}{
		{"killed", tpm.Kill, func() { tpm.Run(t) }, 5 * time.Second},
		{"silent", func() { tpm.Signal(19) }, func() { tpm.Signal(18) }, patience + 4*time.Second},
	} {
		noError(t, sign())
		var all sync.WaitGroup
		taken := make(chan struct{})
		for range 32 {
			all.Go(func() {
				for n := 0; ; n++ {
					begun := time.Now()
					err := sign()
					if took := time.Since(begun); took > away.within {
						t.Errorf("%s: an error after %v", away.how, took)
					}
					if err != nil {
						select {
						case <-taken:
						default:
							t.Errorf("an error while it was there: %v", err)
						}
						wantRV(t, "a signature", err, p11.CKR_DEVICE_REMOVED)
						return
					}
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		close(taken)
		away.take()
		all.Wait()
		if c.Offline() == nil {
			t.Errorf("%s: the TPM is said to be there", away.how)
		}
		away.give()
		for begun := time.Now(); c.Offline() != nil; time.Sleep(10 * time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatalf("%s: it does not come back: %v", away.how, c.Offline())
			}
		}
		noError(t, sign())
	}
	if rc := raw(t, c, 0x126, 0x4000000a); rc != 0 { // TPM2_Clear
		t.Fatal(rc)
	}
	if err := sign(); p11.RVOf(err) == p11.CKR_OK {
		t.Error("a key of a cleared TPM signs")
	} else {
		wantRV(t, "a key of a cleared TPM", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
	}
}

func TestAbsent(t *testing.T) {
	t.Parallel()
	for _, d := range []Device{"unix:/nonexistent/socket", "/nonexistent/tpm", "tcp:127.0.0.1:1"} {
		c := must[*Chip](t)(Open(d))
		_, err := c.Facts(t.Context())
		wantRV(t, string(d), err, p11.CKR_DEVICE_REMOVED)
		if c.Offline() == nil {
			t.Errorf("%s is said to be there", d)
		}
		c.Close()
		_, err = c.Facts(t.Context())
		wantRV(t, "a chip that is closed", err, p11.CKR_DEVICE_REMOVED)
	}
	for _, d := range []Device{"", "tpmrm0", "unix:", "unix:relative", "tcp:host", "http://x"} {
		_, err := Open(d)
		wantRV(t, string(d), err, p11.CKR_ARGUMENTS_BAD)
	}
}
