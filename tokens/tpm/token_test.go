package tpm

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpm20"
	"p11fs/tokens/tpm/tpmtest"
)

// place is where a token of a test is, below dir.
func place(t testing.TB, dir, protection string) tokens.Place {
	t.Helper()
	lock, err := locks.Open(filepath.Join(dir, "lock", "token"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	config := filepath.Join(dir, "tpm.conf")
	// A protection may have more lines behind it.
	if err := writeFile(config, fmt.Sprintf("# of a test\ncost = %d\nprotection = %s\n", tpm20.MinCost, protection)); err != nil {
		t.Fatal(err)
	}
	return tokens.Place{
		Name: "mine", Dir: filepath.Join(dir, "token"), Config: config, Lock: lock, Create: true, Group: locks.NoGroup,
		Format: p11.Version{Major: 3, Minor: 12}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// inAES, behind a protection, has keys of AES be the TPM's.
const inAES = "\naes = tpm"

// TestToken runs the suite of all tokens with each protection, and keys of AES here and
// there.
func TestToken(t *testing.T) {
	t.Parallel()
	for _, protection := range []string{DA, PINFail + inAES} {
		t.Run(strings.TrimSuffix(protection, inAES), func(t *testing.T) {
			t.Parallel()
			// The suite gives more wrong PINs than a TPM may count.
			soft := tpmtest.Start(t, nil)
			soft.Tries(t, 250)
			kind := NewKind(swtok.GoProvider(), soft.Device())
			tokentest.Run(t, tokentest.Backend{
				SOPIN: tokens.DefaultSOPIN,
				Open: func(t *testing.T, dir string) tokens.Token {
					t.Helper()
					tok, err := kind.Open(t.Context(), place(t, dir, protection))
					if err != nil {
						t.Fatal(err)
					}
					if got := tok.(*token).k.protection(); got != strings.TrimSuffix(protection, inAES) {
						t.Errorf("the protection is %s", got)
					}
					return tok
				},
			})
		})
	}
}
