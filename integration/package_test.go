package integration

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackage makes the packages, and installs, uses, upgrades and purges the .deb in a
// system of its own, by dpkg.
func TestPackage(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "make", "gcc", "systemd-sysusers", "systemd-tmpfiles")
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
	// The same once more, as a later version.
	later := filepath.Join(built, "later.deb")
	if out, err := command("sh", "-ec", `dpkg-deb -R "$0" "$1" && sed -i 's/^Version: .*/Version: 0.9.1/' "$1/DEBIAN/control" && dpkg-deb -Znone -b "$1" "$2"`, debs[0], filepath.Join(built, "later"), later); err != nil {
		t.Fatalf("a later version: %v\n%s", err, out)
	}
	root := workDir(t, "root")
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		t.Helper()
		// What it depends on is this machine's.
		out, err := command("dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--log=/dev/null"}, args...)...)
		if err != nil {
			t.Fatalf("dpkg %q: %v\n%s", args, err, out)
		}
		return out
	}

	dpkg("--install", debs[0])
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
	if group, err := os.ReadFile(filepath.Join(root, "etc/group")); err != nil || !strings.Contains("\n"+string(group), "\npkcs11:") {
		t.Errorf("/etc/group: %v\n%s", err, group)
	}

	// It is used, and a login lives on while a newer one takes its place.
	d, term := ready(t, daemonConfig{binary: filepath.Join(root, "usr/bin/p11fs"), modern: true})
	term.ok("PATH=" + filepath.Join(root, "usr/bin") + ":$PATH && p11fs generate ed25519 label=web && echo msg | p11fs sign web > sig")
	dpkg("--install", later)
	if out := dpkg("--status", "p11fs"); !strings.Contains(out, "\nVersion: 0.9.1\n") {
		t.Errorf("after the upgrade: %s", out)
	}
	term.ok("test $(cat $T/login) = user && echo msg | p11fs sign web > again && echo msg | p11fs verify web again")
	d.stop()

	// It goes, and leaves tokens alone.
	token := filepath.Join(root, "var/lib/opencryptoki/swtok/NVTOK.DAT")
	if err := errors.Join(os.MkdirAll(filepath.Dir(token), 0o770), os.WriteFile(token, []byte("a token"), 0o660)); err != nil {
		t.Fatal(err)
	}
	dpkg("--purge", "p11fs")
	var left []string
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		if err == nil && !strings.HasPrefix(name, "var/lib/dpkg") && !strings.HasPrefix(name, "etc") && (!e.IsDir() || strings.Contains(name, "p11fs")) {
			left = append(left, name)
		}
		return err
	})
	if err != nil || strings.Join(left, " ") != "var/lib/opencryptoki/swtok/NVTOK.DAT" {
		t.Errorf("purge leaves %q (%v), want the token alone", left, err)
	}
}
