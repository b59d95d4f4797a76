package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestBackup runs the lines of docs/backup.md: backups of a token, and of other data, with
// the program in it that reads one by Tink's library.
func TestBackup(t *testing.T) {
	t.Parallel()
	needTools(t, "tar")
	_, term := ready(t, daemonConfig{})
	dir := workDir(t, "open")
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open+".go", []byte(readDoc(t, "backup.md", "go")["Without p11fs"]), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", open, open+".go")
	cmd.Dir = ".." // whose module has the library
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	term.ok("mkdir home && seq 300000 > home/numbers && head -c 3000000 /dev/urandom > home/noise && cp " + open + " .")
	doc := readDoc(t, "backup.md", "sh")
	sections := []string{"A token", "A key", "Make one", "Read it back", "Without p11fs"}
	for heading, script := range doc {
		if script != "" && !slices.Contains(sections, heading) {
			t.Errorf("no test runs the lines of %q", heading)
		}
	}
	for _, heading := range sections {
		for _, line := range lines(doc[heading]) {
			term.ok(line)
		}
	}
	term.ok("diff -r home restored/home && diff -r home elsewhere/home && p11fs decrypt swtok/backup < home.tgz.enc | cmp - home.tgz")
	term.ok("test ! -e part.tgz && ! cat $O/backup.sec/value")
}

