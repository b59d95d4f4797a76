package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// s390xEnv names the directory that contrib/s390x.sh made: a big-endian machine
// with stock openCryptoki and OpenSC, which qemu runs.
const s390xEnv = "P11FS_S390X"

// An s390xHost is a terminal of this machine in private mount, IPC and process
// namespaces, from which "on" runs s390x programs, chrooted into their machine. Its
// /var/lib/opencryptoki is a directory of the test's.
type s390xHost struct {
	*terminal
	root string // the other machine's /
}

const (
	s390xLibrary = "/usr/lib/s390x-linux-gnu/opencryptoki/libopencryptoki.so.0"
	s390xConfig  = stockConfig + `
slot 1
{
stdll = libpkcs11_ica.so
tokname = lite
}
`
)

// s390xSetup mounts what is the host's own over the machine below $R.
const s390xSetup = `
set -e
mount --bind $R $R
for d in /run /dev /tmp /var/log /etc/opencryptoki; do mount -t tmpfs tmpfs $R$d; done
mkdir -p $R/run/lock/opencryptoki $R/dev/shm $R/var/log/opencryptoki
for f in null zero random urandom; do : > $R/dev/$f; mount --bind /dev/$f $R/dev/$f; done
mount -t proc proc $R/proc
mount --bind /etc/group $R/etc/group
mount --bind $TOKENS $R/var/lib/opencryptoki
cp $CONF $R/etc/opencryptoki/opencryptoki.conf
on() { chroot $R /qemu "$@"; }
tool() { on /usr/bin/pkcs11-tool --module ` + s390xLibrary + ` "$@"; }
set +e`

// startS390X boots an s390x machine over a token root, without a slot daemon.
func startS390X(t testing.TB, tokenRoot string) *s390xHost {
	t.Helper()
	root := os.Getenv(s390xEnv)
	if _, err := os.Stat(filepath.Join(root, "qemu")); root == "" || err != nil {
		t.Skip("needs stock s390x programs: make test-s390x fetches them")
	}
	needRoot(t)
	needTools(t, "unshare", "openssl")
	conf := filepath.Join(workDir(t, "s390x"), "opencryptoki.conf")
	if err := os.WriteFile(conf, []byte(s390xConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	h := &s390xHost{root: root}
	h.terminal = newTerminal(t, terminalConfig{
		shell: []string{
			"unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh",
		},
		env: []string{"R=" + root, "TOKENS=" + tokenRoot, "CONF=" + conf},
	})
	h.ok(s390xSetup)
	return h
}

// startSlotd starts what /usr/sbin/pkcsslotd is there, and waits for its socket.
func (h *s390xHost) startSlotd() {
	h.t.Helper()
	h.ok("on -0 pkcsslotd /usr/sbin/pkcsslotd -f & slotd=$!")
	h.ok("for i in $(seq 200); do [ -S $R/run/pkcsslotd.socket ] && break; sleep 0.05; done; [ -S $R/run/pkcsslotd.socket ]")
}

func (h *s390xHost) endSlotd() {
	h.t.Helper()
	h.ok("kill -TERM $slotd; wait $slotd; rm -f $R/run/pkcsslotd.socket")
}

// initToken gives the token of a slot its PINs.
func (h *s390xHost) initToken(slot string) {
	h.t.Helper()
	h.ok("printf '" + soPIN + `\ntest token\n' | on /usr/sbin/pkcsconf -c ` + slot + " -I")
	h.ok("on /usr/sbin/pkcsconf -c " + slot + " -u -S " + soPIN + " -n " + userPIN)
}

// makeObjects has the stock library make one object of each kind.
func (h *s390xHost) makeObjects(tool string) {
	h.t.Helper()
	h.ok(tool + "--keypairgen --key-type rsa:2048 --label theirs --id 01")
	h.ok(tool + "--keygen --key-type aes:32 --label their-aes --id 02")
	h.ok("seq 100 > $R/tmp/note; " + tool + "--write-object /tmp/note --type data --label their-note --private")
	h.ok(tool + "--write-object /tmp/note --type data --label their-public-note")
}

// signs has the stock library sign, and openssl verify.
func (h *s390xHost) signs(tool, id, pub string) {
	h.t.Helper()
	h.ok("seq 20 > $R/tmp/msg; " + tool + "--sign --mechanism RSA-PKCS --id " + id + " -i /tmp/msg -o /tmp/sig")
	h.ok("openssl pkeyutl -verify -pubin -inkey " + pub + " -sigfile $R/tmp/sig -in $R/tmp/msg")
}

// lists checks the lines of pkcs11-tool's listing.
func (h *s390xHost) lists(tool string, want ...string) {
	h.t.Helper()
	got := h.ok(tool + "--list-objects")
	for _, line := range want {
		if !strings.Contains(got, line) {
			h.t.Errorf("stock does not list %q:\n%s", line, got)
		}
	}
}

// TestS390XStockAlone is the harness itself: stock programs use their own tokens.
func TestS390XStockAlone(t *testing.T) {
	t.Parallel()
	h := startS390X(t, workDir(t, "tokens"))
	h.startSlotd()
	for _, slot := range []string{"0", "1"} {
		h.initToken(slot)
		tool := "tool --slot " + slot + " --login --pin " + userPIN + " "
		h.makeObjects(tool)
		h.lists(tool, "RSA 2048 bits", "AES length 32", "their-note", "their-public-note")
		h.ok(tool + "--read-object --type pubkey --id 01 -o /tmp/pub.der && openssl pkey -pubin -inform DER -in $R/tmp/pub.der -out $R/tmp/pub.pem")
		h.signs(tool, "01", "$R/tmp/pub.pem")
	}
	h.endSlotd()
	h.close()
}
