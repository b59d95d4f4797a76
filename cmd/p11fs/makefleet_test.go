package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/fleet/seal"
)

// fleetConf is the configuration of a token of a fleet, whose key is in the cluster's directory.
func fleetConf(t *testing.T, c *etcdtest.Cluster, token string) string {
	t.Helper()
	sealKey, pair := filepath.Join(c.Dir(), "fleet.key"), c.Pair("user-"+token, time.Now().Add(time.Hour))
	if _, err := os.Stat(sealKey); err != nil {
		if err := seal.WriteKey(sealKey); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("endpoint = %s\nprefix = /p11fs/%s/\nca = %q\ncert = %q\nkey = %q\nsealkey = %q\n", c.Endpoints()[0], token, c.CA(), pair.Cert, pair.Key, sealKey)
	conf := filepath.Join(t.TempDir(), token+".conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf
}

// machine has what follows be on a machine of that name, and returns where a token called fleet
// is there.
func machine(t *testing.T, c *etcdtest.Cluster, name string) (token string) {
	t.Helper()
	home := filepath.Join(c.Dir(), "home-"+name)
	for name, value := range map[string]string{"HOME": home, "XDG_DATA_HOME": filepath.Join(home, "data"), "XDG_RUNTIME_DIR": home, mountEnv: "", "P11FS_SOCKET": "", "P11FS_TPM": ""} {
		t.Setenv(name, value)
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, "data", "p11fs", "fleet")
}

// TestInitFleet is what docs/fleet.md has a user do on two machines: the first one makes the
// token, and the second has it by the name of its configuration.
func TestInitFleet(t *testing.T) {
	c := etcdtest.Start(t, 1)
	conf := fleetConf(t, c, "fleet")
	const answers = "87654321\nweb farm\n12345678\n"
	first := machine(t, c, "one")
	if r := command(t, answers, "init", "fleet"); r.code == exitOK || !strings.Contains(r.err, "nothing says which fleet") {
		t.Errorf("without a configuration: %+v", r)
	}
	if r := command(t, answers, "init", "fleet", "--fleet", conf); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	kept := read(t, first, "fleet.conf")
	second := machine(t, c, "two")
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
}

// TestFleetCommands makes tokens of a fleet under names of their own, moves one there and back,
// and saves one, where no daemon runs.
func TestFleetCommands(t *testing.T) {
	c := etcdtest.Start(t, 1)
	machine(t, c, "one")
	const answers = "87654321\nweb farm\n12345678\n"
	web, work := fleetConf(t, c, "web"), fleetConf(t, c, "work")
	ok := func(input string, args ...string) result {
		t.Helper()
		r := command(t, input, args...)
		if r.code != exitOK {
			t.Fatalf("%q: %+v", args, r)
		}
		return r
	}
	other := etcdtest.NewAuthority(t, t.TempDir()).CA()
	strange := filepath.Join(t.TempDir(), "strange.conf")
	if err := os.WriteFile(strange, []byte(strings.ReplaceAll(read(t, filepath.Dir(web), filepath.Base(web)), c.CA(), other)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, answers, "token", "new", "web", "--fleet", strange); r.code == exitOK || !strings.Contains(r.err, "signed by another authority than that in "+other) || !strings.Contains(r.err, "see who answers") {
		t.Errorf("the certificate of another authority: %+v", r)
	}
	ok(answers, "token", "new", "web", "--fleet", web)
	ok(answers, "token", "new", "work")
	if list := ok("", "token", "ls").out; !regexp.MustCompile(`web +fleet .*\nwork +swtok `).MatchString(list) {
		t.Errorf("the tokens:\n%s", list)
	}
	ok("", "migrate", "work", "--to-fleet", work)
	if r := command(t, "", "migrate", "work", "--to-fleet", web); r.code == exitOK {
		t.Errorf("a token of the fleet moves there: %+v", r)
	}
	if list := ok("", "token", "ls").out; !regexp.MustCompile(`web +fleet .*\nwork +fleet `).MatchString(list) {
		t.Errorf("the tokens:\n%s", list)
	}
	ok("12345678\n", "check", "--login", "work")

	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	saved, key := filepath.Join(t.TempDir(), "saved"), filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok("", "backup", "work", saved, "--recipient", id.Recipient().String())
	ok("", "restore", saved, "work", "--identity", key, "--force", "--yes")
	ok("", "migrate", "work", "--from-fleet")
	ok("12345678\n", "check", "--login", "work")
	if r := command(t, "", "check", "web"); r.code != exitOK || !strings.Contains(r.out, "good") {
		t.Errorf("%+v", r)
	}
	if r := command(t, "", "migrate", "work", "--to-fleet", work); r.code == exitOK || !strings.Contains(r.err, "in its place, where work is to go") {
		t.Errorf("over what is there already: %+v", r)
	}
	ok("12345678\n", "check", "--login", "work")

	machine(t, c, "two")
	if r := command(t, answers, "token", "new", "web", "--fleet", web); r.code == exitOK || !strings.Contains(r.err, "add --adopt") {
		t.Errorf("what another machine has made: %+v", r)
	}
	ok("", "token", "new", "web", "--fleet", web, "--adopt")
	ok("12345678\n", "check", "--login", "web")
	if r := command(t, "", "token", "new", "none", "--fleet", fleetConf(t, c, "none"), "--adopt"); r.code == exitOK || !strings.Contains(r.err, "leave --adopt out") {
		t.Errorf("what nobody has made: %+v", r)
	}
}
