package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
)

// TestInitFleet is what docs/fleet.md has a user do on two machines: the first one makes the
// token, and the second has it by the name of its configuration.
func TestInitFleet(t *testing.T) {
	c := etcdtest.Start(t, 1)
	dir := t.TempDir()
	sealKey, conf, pair := filepath.Join(dir, "fleet.key"), filepath.Join(dir, "web.conf"), c.Pair("user", time.Now().Add(time.Hour))
	if err := seal.WriteKey(sealKey); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("endpoint = %s\nprefix = /p11fs/web/\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\n", c.Endpoints()[0], c.CA(), pair.Cert, pair.Key, sealKey)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	machine := func(name string) (token string) {
		home := filepath.Join(dir, name)
		for name, value := range map[string]string{"HOME": home, "XDG_DATA_HOME": filepath.Join(home, "data"), "XDG_RUNTIME_DIR": home, mountEnv: "", "P11FS_SOCKET": "", "P11FS_TPM": ""} {
			t.Setenv(name, value)
		}
		if err := os.MkdirAll(home, 0o700); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(home, "data", "p11fs", "fleet")
	}
	const answers = "87654321\nweb farm\n12345678\n"
	first := machine("one")
	if r := command(t, answers, "init", "fleet"); r.code == exitOK || !strings.Contains(r.err, "nothing says which fleet") {
		t.Errorf("without a configuration: %+v", r)
	}
	if r := command(t, answers, "init", "fleet", "--fleet", conf); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	kept := read(t, first, "fleet.conf")
	second := machine("two")
	if err := os.MkdirAll(second, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second, "fleet.conf"), []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, answers, "init", "fleet"); r.code != exitFailure || !strings.Contains(r.err, "already, which another machine has made") {
		t.Errorf("the other machine does not have what the first one made: %+v", r)
	}
	if read(t, second, "fleet.conf") != kept {
		t.Error("the second machine's configuration is another")
	}
	if r := command(t, "", "backup", "fleet", filepath.Join(dir, "backup")); r.code == exitOK || !strings.Contains(r.err, "etcdctl snapshot save") {
		t.Errorf("a backup of what is not in the directory: %+v", r)
	}
}
