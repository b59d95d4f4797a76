package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormat312 makes a token of one's own: it has the format of openCryptoki 3.12, with
// a longer PIN than format 3.8 takes, and keeps all over a crash. What has format 3.8
// stays in use, and is named as weak; what the slot says to have another format does not.
func TestFormat312(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "pkcs11-tool")
	d := newDaemon(t, daemonConfig{modern: true})
	conf := filepath.Join(d.dir, "config/p11fs/opencryptoki.conf")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	declare := func(version string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte("slot 0\n{\nstdll = libpkcs11_sw.so\ntokversion = "+version+"\n}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	term := d.terminal()
	const pin = "correct horse battery staple"
	term.ok("echo init 87654321 modern > $T/ctl && echo so:87654321 > $T/login && echo init-pin " + pin + " > $T/ctl; echo > $T/logout")
	term.ok("echo '" + pin + "' > $T/login")
	term.ok("echo 'ec:P-256 label=web' > $T/generate && cp $O/web.pub/public.pem web.pem && echo secret > $T/data/note")
	term.ok("echo message > msg && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig")
	term.ok("openssl dgst -sha256 -verify web.pem -signature sig msg")
	d.crash()
	oldToken(t, filepath.Join(d.tokenRoot(), "old"), "swtok")
	d.start()
	term = d.terminal()
	term.ok("grep '^weak old: .*: p11fs migrate old$' $P/status && ! grep '^weak swtok' $P/status")
	term.ok("p11fs doctor > doctor.out; grep -q '^weak   old: .*: p11fs migrate old$' doctor.out || { cat doctor.out; false; }")
	term.ok(`printf '%s\n' 87654321 older 1234abcd | p11fs init old && echo 1234abcd | p11fs login old && test $(stat -c %s $XDG_DATA_HOME/p11fs/old/NVTOK.DAT) = 232`)
	term.ok("test ! -e $T/data/note && ! echo wrong > $T/login && grep -q some $T/pin")
	term.ok("echo '" + pin + "' > $T/login && test \"$(cat $T/data/note)\" = secret")
	term.ok("echo message > msg && cat msg > $O/web.key/sign && cat $O/web.key/sign > sig && cp $O/web.pub/public.pem web.pem && openssl dgst -sha256 -verify web.pem -signature sig msg")
	term.ok("pkcs11-tool --module " + ownModule(t) + " --token-label modern --login --pin '" + pin + "' --sign --mechanism ECDSA-SHA256 --label web -i msg -o raw && test $(stat -c %s raw) = 64")
	term.ok("test $(stat -c %s $XDG_DATA_HOME/p11fs/swtok/NVTOK.DAT) = 592")
	long := strings.Repeat("long ", 204) + "1024" // bytes
	term.ok(`printf '%s\n' '` + pin + "' '" + long + "' | p11fs pin swtok")
	term.ok("pkcs11-tool --module " + ownModule(t) + " --token-label modern --login --pin '" + long + "' --list-objects --type privkey | grep -q web")
	term.ok(`! printf '%s\n' '` + long + "' '" + long + "1' | p11fs pin swtok 2> err && grep 'have 4 to 1024 bytes, not 1025: choose a PIN of another length' err")
	term.ok(`printf '%s\n' '` + long + "' '" + pin + "' | p11fs pin swtok")
	d.stop()
	// A damaged object is told, and the rest serves on.
	spoilt := filepath.Join(d.tokenRoot(), "swtok/TOK_OBJ/00000000")
	b, err := os.ReadFile(spoilt)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spoilt, b[:len(b)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	term = d.terminal()
	term.ok("echo '" + pin + "' > $T/login && ls $T/data && grep '^damaged swtok TOK_OBJ/00000000: ' $P/status")
	term.ok("test \"$(cat $T/data/note)\" = secret")
	d.stop()
	if said := d.said(); !strings.Contains(said, "name=00000000") {
		t.Errorf("the log does not name it:\n%s", said)
	}
	declare("0.0")
	d.start()
	term = d.terminal()
	term.ok("grep 'NVTOK.DAT has 592 bytes, format 3.8 has 232: tokversion = 3.12' $P/status")
	term.ok("p11fs doctor > doctor.out; grep -q 'tokversion = 3.12' doctor.out || { cat doctor.out; false; }")
	term.ok("test $(stat -c %s $XDG_DATA_HOME/p11fs/swtok/NVTOK.DAT) = 592")
}
