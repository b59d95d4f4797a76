package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/fleet/etcdtest"
)

// TestFleetMove moves a token of the machine's configuration into a fleet and back while a daemon
// serves it: not while somebody else uses it, nor where the daemon cannot be told; and also where
// a move before was killed when it had taken the token out of service.
func TestFleetMove(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := etcdtest.Start(t, 1)
	d := startDaemon(t, daemonConfig{system: true})
	if err := writeFleet(c, d.dir, t.TempDir(), "/p11fs/site/"); err != nil {
		t.Fatal(err)
	}
	term, other := d.terminal(), d.terminal()
	conf := filepath.Join(d.dir, "etc/opencryptoki/opencryptoki.conf")
	move := func(args string) string { return "p11fs migrate site --root " + d.dir + " " + args }
	to, from := move("--to-fleet "+filepath.Join(d.dir, "web.conf")), move("--from-fleet")
	const login = "{ test \"$(cat $P/site/login)\" = user || echo 12345678 > $P/site/login; }"
	const sign = login + " && cat msg > $P/site/objects/site.key/sign && cat $P/site/objects/site.key/sign > sig"
	refused := func(command, why string) {
		t.Helper()
		if r := term.run(command); r.status == 0 || !strings.Contains(r.err, why) {
			t.Errorf("%s: %d\n%s%s", command, r.status, r.out, r.err)
		}
		term.ok(sign)
	}
	term.ok("printf '%s\\n' 87654321 office 12345678 | p11fs token new site --root " + d.dir)
	term.ok(login + " && echo 'ec:p256 label=site' > $P/site/generate && seq 10 > msg && cp " + conf + " old.conf")

	other.ok(login)
	refused(to, "logged in")
	other.ok("echo > $P/site/logout")
	refused("env -u P11FS_MOUNT "+to, "or stop the daemon first")
	term.ok("cmp old.conf " + conf)
	term.ok(to + " | grep 'site is of the kind fleet now'")
	term.ok("grep libpkcs11_fleet.so " + conf + " && " + sign)
	term.ok("p11fs who --fleet | grep 'this machine'")

	other.ok(login)
	refused(from, "logged in")
	other.ok("echo > $P/site/logout")
	term.ok("echo remove site > $P/ctl && test ! -d $P/site") // as a move does that is killed then
	refused(to, "already")
	term.ok("echo > $P/site/logout; echo remove site > $P/ctl && test ! -d $P/site")
	term.ok(from + " | grep 'site is of the kind swtok now'")
	term.ok("! grep libpkcs11_fleet.so " + conf + " && " + sign)
	d.stop()
	d.start()
	d.terminal().ok("seq 10 > msg; " + sign)
}
