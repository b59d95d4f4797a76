package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGrantsUnreached: a grant of one's own daemon to another user is told to be of no use.
func TestGrantsUnreached(t *testing.T) {
	home := t.TempDir()
	for name, value := range map[string]string{"HOME": home, "XDG_CONFIG_HOME": filepath.Join(home, "conf"), "XDG_DATA_HOME": home, "XDG_RUNTIME_DIR": home} {
		t.Setenv(name, value)
	}
	dir := filepath.Join(home, "conf/p11fs/grants.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	own := os.Geteuid()
	text := fmt.Sprintf("user=%d token=swtok label=web functions=sign\nuser=%d token=swtok label=web functions=sign\n", own, own+1)
	if err := os.WriteFile(filepath.Join(dir, "web"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := command(t, "", "grants", "check")
	if want := fmt.Sprintf("web:2: your own daemon is reached by you alone, and not by the user %d", own+1); r.code != exitOK || strings.Count(r.err, "reached by you alone") != 1 || !strings.Contains(r.err, want) {
		t.Errorf("%+v, not %q", r, want)
	}
}
