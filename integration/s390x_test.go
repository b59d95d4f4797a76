package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"p11fs/tokens/store/storetest"
)

// s390xEnv names the directory that contrib/s390x.sh made: a big-endian machine
// with stock openCryptoki and OpenSC, which qemu runs.
const s390xEnv = "P11FS_S390X"

// An s390xHost is an s390x machine, whose programs qemu runs.
type s390xHost struct{ *chrootHost }

const s390xConfig = stockConfig + `
slot 1
{
stdll = libpkcs11_ica.so
tokname = lite
}
`

// startS390X boots an s390x machine over a token root, without a slot daemon.
func startS390X(t testing.TB, tokenRoot string) s390xHost {
	t.Helper()
	root := needS390X(t, s390xEnv)
	return s390xHost{startChroot(t, chrootConfig{
		root: root, tokens: tokenRoot, conf: s390xConfig, run: "/qemu", daemon: "/qemu -0 pkcsslotd", socket: "/run/pkcsslotd.socket",
		library: "/usr/lib/s390x-linux-gnu/opencryptoki/libopencryptoki.so.0",
		more:    "mount --bind /etc/group $R/etc/group\n",
	})}
}

// ours makes /usr/sbin/pkcsslotd p11fs, built for s390x.
func (h s390xHost) ours() {
	h.t.Helper()
	built := filepath.Join(runDir(), "bin", "p11fs-s390x")
	oursS390X.once.Do(func() {
		cmd := exec.Command("go", "build", "-o", built, "p11fs/cmd/p11fs")
		cmd.Env = append(os.Environ(), "GOARCH=s390x", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			oursS390X.err = fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	})
	if oursS390X.err != nil {
		h.t.Fatal(oursS390X.err)
	}
	h.ok("mount --bind " + built + " $R/usr/sbin/pkcsslotd")
}

var oursS390X struct {
	once sync.Once
	err  error
}

// stock makes it the stock one again.
func (h s390xHost) stock() {
	h.t.Helper()
	h.ok("umount $R/usr/sbin/pkcsslotd")
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

// TestS390XServes has p11fs, built for s390x, in the place of the slot daemon:
// stock programs and ones that come over its socket use a token that it made, at
// the same time, and what was made is there for the stock daemon afterwards.
func TestS390XServes(t *testing.T) {
	t.Parallel()
	h := startS390X(t, workDir(t, "tokens"))
	h.ours()
	h.startSlotd()
	h.initToken("0")
	tool := "tool --slot 0 --login --pin " + userPIN + " "
	h.makeObjects(tool)
	h.lists(tool, "RSA 2048 bits", "AES length 32", "their-note", "their-public-note")

	h.ok("export P11FS_SOCKET=$R/run/p11fs/rpc.sock")

	// The other slot is stock's lite, whose directory and segment p11fs has too.
	h.initToken("1")
	ica := "tool --slot 1 --login --pin " + userPIN + " "
	h.makeObjects(ica)
	lite := "pkcs11-tool --module " + ownModule(t) + " --slot 1 --login --pin " + userPIN + " "
	h.ok(lite + "--keypairgen --key-type rsa:2048 --label ours --id 0a")
	h.ok(lite + "--read-object --type pubkey --id 0a -o $R/tmp/ica.der && openssl pkey -pubin -inform DER -in $R/tmp/ica.der -out $R/tmp/ica.pem")
	h.lists(ica, "ours", "theirs", "AES length 32", "their-note")
	h.signs(ica, "0a", "$R/tmp/ica.pem")

	ours := "pkcs11-tool --module " + ownModule(t) + " --login --pin " + userPIN + " "
	h.ok(ours + "--keypairgen --key-type rsa:2048 --label ours --id 0a")
	h.ok(ours + "--keygen --key-type aes:16 --label our-aes --id 0b")
	h.ok("cd $R/tmp; " + ours + "--write-object note --type data --label our-note --private")
	h.ok(ours + "--delete-object --type secrkey --label their-aes")
	h.ok(ours + "--read-object --type data --label their-note -o got && cmp got note")
	h.ok(ours + "--sign --mechanism SHA256-RSA-PKCS --id 01 -i note -o sig.ours")
	for _, id := range []string{"01", "0a"} {
		h.ok(ours + "--read-object --type pubkey --id " + id + " -o pub.der && openssl pkey -pubin -inform DER -in pub.der -out pub" + id + ".pem")
		h.signs(tool, id, "pub"+id+".pem")
	}
	h.ok("openssl dgst -sha256 -verify pub01.pem -signature sig.ours note")

	check := func() {
		h.lists(tool, "ours", "theirs", "RSA 2048 bits", "AES length 16", "our-note", "their-note")
		h.signs(tool, "0a", "pub0a.pem")
		h.ok(tool + "--read-object --type data --label our-note -o /tmp/got && cmp got note")
		if got := h.ok(tool + "--list-objects"); strings.Contains(got, "their-aes") {
			t.Errorf("what p11fs destroyed is listed:\n%s", got)
		}
	}
	check()
	h.endSlotd()
	h.stock()
	h.startSlotd()
	check()
	h.endSlotd()
	h.close()
}

// TestS390XToAndFro hands token directories of the stock programs of a big-endian
// machine to p11fs on this one, back, and again: each side lists and uses what the
// other made and changed, and takes the PIN that it set.
func TestS390XToAndFro(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, daemonConfig{modern: true})
	kinds := []struct{ slot, name, n string }{{"0", "swtok", "3"}, {"1", "lite", "1"}}
	for _, k := range kinds {
		if err := os.CopyFS(filepath.Join(d.tokenRoot(), k.name), os.DirFS(storetest.Untar(t, k.name+"-be"))); err != nil {
			t.Fatal(err)
		}
	}
	pem := func(kind, key string) string { return filepath.Join(d.dir, kind+"."+key) }
	at := func(kind, pin string) *terminal {
		term := d.terminal()
		term.ok("T=" + filepath.Join(d.mnt, kind) + " O=" + filepath.Join(d.mnt, kind, "objects") + " && echo " + pin + " > $T/login && seq 100 > note && seq 20 > msg")
		return term
	}
	const sign = "cat msg > $O/%[1]s.key/sign && cat $O/%[1]s.key/sign > sig && openssl dgst -sha256 -verify $O/%[1]s.pub/public.pem -signature sig msg"
	host := startS390X(t, d.tokenRoot())
	d.start()
	for _, k := range kinds {
		t.Run("to us: "+k.name, func(t *testing.T) {
			term := at(k.name, storetest.UserPIN)
			rsa, aes := "rsa"+k.n, "aes"+k.n
			term.want("ls $O", aes+".sec\ndat"+k.n+".dat\n"+rsa+".key\n"+rsa+".pub\n")
			term.want("cat $O/"+rsa+".pub/attr/modulus-bits $O/"+aes+".sec/attr/value-len", "2048\n32\n")
			term.ok(fmt.Sprintf(sign, rsa) + " && cat $O/" + rsa + ".pub/public.pem > " + pem(k.name, "theirs"))
			term.ok("cat msg > $O/" + aes + ".sec/encrypt && cat $O/" + aes + ".sec/encrypt > c && cat c > $O/" + aes + ".sec/decrypt && cat $O/" + aes + ".sec/decrypt | cmp - msg")

			term.ok("echo 'rsa:2048 label=ours id=0x0a' > $T/generate && cat $T/generate && echo 'aes:128 label=our-aes id=0x0b' > $T/generate && cat $T/generate")
			term.ok("cp note $T/data/our-note && cp note $T/data/our-old-note && cat $O/ours.pub/public.pem > " + pem(k.name, "ours"))
			term.ok("echo 0x0c > $O/" + rsa + ".key/attr/id && mv $O/" + rsa + ".pub $O/renamed.pub && rmdir $O/" + aes + ".sec")
			term.ok("echo " + storetest.UserPIN + " " + userPIN + " > $T/pin")
		})
	}
	d.stop()

	host.startSlotd()
	for _, k := range kinds {
		tool := "tool --slot " + k.slot + " --login --pin " + userPIN + " "
		host.lists(tool, "renamed", "ours", "RSA 2048 bits", "our-aes", "AES length 16", "our-note", "dat"+k.n)
		if got := host.ok(tool + "--list-objects"); strings.Contains(got, "aes"+k.n) {
			t.Errorf("%s: what p11fs destroyed is listed:\n%s", k.name, got)
		}
		host.signs(tool, "0a", pem(k.name, "ours"))
		host.signs(tool, "0c", pem(k.name, "theirs"))
		host.ok("rm -f $R/tmp/got; seq 100 > $R/tmp/note; " + tool + "--read-object --type data --label our-note -o /tmp/got && cmp $R/tmp/got $R/tmp/note")
		host.makeObjects(tool)
		host.ok(tool + "--delete-object --type data --label our-old-note")
	}
	host.endSlotd()
	host.close()

	d.start()
	for _, k := range kinds {
		t.Run("to us again: "+k.name, func(t *testing.T) {
			term := at(k.name, userPIN)
			term.want("ls $O", fmt.Sprintf("dat%[1]s.dat\nour-aes.sec\nour-note.dat\nours.key\nours.pub\nrenamed.pub\nrsa%[1]s.key\ntheir-aes.sec\ntheir-note.dat\ntheir-public-note.dat\ntheirs.key\ntheirs.pub\n", k.n))
			term.ok("cmp note $T/data/their-note && cmp note $T/data/their-public-note && cmp note $T/data/our-note")
			term.ok(fmt.Sprintf(sign, "theirs") + " && " + fmt.Sprintf(sign, "ours"))
		})
	}
	if strings.Contains(d.said(), "damaged") {
		t.Error(d.said())
	}
}
