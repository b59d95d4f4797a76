package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/tokens/tpm"
)

// TestTPMDoc runs the lines of docs/tpm.md: a token is made with a software TPM where no
// daemon is, served, and used; and a TPM that was lost is said to be. It takes 3 s.
func TestTPMDoc(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "swtpm", "softhsm2-util", "pkcs11-tool")
	doc := readDoc(t, "tpm.md", "sh")
	start, use, found := strings.Cut(doc["Quick start"], "T=$(p11fs path tpm)\n")
	if !found || !strings.Contains(start, "p11fs init tpm") || doc["Loss and backups"] == "" {
		t.Fatal("docs/tpm.md has no quick start, or no lines for a backup")
	}
	d := newDaemon(t, daemonConfig{token: tpm.Kind, modern: true})
	dir := filepath.Join(d.tokenRoot(), tpm.Kind)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	term := d.terminal()
	defer term.run("kill $(cat ~/swtpm/pid)")
	term.ok("p11fs() { " + d.c.binary + " \"$@\"; }") // also where the race detector makes what is made of a PIN slow
	all := func(script string) { t.Helper(); term.ok("(set -e\n" + script + ")") }
	refuses := func(line, want string) {
		t.Helper()
		if r := term.run("! " + line); r.status != 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: status %d, %q; want %q", line, r.status, r.err, want)
		}
	}
	const pins = "printf '%s\\n' " + soPIN + " chip " + userPIN + " | "
	refuses(pins+"p11fs init tpm --device unix:/nonexistent/sock", "no software TPM listens at unix:/nonexistent/sock")
	refuses(pins+"p11fs init tpm --protection none", "it is device = ")
	refuses(pins+"p11fs init other --protection da", "no setting protection")
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("what was refused has left a directory: %v", err)
	}
	all(start + "ls -l " + filepath.Join(dir, "TPM2") + "\n")
	refuses(pins+"p11fs init tpm", "which no daemon serves now")
	d.start()
	all("cd && T=$(p11fs path tpm)\n" + use)
	refuses(pins+"p11fs init tpm --yes --protection da", "tpm is there already")

	// What is done with directories, and with other tokens.
	for _, what := range []string{"backup tpm file", "restore /etc/hostname tpm", "check tpm", "migrate tpm"} {
		refuses("echo phrase | p11fs "+what, "opens with that TPM only (stop p11fs and copy the directory")
	}
	term.ok("p11fs generate tpm rsa:2048 label=big; echo phrase | p11fs export tpm out > said || test $? = 1; cat said; grep 'left .*big.key' said; test -s out/web.pub.pem")
	all(`mkdir soft && printf 'directories.tokendir = %s/soft\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" > soft.conf
export SOFTHSM2_CONF=$PWD/soft.conf
softhsm2-util --init-token --free --label all --so-pin 11112222 --pin 12345678
for k in rsa:2048 EC:secp256k1; do pkcs11-tool --module ` + softHSM + ` --login --pin 12345678 --keypairgen --key-type $k --label soft-${k%:*}; done
pkcs11-tool --module ` + softHSM + ` --read-object --type pubkey --label soft-rsa -o pub.der
echo 12345678 > pin; p11fs import-token soft tpm --source-pin-file pin > said || test $? = 1; cat said
grep 'came .*"soft-rsa" as tpm/soft-rsa.key' said; grep 'left .*"soft-EC".*the TPM does not have the curve' said
p11fs sign tpm/soft-rsa -o sig < /etc/hostname; openssl dgst -sha256 -verify pub.der -keyform DER -signature sig /etc/hostname
test "$(cat $O/soft-rsa.key/attr/extractable $O/soft-rsa.key/attr/never-extractable | tr '\n' ' ')" = 'false false '
`)
	d.stop()
	term.ok(doc["Loss and backups"] + "test -s tpm.copy/MK_USER")

	// A TPM without its past is another one.
	term.ok("kill $(cat ~/swtpm/pid); while kill -0 $(cat ~/swtpm/pid) 2> kill.log; do sleep 0.01; done; rm -r ~/swtpm/tpm2-00.permall")
	swtpm, _, _ := strings.Cut(start, "printf")
	all(swtpm)
	d.start()
	if term.run("echo "+userPIN+" > $T/login").status == 0 {
		t.Error("a PIN is right for another TPM")
	}
	if said := term.ok("cat $T/error"); !strings.Contains(said, "made with another TPM, or the TPM was cleared") {
		t.Errorf("error says %q", said)
	}
	const lost = "made with another TPM, or the TPM was cleared"
	term.ok("p11fs status | grep 'device tpm: .*" + lost + "'")
	d.stop()
	if r := term.run("p11fs doctor " + d.mnt); r.status != 1 || !strings.Contains(r.out, lost) {
		t.Errorf("doctor says, with status %d, %s%s", r.status, r.out, r.err)
	}
}
