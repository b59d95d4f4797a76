package icsf

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsffile"
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
