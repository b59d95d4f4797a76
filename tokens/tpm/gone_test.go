package tpm

import (
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpmtest"
)

// TestGone takes the TPM away from 32 programs that sign, brings it back, and clears it:
// each is told soon what is the matter, and that a key is lost.
func TestGone(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	tok := opened(t, soft, place(t, t.TempDir(), PINFail))
	ready(t, tok)
	ctx := t.Context()
	login, err := tok.Login(ctx, p11.CKU_USER, tokentest.PIN(t, userPIN))
	must(t, err)
	defer login.Close()
	curve := p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}}
	_, made, err := tok.GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, curve,
		p11.Attributes{{Type: p11.CKA_TOKEN, Value: p11.Bool(true)}, {Type: p11.CKA_PRIVATE, Value: p11.Bool(true)}})
	must(t, err)
	made, err = tok.Adopt(ctx, made)
	must(t, err)
	key, err := tok.Create(ctx, made)
	must(t, err)
	sign := func() (rv p11.RV, err error) {
		begun := time.Now()
		op, err := tokentest.Calls{Crypto: tok}.Sign(ctx, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, key)
		if err == nil {
			defer op.Close()
			if err = op.Update([]byte("a message")); err == nil {
				_, err = op.Final()
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		return p11.RVOf(err), err
	}
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for {
				if rv, err := sign(); rv != p11.CKR_OK {
					if rv != p11.CKR_DEVICE_REMOVED {
						t.Errorf("without a TPM: %v", err)
					}
					return
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	soft.Kill()
	all.Wait()
	soft.Run(t)
	if _, err := sign(); err != nil {
		t.Errorf("the TPM is back: %v", err)
	}
	soft.Clear(t)
	if rv, err := sign(); rv != p11.CKR_TOKEN_NOT_RECOGNIZED {
		t.Errorf("a key of a TPM that was cleared: %v", err)
	}
	if rv := p11.RVOf(tok.SetPIN(ctx, p11.CKU_USER, tokentest.PIN(t, userPIN), tokentest.PIN(t, "another-pin"))); rv != p11.CKR_TOKEN_NOT_RECOGNIZED {
		t.Errorf("a new PIN after the TPM was cleared: %v", rv)
	}
}
