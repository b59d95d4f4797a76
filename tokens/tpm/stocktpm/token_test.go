package stocktpm

import (
	"sync"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/desk"
)

// TestToken runs the suite of all tokens, with a TPM for each directory: the suite gives
// more wrong PINs than one counts.
func TestToken(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tpms := map[string]desk.Device{}
	tokentest.Run(t, tokentest.Backend{
		SOPIN: tokens.DefaultSOPIN, KeysUnderPINs: true,
		Open: func(t *testing.T, dir string) tokens.Token {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if tpms[dir] == "" {
				tpms[dir] = desk.Device("unix:" + startTPM(t).Share(t))
			}
			tok, err := openAt(t, dir, tpms[dir])
			noError(t, err)
			tok.(*token).root, tok.(*token).leaf = pooledRoots(t), 1024
			return tok
		},
	})
}
