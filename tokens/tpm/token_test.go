package tpm

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest"
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
	if err := writeFile(config, "# of a test\nprotection = "+protection+"\n"); err != nil {
		t.Fatal(err)
	}
	return tokens.Place{
		Name: "mine", Dir: filepath.Join(dir, "token"), Config: config, Lock: lock, Create: true, Group: locks.NoGroup,
		Format: p11.Version{Major: 3, Minor: 12}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// testCost is a cost of PINs that takes no time.
const testCost = 4

// TestToken runs the suite of all tokens with each protection.
func TestToken(t *testing.T) {
	t.Parallel()
	for _, protection := range []string{DA, PINFail} {
		t.Run(protection, func(t *testing.T) {
			t.Parallel()
			// The suite gives more wrong PINs than a TPM may count.
			soft := tpmtest.Start(t, nil)
			soft.Tries(t, 250)
			kind := newKind(swtok.GoProvider(), soft.Device(), testCost)
			tokentest.Run(t, tokentest.Backend{
				SOPIN: tokens.DefaultSOPIN,
				Open: func(t *testing.T, dir string) tokens.Token {
					t.Helper()
					tok, err := kind.Open(t.Context(), place(t, dir, protection))
					if err != nil {
						t.Fatal(err)
					}
					if got := tok.(*token).k.protection(); got != protection {
						t.Errorf("the protection is %s", got)
					}
					return tok
				},
			})
		})
	}
}
