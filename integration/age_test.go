package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSops runs the lines of docs/age.md for sops, with the real one.
func TestSops(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("sops")
	need(t, err == nil, "sops")
	bin := workDir(t, "bin")
	if err := os.Symlink(binary(), filepath.Join(bin, "age-plugin-p11fs")); err != nil {
		t.Fatal(err)
	}
	d, term := ready(t, daemonConfig{modern: true})
	term.ok("PATH=" + bin + ":$PATH && printf 'user: me\\npassword: 12-34-56\\n' > config.yaml\nset -e\n" + docBlock(t, "age.md", "sh", "A key, its recipient and its identity") + docBlock(t, "age.md", "sh", "sops") + "set +e")
	term.ok("grep -q 'password: 12-34-56' config.opened.yaml && grep -q 'password: ENC' config.enc.yaml && ! grep -q 12-34-56 config.enc.yaml")
	term.ok("p11fs logout swtok")
	if r := term.run("sops decrypt config.enc.yaml"); r.status == 0 || !strings.Contains(r.out+r.err, "log in first") {
		t.Errorf("without a login: %d, %s%s", r.status, r.out, r.err)
	}
	d.stop()
}

// TestAge runs the lines of docs/age.md with the real age, which go.mod has as a tool.
func TestAge(t *testing.T) {
	t.Parallel()
	bin := workDir(t, "age")
	if out, err := exec.Command("go", "build", "-o", bin, "filippo.io/age/cmd/age").CombinedOutput(); err != nil {
		t.Fatalf("building age: %v\n%s", err, out)
	}
	if err := os.Symlink(binary(), filepath.Join(bin, "age-plugin-p11fs")); err != nil {
		t.Fatal(err)
	}
	d, term := ready(t, daemonConfig{modern: true})
	term.ok("PATH=" + bin + ":$PATH && echo 'attack at dawn' > secret.txt && ls $O > before")
	doc := readDoc(t, "age.md", "sh")
	for _, section := range []string{"A key, its recipient and its identity", "Encrypt and decrypt", "A key on P-256"} {
		if doc[section] == "" {
			t.Fatalf("docs/age.md has no lines in %q", section)
		}
		term.ok("rm -f opened.txt && set -e\n" + doc[section] + "\nset +e")
		if section != "A key, its recipient and its identity" {
			term.ok("cmp secret.txt opened.txt")
		}
	}
	// For its owner; and the key that the others have is another.
	term.ok("age -e -i box.txt -i tag.txt -o own.age secret.txt && age -d -i tag.txt own.age | cmp - secret.txt && age -d -i box.txt own.age | cmp - secret.txt")
	refused := func(line, want string) {
		t.Helper()
		if r := term.run(line); r.status == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%s: status %d and %q, want %q", line, r.status, r.err, want)
		}
	}
	refused("age -d -i tag.txt secret.age", "no identity matched")
	term.ok("p11fs generate swtok x25519 label=other && p11fs generate swtok ec:p256 label=signs && p11fs generate swtok rsa:2048 label=rsa")
	refused("p11fs age-recipient --identity swtok/other > other.txt && age -d -i other.txt both.age", "no identity matched")
	// Nobody encrypts for a key that would not open it, and one that was made to sign learns to.
	for _, line := range []string{"p11fs age-recipient swtok/signs", "p11fs age-recipient swtok/signs.pub", "p11fs age-recipient --identity signs"} {
		refused(line, "p11fs set swtok/signs.key derive=true first")
	}
	term.ok("p11fs set swtok/signs.key derive=true && age -o x.age -r $(p11fs age-recipient swtok/signs) secret.txt && p11fs age-recipient --identity swtok/signs > signs.txt && p11fs set swtok/signs derive=false")
	refused("age -d -i signs.txt x.age", "the key has no derive=true: use a key that has, or give it that, as p11fs set KEY derive=true does")
	term.ok("p11fs set swtok/signs derive=true && age -d -i signs.txt x.age | cmp - secret.txt")
	refused("p11fs age-recipient swtok/rsa", "age has no recipients of its type")

	// It is found by what it is, and leaves nothing behind.
	term.ok("p11fs logout swtok")
	if r := term.run("p11fs age-recipient swtok/tag | cmp - tag.pub"); r.status != 0 || !strings.Contains(r.err, "swtok/tag.pub: whether its private key has derive=true") {
		t.Errorf("of a key whose private half is not seen: status %d, %s", r.status, r.err)
	}
	term.ok("echo " + userPIN + " > $T/login")
	term.ok("p11fs mv swtok/box elsewhere && age -d -i box.txt secret.age | cmp - secret.txt && p11fs rm --yes elsewhere tag other signs rsa && ls $O | cmp - before")
	refused("age -d -i box.txt secret.age", "the key is in no token here")
	term.ok("p11fs logout swtok")
	refused("age -d -i box.txt secret.age", "log in first (p11fs login swtok)")
	d.stop()
	refused("age -d -i box.txt secret.age", "not mounted")
}
