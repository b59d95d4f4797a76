package integration

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// buildPackages makes a .deb of version 0.9.0, the same as 0.9.1, and a .rpm.
func buildPackages(t *testing.T) (deb, later string) {
	t.Helper()
	needTools(t, "make", "gcc")
	if out, err := exec.Command("make", "-s", "-C", "..", "bin/nfpm").CombinedOutput(); err != nil {
		t.Logf("%s", out)
		need(t, false, "nfpm, which the module proxy has")
	}
	built := workDir(t, "built")
	out, err := exec.Command("make", "-s", "-C", "..", "package", "VERSION=0.9.0", "BIN="+built+"/p11fs", "BUILD="+built, "LIBP11FS="+built+"/libp11fs.so").CombinedOutput()
	if err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	rpms, _ := filepath.Glob(filepath.Join(built, "package", "*.rpm"))
	debs, _ := filepath.Glob(filepath.Join(built, "package", "*.deb"))
	if len(rpms) != 1 || len(debs) != 1 {
		t.Fatalf("make package made %q and %q", debs, rpms)
	}
	if b, err := os.ReadFile(rpms[0]); err != nil || !strings.HasPrefix(string(b), "\xed\xab\xee\xdb") {
		t.Errorf("%s is no .rpm (%v)", rpms[0], err)
	}
	later = filepath.Join(built, "later.deb")
	if out, err := command("sh", "-ec", `dpkg-deb -R "$0" "$1" && sed -i 's/^Version: .*/Version: 0.9.1/' "$1/DEBIAN/control" && dpkg-deb -Znone -b "$1" "$2"`, debs[0], filepath.Join(built, "later"), later); err != nil {
		t.Fatalf("a later version: %v\n%s", err, out)
	}
	return debs[0], later
}

// TestPackage makes the packages, and installs, uses, upgrades and purges the .deb by dpkg, in
// the root of a machine's daemon, with the lines of docs/install.md.
func TestPackage(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "systemctl", "systemd-sysusers", "systemd-tmpfiles", "openssl")
	deb, later := buildPackages(t)
	d := newDaemon(t, daemonConfig{system: true})
	root := d.dir
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := command(name, args...)
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return out
	}
	dpkg := func(args ...string) string {
		t.Helper()
		// What it depends on is this machine's.
		return run("dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--log=/dev/null"}, args...)...)
	}
	before := filesBelow(t, root)
	dpkg("--install", deb)
	checkInstalled(t, root)
	// Each line of the page is done here, in this root, or says why it is not.
	unit := []string{"--root=" + root}
	done := map[string]func(){
		"make package": nil, "sudo apt install ./build/package/p11fs_*.deb": nil, // as above
		"sudo apt purge p11fs":         nil,                                        // as below
		"sudo systemctl restart p11fs": nil, "systemctl --user restart p11fs": nil, // want a service manager; as below without one
		"systemctl --user enable --now p11fs":                        func() { run("systemctl", append(unit, "--global", "enable", "p11fs")...) },
		"sudo systemctl enable --now p11fs-rpc.socket p11fs.service": func() { run("systemctl", append(unit, "enable", "p11fs-rpc.socket", "p11fs.service")...) },
		"sudo usermod -aG pkcs11 USER":                               func() { run("usermod", "--prefix", root, "-aG", "pkcs11", "user") },
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("user:x:1000:1000::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for heading, text := range readDoc(t, "install.md", "sh") {
		for _, line := range lines(strings.TrimSpace(text)) {
			do, ok := done[line]
			if !ok && heading != "A container that uses a key" { // which TestContainer runs
				t.Errorf("nothing does the line %q of docs/install.md", line)
			}
			if do != nil {
				do()
			}
		}
	}
	for name, want := range map[string]string{
		"etc/systemd/system/sockets.target.wants/p11fs-rpc.socket": "/usr/lib/systemd/system/p11fs-rpc.socket",
		"etc/systemd/system/multi-user.target.wants/p11fs.service": "/usr/lib/systemd/system/p11fs.service",
		"etc/systemd/user/default.target.wants/p11fs.service":      "/usr/lib/systemd/user/p11fs.service",
	} {
		if to, err := os.Readlink(filepath.Join(root, name)); err != nil || to != want {
			t.Errorf("%s leads to %q (%v)", name, to, err)
		}
	}
	if group, err := os.ReadFile(filepath.Join(root, "etc/group")); err != nil || !strings.HasSuffix(groupLine(string(group)), ":user") {
		t.Errorf("/etc/group: %v\n%s", err, group)
	}
	upgrade(t, d, func() { dpkg("--install", later) })
	if out := dpkg("--status", "p11fs"); !strings.Contains(out, "\nVersion: 0.9.1\n") {
		t.Errorf("after the upgrade: %s", out)
	}

	// It goes, and leaves tokens alone.
	grants := filepath.Join(root, "etc/p11fs/grants.d/web")
	if err := os.MkdirAll(filepath.Dir(grants), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(grants, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg("--remove", "p11fs")
	if _, err := os.Stat(grants); err != nil {
		t.Errorf("what is removed and not purged keeps its configuration: %v", err)
	}
	dpkg("--purge", "p11fs")
	checkPurged(t, root, before)
	// The token is one that another daemon serves.
	d.c.binary, d.c.serve = binary(), []string{binary(), "mount"}
	d.start()
	term := d.terminal()
	term.ok("echo " + userPIN + " > $T/login && test -e $O/web.key")
	term.close()
	d.stop()
}

// groupLine is the line of the group of those who may use the daemon.
func groupLine(group string) string {
	for _, line := range lines(group) {
		if strings.HasPrefix(line, "pkcs11:") {
			return line
		}
	}
	return ""
}

func checkInstalled(t *testing.T, root string) {
	t.Helper()
	for _, name := range []string{
		"usr/bin/p11fs", "usr/bin/age-plugin-p11fs", "usr/lib/pkcs11/libp11fs.so", "usr/lib/p11fs/libep11.so", "usr/share/p11-kit/modules/p11fs.module",
		"usr/lib/systemd/system/p11fs.service", "usr/lib/systemd/system/p11fs-rpc.socket", "usr/lib/systemd/user/p11fs.service",
		"usr/lib/tmpfiles.d/p11fs.conf", "usr/lib/sysusers.d/p11fs.conf", "usr/share/man/man1/p11fs.1", "usr/share/man/man7/p11fs-mechanisms.7",
		"usr/share/bash-completion/completions/p11fs", "var/lib/opencryptoki", "run/p11fs",
	} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	if group, err := os.ReadFile(filepath.Join(root, "etc/group")); err != nil || groupLine(string(group)) == "" {
		t.Errorf("/etc/group: %v\n%s", err, group)
	}
}

// upgrade starts the daemon of the package, without a service manager, and has it replaced: two
// users' logins live on, with the old program, until it is started anew.
func upgrade(t *testing.T, d *daemon, install func()) {
	t.Helper()
	d.c.binary = filepath.Join(d.dir, "usr/bin/p11fs")
	d.c.serve = []string{d.c.binary, "mount"}
	d.start()
	path := "PATH=" + filepath.Join(d.dir, "usr/bin") + ":$PATH; "
	term, other := d.terminal(), d.terminalOf(anotherUser(t, "daemon", "pkcs11"))
	d.initToken(term)
	for _, term := range []*terminal{term, other} {
		term.ok(path + "echo " + userPIN + " > $T/login && p11fs generate ed25519 label=$(id -un) && echo msg | p11fs sign $(id -un) > sig")
	}
	term.ok("p11fs generate ec:p256 label=web")
	install()
	for _, term := range []*terminal{term, other} {
		term.ok("test $(cat $T/login) = user && echo msg | p11fs sign $(id -un) > again && echo msg | p11fs verify $(id -un) again")
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid()))
	if err != nil || !strings.HasSuffix(exe, " (deleted)") {
		t.Errorf("the daemon is %s (%v), want the old program", exe, err)
	}
	d.stop()
	d.start()
	if exe, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid())); err != nil || exe != d.c.binary {
		t.Errorf("the daemon is %s (%v), want the new program", exe, err)
	}
	for _, term := range []*terminal{term, other} {
		term.want("cat $T/login", "public\n")
		term.close()
	}
	d.stop()
}

