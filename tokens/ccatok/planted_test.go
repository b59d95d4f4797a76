package ccatok

import (
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// TestPlantedConf: a socket that others may have written into the token directory gets no
// call.
func TestPlantedConf(t *testing.T) {
	t.Parallel()
	p := tokens.Place{Dir: t.TempDir()}
	file := filepath.Join(p.Dir, confFile)
	if err := os.WriteFile(file, []byte("version cca-0\n#p11fs: card = /tmp/other.socket\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := readConf(p); err != nil || c.card == "" {
		t.Errorf("the owner's own says %q, %v", c.card, err)
	}
	if err := os.Chmod(file, 0o660); err != nil {
		t.Fatal(err)
	}
	if c, err := readConf(p); p11.RVOf(err) != p11.CKR_FUNCTION_FAILED {
		t.Errorf("it says %q, %v", c.card, err)
	}
}