// TestThrough runs the commands that send data through a key, in each way to name it.
func TestThrough(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl")
	d, term := ready(t, daemonConfig{})
	prepareKeys(term)
	stranger := d.terminal()
	run := func(line string) { t.Helper(); term.ok(line) }
	ends := func(status int, says, line string) {
		t.Helper()
		term.ok(fmt.Sprintf("{ { %s; } 2>said && s=0 || s=$?; } && test $s = %d && grep -q '%s' said || { cat said; false; }", line, status, says))
	}

	run("p11fs sign swtok/web < msg > sig && openssl dgst -sha256 -verify web.pem -signature sig msg && p11fs verify web sig < msg")
	run("p11fs sign web --mechanism sha256-rsa-pkcs-pss,salt=20 < msg > sig2 && p11fs verify web --mechanism sha256-rsa-pkcs-pss,salt=20 sig2 < msg")
	run("p11fs sign swtok/ec.key -o ecsig < msg && openssl dgst -sha256 -verify ec.pem -signature ecsig msg")
	ends(1, "CKR_SIGNATURE_INVALID", "p11fs verify web sig < a >got")
	ends(1, "no such file", "p11fs verify web nothing < a")
	run("p11fs digest < msg > got && openssl dgst -sha256 -binary msg | cmp - got && p11fs digest swtok --mechanism sha512 < /dev/null > got && openssl dgst -sha512 -binary /dev/null | cmp - got")

	for _, name := range []string{"aes", "aes.sec", "swtok/aes", "swtok/aes.sec", "$O/aes.sec", `"$(cat $O/aes.sec/uri)"`, "'pkcs11:object=aes;type=secret-key?x=y'"} {
		run("p11fs encrypt " + name + " < big1 > c && p11fs decrypt " + name + " < c | cmp - big1")
	}
	run("cd $O && p11fs decrypt ./aes.sec < $OLDPWD/c | cmp - $OLDPWD/big1; s=$?; cd $OLDPWD; test $s = 0")
	run("p11fs encrypt aes < /dev/null > c && p11fs decrypt aes < c | cmp - /dev/null")
	run("p11fs encrypt aes --mechanism '' < msg > c && cat c > $O/aes.sec/decrypt && cat $O/aes.sec/decrypt | cmp - msg && p11fs decrypt aes --mechanism '' < c | cmp - msg")
	run("p11fs encrypt web < a1 > c && p11fs decrypt web < c | cmp - a1")
	iv := "aes-cbc-pad,iv=000102030405060708090a0b0c0d0e0f"
	run("p11fs encrypt aes --mechanism " + iv + " < big1 > c && p11fs decrypt aes --mechanism " + iv + " < c | cmp - big1")

	run("p11fs __complete encrypt swtok/a | grep -qx swtok/aes.sec && p11fs __complete verify '' | grep -qx swtok/ec.pub")

	run("p11fs __complete sign swtok/web --mechanism '' > names && grep -qx sha256-rsa-pkcs-pss names && ! grep -q ecdsa names")
	run("p11fs __complete encrypt aes --mechanism '' | grep -qx aes-gcm && p11fs __complete digest --mechanism '' | grep -qx sha512 && p11fs __complete sign --mechanism '' | grep -qx ecdsa")

	ends(1, "no key nothing", "p11fs encrypt nothing < a")
	ends(2, "not known", "p11fs encrypt 'pkcs11:object=aes;slot-id=1' < a")
	ends(2, "missing", "p11fs encrypt < a")
	ends(1, "no key pkcs11:token=other", "p11fs encrypt 'pkcs11:token=other;object=aes' < a")
	r := stranger.run("p11fs encrypt aes < /dev/null")
	if r.status != 4 {
		t.Errorf("without a login: status %d, %s", r.status, r.err)
	}

	// What is written has its name when it is all there.
	run("seq 3000000 > m && p11fs encrypt aes -o c < m && test $(wc -c < c) -gt $(wc -c < m) && p11fs decrypt aes -o got < c && cmp got m")
	run("head -c 3000000 c > cut; echo old > got; chmod 604 got; ln -s got link")
	ends(1, "segment 2", "p11fs decrypt aes -o got < cut")
	ends(1, "not all", "p11fs decrypt aes < cut > part")
	run("test \"$(cat got)\" = old && test $(wc -c < part) = $((2 * 1048576 - 40 - 32)) && head -c $(wc -c < part) m | cmp - part")
	run("p11fs decrypt aes -o link < c && test -L link && cmp got m && test $(stat -c %a got) = 604 && p11fs decrypt aes -o /dev/null < c && test -c /dev/null")
	run("echo aes:256 label=other > $T/generate; echo old > got")
	ends(1, "another key", "p11fs decrypt other < c > part")
	run("test ! -s part")
	ends(1, "more data behind\\|damaged", "cat c c | p11fs decrypt aes -o got")
	ends(1, "no space", "p11fs decrypt aes < c > /dev/full")
	run("(cat m; sleep 3) | p11fs encrypt aes -o got & sleep 1; kill -TERM $!; wait $!; test $? = 130 && test \"$(cat got)\" = old; test -z \"$(ls -A | grep p11fs-)\"")

	// Two at once, in one session.
	run("p11fs encrypt aes < m > c1 & p11fs encrypt aes < big1 > c2 && wait $! && p11fs decrypt aes < c1 | cmp - m && p11fs decrypt aes < c2 | cmp - big1")

	// AES-GCM is refused where its decryption would be.
	ends(1, "encrypt:stream", "head -c 67108865 /dev/zero | p11fs encrypt aes --mechanism '' > c")
	ends(1, "too large", "head -c 67108865 /dev/zero | LC_ALL=C cat > $O/aes.sec/encrypt")
	run("head -c 60000000 /dev/zero | p11fs encrypt aes --mechanism '' > c && p11fs decrypt aes --mechanism '' < c > got && cmp -n 60000000 got /dev/zero && test $(wc -c < got) = 60000000")
}

// TestUndo has the module encrypt as much as it decrypts. That of p11-kit knows neither
// AES-GCM nor streams.
func TestUndo(t *testing.T) {
	t.Parallel()
	needTools(t, "python3")
	script, err := filepath.Abs("testdata/undo.py")
	if err != nil {
		t.Fatal(err)
	}
	d, _ := ready(t, daemonConfig{})
	runClient(t, d, ownModule(t), "python3 -B "+script+" $M", nil)
}