// checkPurged: what is left is what was there before, the machine's own lists of users and
// packages, what the test's daemon wrote, and the token.
func checkPurged(t *testing.T, root string, before []string) {
	t.Helper()
	var left []string
	token := false
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(name, "var/lib/opencryptoki/swtok"):
			token = token || strings.HasSuffix(name, "/NVTOK.DAT")
		case e.IsDir() && !strings.Contains(name, "p11fs"), slices.Contains(before, path):
		case strings.HasPrefix(name, "var/lib/dpkg/"), strings.HasPrefix(name, "log."), name == "n":
		case strings.HasPrefix(name, "etc/group"), strings.HasPrefix(name, "etc/gshadow"), strings.HasPrefix(name, "etc/passwd"), strings.HasPrefix(name, "etc/shadow"), name == "etc/.pwd.lock":
		default:
			left = append(left, name)
		}
		return nil
	})
	if err != nil || !token || len(left) > 0 {
		t.Errorf("purge leaves %q (%v), and the token: %v", left, err, token)
	}
}

// TestPackageSays: who upgrades or removes the package while a daemon runs is told what that
// means, and nobody else. The programs that change the machine are not run.
func TestPackageSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script, arg string
		runs        bool
		want        string
	}{
		{"postinstall", "configure", true, "daemons that run go on as they are, with all logins. systemctl restart p11fs"},
		{"postinstall", "configure", false, ""},
		{"preremove", "remove", true, "daemons still run, without their program"},
		{"preremove", "remove", false, ""},
		{"preremove", "upgrade", true, ""},
		{"postremove", "remove", true, ""},
	} {
		bin := workDir(t, "stubs")
		for _, name := range []string{"systemd-sysusers", "systemd-tmpfiles", "systemctl", "pidof"} {
			text := "#!/bin/sh\nexit 0\n"
			if name == "pidof" && !c.runs {
				text = "#!/bin/sh\nexit 1\n"
			}
			if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/sh", filepath.Join("../contrib/package", c.script), c.arg)
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.CombinedOutput()
		if err != nil || c.want == "" && len(out) > 0 || !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s, a daemon runs: %v: %v\n%s", c.script, c.arg, c.runs, err, out)
		}
	}
}
