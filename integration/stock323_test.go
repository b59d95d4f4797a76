package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trixieRoot is the directory that contrib/trixie.sh makes.
const trixieRoot = "../build/trixie"

// theirs323 and conf323 are slots with directories of format 3.12: one, and two.
const (
	theirs323 = `version opencryptoki-3.23
slot 0
{
stdll = libpkcs11_sw.so
tokname = swtok
tokversion = 3.12
}
`
	conf323 = theirs323 + `slot 1
{
stdll = libpkcs11_sw.so
tokname = ours
tokversion = 3.12
}
`
)

// start323 boots a machine of Debian 13 over a token root, without a slot daemon.
func start323(t testing.TB, tokenRoot string) *chrootHost {
	t.Helper()
	root, err := filepath.Abs(trixieRoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "made-by")); err != nil {
		t.Skip("needs stock openCryptoki 3.23: sh contrib/trixie.sh build/trixie fetches it")
	}
	found, _ := filepath.Glob(filepath.Join(root, "usr/lib/*/opencryptoki/libopencryptoki.so.0"))
	need(t, len(found) == 1, "libopencryptoki.so.0 of Debian 13")
	return startChroot(t, chrootConfig{
		root: root, tokens: tokenRoot, conf: theirs323, socket: "/run/opencryptoki/pkcsslotd.socket",
		library: strings.TrimPrefix(found[0], root),
		more:    tmpfiles("swtok"),
	})
}

// tmpfiles makes what tmpfiles.d makes for stock 3.23 and a token. Its daemon is no root.
func tmpfiles(token string) string {
	return "for d in var/lib/opencryptoki run/lock/opencryptoki var/log/opencryptoki; do mkdir -p $R/$d/" + token + "; chgrp -R 998 $R/$d; chmod 770 $R/$d $R/$d/*; done\n" +
		"O=$TOKENS/" + token + "/TOK_OBJ; mkdir -p $O; chgrp 998 $O; chmod 770 $O\n"
}

// TestStock323 hands directories of format 3.12 to stock openCryptoki 3.23 and back, one
// that stock made and one of ours: each side lists and uses what the other made and
// changed, and takes the PINs that it set. The two do not run at once: their segments of
// shared memory differ.
func TestStock323(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, daemonConfig{modern: true, binary: plainBinary(t)}) // PBKDF2 takes its time under the race detector
	host := start323(t, d.tokenRoot())
	conf := filepath.Join(d.dir, "config/p11fs/opencryptoki.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(conf323), 0o644); err != nil {
		t.Fatal(err)
	}
	at := func(token, pin string) *terminal {
		term := d.terminal()
		term.ok("T=" + filepath.Join(d.mnt, token) + " O=" + filepath.Join(d.mnt, token, "objects") + " && echo " + pin + " > $T/login && seq 100 > note && seq 20 > msg")
		return term
	}
	pem := func(name string) string { return filepath.Join(d.dir, name+".pem") }
	const sign = "cat msg > $O/%[1]s.key/sign && cat $O/%[1]s.key/sign > sig && openssl dgst -sha256 -verify $O/%[1]s.pub/public.pem -signature sig msg"
	const newPIN = "5678dcba"

	host.startSlotd()
	host.initToken("0")
	host.makeObjects("tool --slot 0 --login --pin " + userPIN + " ")
	host.endSlotd()

	d.start()
	term := at("swtok", userPIN)
	term.want("ls $O", "their-aes.sec\ntheir-note.dat\ntheir-public-note.dat\ntheirs.key\ntheirs.pub\n")
	term.ok("cmp note $T/data/their-note && cmp note $T/data/their-public-note && " + fmt.Sprintf(sign, "theirs") + " && cat $O/theirs.pub/public.pem > " + pem("theirs"))
	term.ok("echo 0x0c > $O/theirs.key/attr/id && mv $O/theirs.pub $O/renamed.pub && rmdir $O/their-aes.sec")
	term.ok("echo " + userPIN + " " + newPIN + " > $T/pin")
	term = d.terminal()
	term.ok("T=" + filepath.Join(d.mnt, "ours"))
	d.initToken(term)
	for _, token := range []string{"swtok", "ours"} {
		pin := map[string]string{"swtok": newPIN, "ours": userPIN}[token]
		term := at(token, pin)
		term.ok("echo 'rsa:2048 label=ours id=0x0a' > $T/generate && cat $T/generate && echo 'aes:128 label=our-aes id=0x0b' > $T/generate && cat $T/generate")
		term.ok("cp note $T/data/our-note && cp note $T/data/our-old-note && cat $O/ours.pub/public.pem > " + pem("ours-"+token))
	}
	d.stop()

	// Stock's list of the objects outlives its processes.
	host.ok("rm $R/dev/shm/var.lib.opencryptoki.swtok; cp " + conf + " $CONF")
	host.startSlotd()
	tools := []string{"tool --slot 0 --login --pin " + newPIN + " ", "tool --slot 1 --login --pin " + userPIN + " "}
	for slot, token := range []string{"swtok", "ours"} {
		tool := tools[slot]
		host.lists(tool, "ours", "RSA 2048 bits", "our-aes", "AES length 16", "our-note")
		host.signs(tool, "0a", pem("ours-"+token))
		host.ok("rm -f $R/tmp/got; seq 100 > $R/tmp/note; " + tool + "--read-object --type data --label our-note -o /tmp/got && cmp $R/tmp/got $R/tmp/note")
		host.ok(tool + "--delete-object --type data --label our-old-note")
	}
	host.lists(tools[0], "renamed", "their-note")
	host.signs(tools[0], "0c", pem("theirs"))
	if got := host.ok(tools[0] + "--list-objects"); strings.Contains(got, "their-aes") {
		t.Errorf("what p11fs destroyed is listed:\n%s", got)
	}
	host.makeObjects(tools[1])
	host.ok("on /usr/sbin/pkcsconf -c 1 -p -U " + userPIN + " -n " + newPIN)
	host.endSlotd()
	host.close()

	d.start()
	at("swtok", newPIN).want("ls $O", "our-aes.sec\nour-note.dat\nours.key\nours.pub\nrenamed.pub\ntheir-note.dat\ntheir-public-note.dat\ntheirs.key\n")
	term = at("ours", newPIN)
	term.want("ls $O", "our-aes.sec\nour-note.dat\nours.key\nours.pub\ntheir-aes.sec\ntheir-note.dat\ntheir-public-note.dat\ntheirs.key\ntheirs.pub\n")
	term.ok("cmp note $T/data/their-note && cmp note $T/data/their-public-note && cmp note $T/data/our-note")
	term.ok(fmt.Sprintf(sign, "theirs") + " && " + fmt.Sprintf(sign, "ours"))
	if strings.Contains(d.said(), "damaged") {
		t.Error(d.said())
	}
}
