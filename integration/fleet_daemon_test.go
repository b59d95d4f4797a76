package integration

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/fleet"
	"p11fs/tokens/fleet/etcdtest"
	"p11fs/tokens/swtok"
)

// TestFleetDaemon has a daemon be without contact to etcd: when it starts, and while it signs.
// Each door says so with the error that docs/fleet.md promises, and the token comes by itself.
func TestFleetDaemon(t *testing.T) {
	if mount := flag.Arg(0); mount != "" {
		if err := serveKind(t.Context(), fleet.NewKind(swtok.GoProvider(), 1), mount); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	needTools(t, "pkcs11-tool")
	cluster := etcdtest.Start(t, 1)
	net := cluster.Host(t)
	d := newDaemon(t, daemonConfig{token: fleet.Kind, serve: []string{itself(), "-test.run=^TestFleetDaemon$"}, fleet: cluster})
	conf := filepath.Join(d.dir, "web.conf")
	text, err := os.ReadFile(conf)
	if err == nil {
		err = os.WriteFile(conf, []byte(strings.Replace(string(text), cluster.Endpoints()[0], net.Endpoints()[0], 1)+"lease = 5s\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	net.Cut(true, true)
	d.start()
	term := d.terminal()
	term.ok("soon() { for i in $(seq 600); do \"$@\" 2>/dev/null && return; sleep 0.1; done; \"$@\"; }; says() { grep -q \"$@\" $P/status; }")
	term.ok("says 'store fleet failed: .*it comes by itself'; test ! -d $T")
	net.Heal()
	term.ok("soon cat $T/info")
	d.initToken(term)
	term.ok("echo " + userPIN + " > $T/login; echo 'rsa:2048 label=web' > $T/generate; seq 10 > msg")
	const sign = "cat msg > $O/web.key/sign && cat $O/web.key/sign > sig"
	term.ok(sign)
	if said := term.ok("p11fs who --fleet"); !strings.Contains(said, "this machine") || !strings.Contains(said, "good: leads") || !strings.Contains(said, "behind 0") {
		t.Errorf("who --fleet says\n%s", said)
	}
	term.ok("grep -q '^p11fs_fleet_members_good{token=\"fleet\"} 1$' $P/metrics")

	net.Cut(true, true)
	term.ok("soon says '^offline fleet: no contact with the fleet since'")
	term.fails("cat msg > $O/web.key/sign", syscall.EIO)
	if said := term.ok("cat $T/error"); !strings.Contains(said, "CKR_DEVICE_ERROR") || !strings.Contains(said, "no contact with the fleet since 2") {
		t.Errorf("error says %q", said)
	}
	term.fails("/bin/echo aes:128 > $T/generate", syscall.EIO)
	for _, command := range []string{
		"sign web", "sign fleet/web", "sign 'pkcs11:object=web'", "sign $O/web.key", "verify web sig", "encrypt web", "show web", "set web label=x", "mv web x", "rm web -y",
		"cp web x", "export web", "rotate web", "ls fleet", "ls", "generate fleet aes:128", "csr web --subject /CN=x", "pin fleet",
	} {
		r := term.run("printf '%s\\n' " + userPIN + " " + userPIN + " " + userPIN + " | p11fs " + command)
		if r.status == 0 || !strings.Contains(r.err, "no contact with the fleet since 2") {
			t.Errorf("p11fs %s: %d\n%s%s", command, r.status, r.out, r.err)
		}
	}
	term.ok("says 'fleet fleet: .* behind unknown, .*hosts unknown'; ! grep -q fleet_lag $P/metrics")
	module := "eval \"$(p11fs env)\"; pkcs11-tool --module " + ownModule(t) + " --login --pin " + userPIN + " --sign --mechanism SHA256-RSA-PKCS --label web -i msg -o sig"
	if r := term.run(module); r.status == 0 || !strings.Contains(r.out+r.err, "CKR_DEVICE_ERROR") {
		t.Errorf("a program: %d\n%s%s", r.status, r.out, r.err)
	}
	term.ok("says '^member fleet: .*wrong: it does not answer.*; to mend it: '")
	net.Heal()
	term.ok("soon sh -c '" + sign + "'")
	term.ok(module)
	term.ok("soon says 'fleet fleet: .* behind 0, .*hosts 1,'; ! grep '^host .*revision 0' $P/status")
	term.ok("soon sh -c '! p11fs doctor $P | grep \"member of the fleet\"'")
}
