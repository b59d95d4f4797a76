package tpm

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpmtest"
)

// TestWarm: what was made of a PIN is known while somebody is logged in with it, and no
// longer; and the TPM looks at PINs all the same.
func TestWarm(t *testing.T) {
	t.Parallel()
	for _, protection := range []string{DA, PINFail} {
		t.Run(protection, func(t *testing.T) {
			t.Parallel()
			soft := tpmtest.Start(t, nil)
			soft.Tries(t, 250)
			p := place(t, t.TempDir(), protection)
			tok := opened(t, soft, p)
			knows := func(user p11.UserType, pin string, want bool) {
				t.Helper()
				b, err := os.ReadFile(filepath.Join(p.Dir, map[p11.UserType]string{p11.CKU_SO: "MK_SO", p11.CKU_USER: "MK_USER"}[user]))
				must(t, err)
				f, err := parseKeyFile(b)
				must(t, err)
				known, err := tok.k.warm.known(user, tokentest.PIN(t, pin), f)
				must(t, err)
				defer known.Close()
				if (known != nil) != want || len(tok.k.warm.tried) != 0 {
					t.Errorf("what was made of %s is known: %v; %d more are", pin, known != nil, len(tok.k.warm.tried))
				}
			}
			ready(t, tok)
			knows(p11.CKU_SO, soPIN, false)
			one, err := tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
			must(t, err)
			knows(p11.CKU_USER, userPIN, true)
			knows(p11.CKU_USER, soPIN, false)
			knows(p11.CKU_SO, userPIN, false)
			if rv := try(t, tok, "wrong"); rv != p11.CKR_PIN_INCORRECT {
				t.Errorf("a wrong PIN: %v", rv)
			}
			knows(p11.CKU_USER, userPIN, true)
			two, err := tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
			must(t, err)
			must(t, one.Close())
			knows(p11.CKU_USER, userPIN, true)
			must(t, tok.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN), tokentest.PIN(t, "new-pin")))
			knows(p11.CKU_USER, "new-pin", false)
			for pin, want := range map[string]p11.RV{userPIN: p11.CKR_PIN_INCORRECT, "new-pin": p11.CKR_OK} {
				if rv := try(t, tok, pin); rv != want {
					t.Errorf("after a change %s: %v", pin, rv)
				}
			}
			must(t, two.Close())
			knows(p11.CKU_USER, "new-pin", false)
			must(t, tok.SetPIN(t.Context(), p11.CKU_USER, tokentest.PIN(t, "new-pin"), tokentest.PIN(t, userPIN)))
			knows(p11.CKU_USER, "new-pin", false)
			_, err = tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
			must(t, err)
			knows(p11.CKU_USER, userPIN, true)
			must(t, tok.InitToken(t.Context(), tokentest.PIN(t, soPIN), "again"))
			if len(tok.k.warm.pins) != 0 {
				t.Error("PINs of before are known")
			}
		})
	}
}
