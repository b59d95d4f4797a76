package icsf

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
	"p11fs/tokens/tokentest"
)

// TestPlantedConfig: a server that others may have written into the token directory does not
// get the password.
func TestPlantedConfig(t *testing.T) {
	t.Parallel()
	p := tokens.Place{Dir: t.TempDir()}
	file := filepath.Join(p.Dir, ownConfig)
	c := icsffile.Config{Name: "A", Mech: icsffile.Simple, BindDN: "cn=a", URI: "ldap://other.example"}
	if err := os.WriteFile(file, c.Print(0), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readConfig(p); err != nil || got.URI != c.URI {
		t.Errorf("the owner's own says %v, %v", got, err)
	}
	if err := os.Chmod(file, 0o660); err != nil {
		t.Fatal(err)
	}
	if got, err := readConfig(p); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
		t.Errorf("it says %v, %v", got, err)
	}
}

// TestPlantedPIN: with SASL the PINs open nothing, and who writes the directory has the token.
func TestPlantedPIN(t *testing.T) {
	t.Parallel()
	s, dir, other := newSite(t, icsffile.SASL), t.TempDir(), t.TempDir()
	tok := newToken(t, s, dir)
	withPINs(t, tok)
	noError(t, tok.Close())
	theirs := newToken(t, newSite(t, icsffile.SASL), other)
	withPINs(t, theirs)
	so := login(t, theirs, p11.CKU_SO, soPIN)
	noError(t, theirs.InitPIN(t.Context(), so, tokentest.PIN(t, "planted")))
	noError(t, so.Close())
	b, err := os.ReadFile(filepath.Join(other, "token", "NVTOK.DAT"))
	noError(t, err)
	noError(t, os.WriteFile(filepath.Join(dir, "token", "NVTOK.DAT"), b, 0o600))
	login(t, newToken(t, s, dir), p11.CKU_USER, "planted")
}
