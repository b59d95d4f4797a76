package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens"
	"p11fs/tokens/ep11tok"
)

// TestEP11Sessions has users whose keys are bound to logins at a card: the PIN of the login that
// all share is set, two terminals log in and make session keys of their own, and a key in the
// token that both use; a terminal ends, somebody logs out, and the daemon is killed. The card knows
// each login as long as it lasts, and after a kill until the next.
func TestEP11Sessions(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, daemonConfig{token: ep11tok.Kind, cards: "APQN_ANY STRICT_MODE VHSM_MODE", binary: plainBinary(t)})
	d.start()
	one := d.terminal()
	path := filepath.Join(d.mnt, ep11tok.Kind)
	one.ok("T=" + path + "; p11fs() { " + d.c.binary + " \"$@\"; }; setup() { echo so:" + tokens.DefaultSOPIN + " > $T/login; echo 'init-pin " + userPIN + "' > $T/ctl; echo logout > $T/logout; }")
	one.ok("echo 'init " + tokens.DefaultSOPIN + " bound' > $T/ctl; setup")
	logins := func(want int) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(d.tokenRoot(), ep11tok.Kind, "card/sessions/*.*/*"))
		if err != nil || len(found) != want {
			t.Errorf("the card knows %d logins, not %d (%v)", len(found), want, err)
		}
	}
	enter := "T=" + path + "; echo " + userPIN + " > $T/login; echo hello > msg; sign() { cat msg > $T/objects/$1/sign && cat $T/objects/$1/sign > sig; }"
	one.ok(enter)
	logins(1) // the shared one has no PIN yet
	if r := one.run("echo 'ec:p256 label=web' > $T/generate"); r.status == 0 || !strings.Contains(one.ok("cat $T/error"), "p11fs card vhsm-pin") {
		t.Errorf("a key without the PIN: %d, %s", r.status, one.ok("cat $T/error"))
	}
	if r := one.run("printf '%s\\n' " + userPIN + " short | p11fs card vhsm-pin " + ep11tok.Kind); r.status == 0 || !strings.Contains(r.err, "8 to 16 bytes") {
		t.Errorf("a short PIN: %d, %s", r.status, r.err)
	}
	one.ok("printf '%s\\n' " + userPIN + " vhsm-pin | p11fs card vhsm-pin " + ep11tok.Kind)
	one.ok("echo 'ec:p256 label=web' > $T/generate; sign web.key; openssl dgst -sha256 -verify $T/objects/web.pub/public.pem -signature sig msg")
	logins(2)
	one.ok("echo 'ec:p256 label=brief token=false' > $T/generate; sign brief.key")
	if shown := one.ok("ls -R $T/objects"); strings.Contains(shown, ".hw") || strings.Contains(shown, "EP11") {
		t.Errorf("what the token keeps of its logins shows:\n%s", shown)
	}

	two := d.terminal()
	two.ok(enter)
	logins(3)
	two.ok("echo 'ec:p256 label=other token=false' > $T/generate; sign other.key; sign web.key; ! sign brief.key 2> why; ! sign brief.key 2>> why")
	two.ok("echo logout > $T/logout")
	logins(2)
	one.ok("sign brief.key; sign web.key")
	two.ok("echo " + userPIN + " > $T/login; ! sign other.key 2> why; sign web.key")
	logins(3)
	two.killSession()
	one.ok("n=0; until test $(ls " + filepath.Join(d.tokenRoot(), ep11tok.Kind, "card/sessions/*.*") + " | wc -l) = 2; do n=$((n+1)); test $n -lt 600 || exit 1; sleep 0.1; done")
	one.ok("sign brief.key; sign web.key")

	d.crash()
	logins(2)
	d.start()
	three := d.terminal()
	three.ok(enter)
	logins(2) // its own, and the shared one: what was left is gone
	three.ok("sign web.key; echo logout > $T/logout")
	logins(0)
}
