package integration

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"p11fs/tokens/fleet"
)

// TestFleetDoc runs the lines of docs/fleet.md, with members of etcd that take the options of
// the page as etcd itself does: two machines have one key, and go on without a member. It takes
// 15 s, in which a cluster comes, and pass phrases and PINs cost what they cost users.
func TestFleetDoc(t *testing.T) {
	if args := flag.Args(); len(args) > 0 {
		t.Fatal(runEtcd(args[1:]))
	}
	t.Parallel()
	needTools(t, "openssl")
	const heading = "The same by hand"
	script := docBlock(t, "fleet.md", "sh", heading)
	if doc := readDoc(t, "fleet.md", "sh"); len(doc) != 1 {
		t.Errorf("lines of docs/fleet.md are not run: %d sections have some", len(doc))
	}
	for i := range 3 { // the page's may be taken
		for _, kind := range []string{"7", "8"} {
			port := fmt.Sprint(freePort(t))
			script = strings.ReplaceAll(script, fmt.Sprint("123", kind, i+1), port)
			script = "E" + kind + fmt.Sprint(i+1) + "=" + port + "\n" + script
		}
	}
	for _, kind := range []string{"7", "8"} {
		script = strings.ReplaceAll(script, "123"+kind+"$i", "$(eval echo \\$E"+kind+"$i)")
	}
	bin := workDir(t, "bin")
	etcd := "#!/bin/sh\nexec " + itself() + " -test.run='^TestFleetDoc$' etcd \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "etcd"), []byte(etcd), 0o700); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, daemonConfig{token: fleet.Kind})
	term := d.terminal("bash")
	t.Cleanup(func() {
		term.run("set +e; for h in web1 web2; do on $h p11fs umount $h/p11; done; kill $(cat etcd?.pid); wait") // of what failed in the middle
	})
	said := term.ok("set -e; PATH=" + bin + ":$PATH\n" + script)
	for _, want := range []string{"Verified OK\n", "web1 since ", "web2 since ", "members 2 of 3", "wrong: it does not answer", "web is of the kind swtok now."} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in what the lines print:\n%s", want, said)
		}
	}
	if got := term.ok("wait; cat web1.log web2.log"); strings.Contains(got, "put it back") {
		t.Errorf("a restore is tampering:\n%s", got)
	}
}

// TestFleetUnit is that systemd takes the page's unit of etcd, and etcd its options.
func TestFleetUnit(t *testing.T) {
	t.Parallel()
	needTools(t, "systemd-analyze")
	unit := docBlock(t, "fleet.md", "ini", "As units of systemd")
	_, line, _ := strings.Cut(strings.ReplaceAll(unit, "\\\n", ""), "ExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	if _, err := etcdConfig(strings.Fields(line)[1:]); err != nil {
		t.Error(err)
	}
	path := filepath.Join(workDir(t, "unit"), "etcd.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, "/usr/local/bin/etcd", "/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := command("systemd-analyze", "verify", "--man=no", path); strings.Contains(out, "etcd.service") {
		t.Errorf("systemd-analyze verify (%v): %s", err, out)
	}
}

// runEtcd is etcd with its options, as long as the process lives.
func runEtcd(args []string) error {
	cfg, err := etcdConfig(args)
	if err != nil {
		return err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	return <-e.Err()
}

// etcdConfig is what etcd makes of its options.
func etcdConfig(args []string) (*embed.Config, error) {
	cfg := embed.NewConfig()
	options := flag.NewFlagSet("etcd", flag.ContinueOnError)
	cfg.AddFlags(options)
	if err := options.Parse(args); err != nil {
		return nil, err
	}
	for name, to := range map[string]*[]url.URL{
		"listen-client-urls": &cfg.ListenClientUrls, "advertise-client-urls": &cfg.AdvertiseClientUrls,
		"listen-peer-urls": &cfg.ListenPeerUrls, "initial-advertise-peer-urls": &cfg.AdvertisePeerUrls,
	} {
		u, err := url.Parse(options.Lookup(name).Value.String())
		if err != nil {
			return nil, err
		}
		*to = []url.URL{*u}
	}
	cfg.ClusterState = embed.ClusterStateFlagNew
	return cfg, cfg.Validate()
}
