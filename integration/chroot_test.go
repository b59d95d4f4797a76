package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A chrootHost is a terminal of this machine in private mount, IPC and process
// namespaces, from which "on" runs programs of another machine, chrooted into it:
// "tool" is its pkcs11-tool. Its /var/lib/opencryptoki is a directory of the test's.
type chrootHost struct {
	*terminal
	c chrootConfig
}

// A chrootConfig says what the other machine is.
type chrootConfig struct {
	root    string // its /
	tokens  string // its /var/lib/opencryptoki, here
	conf    string // the text of its opencryptoki.conf
	run     string // what runs its programs, if anything
	daemon  string // what runs its slot daemon
	as      string // whom chroot makes of that; "" is root
	socket  string // of the slot daemon
	library string // of openCryptoki
	more    string // what else to do before anything is run
}

// chrootSetup mounts what is the host's own over the machine below $R.
const chrootSetup = `
set -e
mount --bind $R $R
for d in /run /dev /tmp /var/log; do mount -t tmpfs tmpfs $R$d; done
mkdir -p $R/run/lock/opencryptoki $R/dev/shm $R/var/log/opencryptoki
for f in null zero random urandom; do : > $R/dev/$f; mount --bind /dev/$f $R/dev/$f; done
mount -t proc proc $R/proc
mount --bind $TOKENS $R/var/lib/opencryptoki
mount --bind $CONF $R/etc/opencryptoki/opencryptoki.conf
on() { chroot $R $RUN "$@"; }
tool() { on /usr/bin/pkcs11-tool --module $LIBRARY "$@"; }
`

// startChroot boots another machine, without a slot daemon.
func startChroot(t testing.TB, c chrootConfig) *chrootHost {
	t.Helper()
	needRoot(t)
	needTools(t, "unshare", "openssl")
	conf := filepath.Join(workDir(t, "chroot"), "opencryptoki.conf")
	if err := os.WriteFile(conf, []byte(c.conf), 0o644); err != nil {
		t.Fatal(err)
	}
	h := &chrootHost{c: c, terminal: newTerminal(t, terminalConfig{
		shell: []string{
			"unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh",
		},
		env: []string{"R=" + c.root, "TOKENS=" + c.tokens, "CONF=" + conf, "RUN=" + c.run, "LIBRARY=" + c.library},
	})}
	h.ok(chrootSetup + c.more + "\nset +e")
	return h
}

// startSlotd starts what /usr/sbin/pkcsslotd is there, and waits for its socket.
func (h *chrootHost) startSlotd() {
	h.t.Helper()
	h.ok("chroot " + h.c.as + " $R " + h.c.daemon + " /usr/sbin/pkcsslotd -f & slotd=$!")
	h.ok("for i in $(seq 200); do [ -S $R" + h.c.socket + " ] && break; sleep 0.05; done; [ -S $R" + h.c.socket + " ]")
}

func (h *chrootHost) endSlotd() {
	h.t.Helper()
	h.ok("kill -TERM $slotd; wait $slotd; rm -f $R" + h.c.socket)
}

// initToken gives the token of a slot its PINs.
func (h *chrootHost) initToken(slot string) {
	h.t.Helper()
	h.ok("printf '" + soPIN + `\ntest token\n' | on /usr/sbin/pkcsconf -c ` + slot + " -I")
	h.ok("on /usr/sbin/pkcsconf -c " + slot + " -u -S " + soPIN + " -n " + userPIN)
}

// makeObjects has the stock library make one object of each kind.
func (h *chrootHost) makeObjects(tool string) {
	h.t.Helper()
	h.ok(tool + "--keypairgen --key-type rsa:2048 --label theirs --id 01")
	h.ok(tool + "--keygen --key-type aes:32 --label their-aes --id 02")
	h.ok("seq 100 > $R/tmp/note; " + tool + "--write-object /tmp/note --type data --label their-note --private")
	h.ok(tool + "--write-object /tmp/note --type data --label their-public-note")
}

// signs has the stock library sign, and openssl verify.
func (h *chrootHost) signs(tool, id, pub string) {
	h.t.Helper()
	h.ok("seq 20 > $R/tmp/msg; " + tool + "--sign --mechanism RSA-PKCS --id " + id + " -i /tmp/msg -o /tmp/sig")
	h.ok("openssl pkeyutl -verify -pubin -inkey " + pub + " -sigfile $R/tmp/sig -in $R/tmp/msg")
}

// lists checks the lines of pkcs11-tool's listing.
func (h *chrootHost) lists(tool string, want ...string) {
	h.t.Helper()
	got := h.ok(tool + "--list-objects")
	for _, line := range want {
		if !strings.Contains(got, line) {
			h.t.Errorf("stock does not list %q:\n%s", line, got)
		}
	}
}
