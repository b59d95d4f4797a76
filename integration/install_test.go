package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSetUpFindsGo: what the Makefile has found serves where PATH has no Go.
func TestSetUpFindsGo(t *testing.T) {
	t.Parallel()
	found, err := exec.LookPath("go")
	need(t, err == nil, "go")
	script, err := os.ReadFile("../contrib/setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t, "setup")
	for name, text := range map[string][]byte{"setup.sh": script, "packages.txt": nil} { // which are all there
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, says := range map[string]bool{found: false, "/nowhere/go": true} {
		cmd := exec.Command("sh", filepath.Join(dir, "setup.sh"), "run")
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GO=" + path}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "go is not in PATH") != says || (err != nil) != says {
			t.Errorf("with %s: %v\n%s", path, err, out)
		}
	}
}

// TestInstallDestdir installs a machine's p11fs below a directory, as for a
// package, sets that machine up with the service manager's own tools, and
// uninstalls.
func TestInstallDestdir(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "make", "gcc", "systemd-analyze", "systemd-sysusers", "systemd-tmpfiles")
	dest := workDir(t, "dest")
	built := workDir(t, "built")
	run := func(target string, more ...string) string {
		t.Helper()
		args := append([]string{"-s", target, "DESTDIR=" + dest, "PREFIX=/usr", "BIN=" + built + "/p11fs", "BUILD=" + built, "LIBP11FS=" + built + "/libp11fs.so"}, more...)
		cmd := exec.Command("make", args...)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		return string(out)
	}
	run("install")
	for name, want := range map[string][]string{
		"usr/lib/systemd/system/p11fs.service": {
			"Type=notify", "ExecStart=/usr/bin/p11fs mount --system", "Conflicts=pkcsslotd.service", "Alias=pkcsslotd.service", "CPUWeight=400",
		},
		"usr/lib/systemd/system/p11fs-rpc.socket": {"ListenStream=/run/p11fs/rpc.sock", "FileDescriptorName=rpc.sock", "SocketGroup=pkcs11"},
		"usr/lib/systemd/user/p11fs.service":      {"Type=notify", "ExecStart=/usr/bin/p11fs mount", "WantedBy=default.target"},
		"usr/lib/tmpfiles.d/p11fs.conf":           {"d /run/p11fs 0755 root root -", "d /var/lock/opencryptoki 0770 root pkcs11 -"},
		"usr/lib/sysusers.d/p11fs.conf":           {"g pkcs11 -"},
	} {
		b, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, line := range want {
			if !slices.Contains(strings.Split(string(b), "\n"), line) {
				t.Errorf("%s has no line %q:\n%s", name, line, b)
			}
		}
	}
	link := filepath.Join(dest, "usr/sbin/pkcsslotd")
	if to, err := os.Readlink(link); err != nil || to != "/usr/bin/p11fs" {
		t.Errorf("the link leads to %q (%v)", to, err)
	}

	t.Run("units", func(t *testing.T) {
		// Their programs are looked for on this machine.
		dir := workDir(t, "units")
		for _, name := range []string{"p11fs.service", "p11fs-rpc.socket"} {
			b, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/system", name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(b), "=/usr/bin/p11fs", "="+built+"/p11fs")), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/user/p11fs.service"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "p11fs-user.service"), []byte(strings.ReplaceAll(string(b), "=/usr/bin/p11fs", "="+built+"/p11fs")), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "p11fs.service"), filepath.Join(dir, "p11fs-rpc.socket"), filepath.Join(dir, "p11fs-user.service"))
		for _, line := range lines(out) {
			if strings.Contains(line, "p11fs") {
				t.Errorf("systemd-analyze verify (%v): %s", err, line)
			}
		}
	})
	t.Run("group and directories", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(dest, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"systemd-sysusers", "--root=" + dest, filepath.Join(dest, "usr/lib/sysusers.d/p11fs.conf")},
			{"systemd-tmpfiles", "--root=" + dest, "--create", filepath.Join(dest, "usr/lib/tmpfiles.d/p11fs.conf")},
		} {
			if out, err := command(args[0], args[1:]...); err != nil {
				t.Fatalf("%q: %v\n%s", args, err, out)
			}
		}
		group, err := os.ReadFile(filepath.Join(dest, "etc/group"))
		if err != nil || !strings.Contains("\n"+string(group), "\npkcs11:") {
			t.Errorf("/etc/group: %v\n%s", err, group)
		}
		for dir, mode := range map[string]os.FileMode{
			"run/p11fs": 0o755, "var/lock/opencryptoki": 0o770, "var/lib/opencryptoki": 0o770, "var/log/opencryptoki": 0o770,
		} {
			if st, err := os.Stat(filepath.Join(dest, dir)); err != nil || st.Mode() != os.ModeDir|mode {
				t.Errorf("%s: %v", dir, err)
			}
		}
		if err := errors.Join(os.RemoveAll(filepath.Join(dest, "etc")), os.RemoveAll(filepath.Join(dest, "var")), os.RemoveAll(filepath.Join(dest, "run"))); err != nil {
			t.Fatal(err)
		}
	})
	run("uninstall")
	if left := filesBelow(t, dest); len(left) > 0 {
		t.Errorf("uninstall left %q", left)
	}

	t.Run("beside the file of the stock package", func(t *testing.T) {
		const stock = "the stock daemon"
		if err := os.WriteFile(link, []byte(stock), 0o755); err != nil {
			t.Fatal(err)
		}
		if out := run("install"); !strings.Contains(out, "stays as it is") {
			t.Errorf("install says %q", out)
		}
		run("uninstall")
		if b, err := os.ReadFile(link); err != nil || string(b) != stock {
			t.Errorf("the file holds %q (%v)", b, err)
		}
		if left := filesBelow(t, dest); len(left) != 1 {
			t.Errorf("uninstall left %q", left)
		}
	})
}

// filesBelow lists all but directories.
func filesBelow(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
