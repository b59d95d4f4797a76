package doctor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// healthy is a machine on which nothing is wrong, below a directory, as an
// ordinary user sees it.
func healthy(t *testing.T) (Examination, string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"dev", "etc", "usr/bin", "data", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p := Examination{
		Config: mountd.Config{Mode: mountd.User, Kinds: kinds(), Paths: mountd.Paths{
			Config: filepath.Join(root, "conf"), Data: filepath.Join(root, "data"), Mount: filepath.Join(root, "mnt"),
		}},
		Libcrypto: func() (string, error) { return "3.0", nil },
		CanRefuse: func() error { return nil },
		Root:      root,
		UID:       os.Geteuid(),
		User:      "alice",
		Groups:    []int{105},
		Group:     func(string) (string, []string, error) { return "105", []string{"root", "alice"}, nil },
	}
	put(t, filepath.Join(root, "dev/fuse"), "", 0o666)
	put(t, filepath.Join(root, "usr/bin/fusermount3"), "", 0o755|os.ModeSetuid)
	return p, root
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	// Anew: the file that is there may be read-only.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestExamine(t *testing.T) {
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, p *Examination, root string)
		check string // the one that finds it; empty if nothing is wrong
		wrong string
		mend  string
		root  bool // only root can make this trouble
		user  bool // only an ordinary user has it
	}{
		{name: "healthy"},
		{name: "token data cut short", check: "tokens", wrong: "has 8 bytes", mend: "mv ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				if err := os.Mkdir(filepath.Join(p.Paths.Data, "swtok"), 0o700); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(p.Paths.Data, "swtok/NVTOK.DAT"), "garbage\n", 0o600)
			}},
		{name: "token of another format than declared", check: "tokens", wrong: "NVTOK.DAT has 232 bytes where format 3.12 has 592", mend: "tokversion = 0.0",
			spoil: func(t *testing.T, p *Examination, root string) {
				put(t, root+"/conf", "slot 3 {\nstdll = libpkcs11_sw.so\ntokversion = 3.12\n}\n", 0o600)
				if err := os.Mkdir(filepath.Join(p.Paths.Data, "swtok"), 0o700); err != nil {
					t.Fatal(err)
				}
				put(t, filepath.Join(p.Paths.Data, "swtok/NVTOK.DAT"), strings.Repeat("x", 232), 0o600)
			}},
		{name: "counter at its end", check: "tokens", wrong: "the counter of swtok has no number left", mend: "rm ",
			spoil: func(t *testing.T, p *Examination, _ string) {
				if out, err := exec.Command("tar", "-xzf", "../../tokens/store/storetest/testdata/swtok-pristine.tar.gz", "-C", p.Paths.Data).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				put(t, filepath.Join(p.Paths.Data, "swtok/.p11fs.counter"), "18446744073709551615\n", 0o600)
			}},
		{name: "no configuration below a root", check: "conf", wrong: "missing", mend: "install -D -m 0644 /etc/opencryptoki/opencryptoki.conf /",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.Mode = mountd.System }},
		{name: "no device", check: "/dev/fuse", wrong: "missing", mend: "modprobe fuse",
			spoil: func(t *testing.T, _ *Examination, root string) { remove(t, root+"/dev/fuse") }},
		{name: "closed device", check: "/dev/fuse", wrong: "closed", mend: "chmod 0666 /dev/fuse", user: true,
			spoil: func(t *testing.T, _ *Examination, root string) { put(t, root+"/dev/fuse", "", 0) }},
		{name: "no helper", check: "fusermount3", wrong: "not installed", mend: "apt-get install fuse3",
			spoil: func(t *testing.T, _ *Examination, root string) { remove(t, root+"/usr/bin/fusermount3") }},
		{name: "helper without setuid", check: "fusermount3", wrong: "not setuid", mend: "chmod u+s", root: true,
			spoil: func(t *testing.T, p *Examination, root string) {
				put(t, root+"/usr/bin/fusermount3", "", 0o755)
				p.UID = 1000
				own(t, root, 1000)
			}},
		{name: "no user_allow_other", check: "user_allow_other", wrong: "does not let", mend: "echo user_allow_other", root: true,
			spoil: func(t *testing.T, p *Examination, root string) {
				put(t, root+"/etc/fuse.conf", "#user_allow_other\nmount_max = 10\n", 0o644)
				p.AllowOther, p.UID = true, 1000
				own(t, root, 1000)
			}},
		{name: "user_allow_other", root: true,
			spoil: func(t *testing.T, p *Examination, root string) {
				put(t, root+"/etc/fuse.conf", "# all\nuser_allow_other\n", 0o644)
				p.AllowOther, p.UID = true, 1000
				own(t, root, 1000)
			}},
		{name: "no group", check: "group pkcs11", wrong: "does not exist", mend: "groupadd --system pkcs11",
			spoil: func(t *testing.T, p *Examination, root string) {
				p.Mode = mountd.System
				p.Group = func(string) (string, []string, error) { return "", nil, errors.New("none") }
				put(t, root+"/conf", "", 0o600)
			}},
		{name: "no system configuration", check: "conf", wrong: "missing", mend: "opencryptoki",
			spoil: func(_ *testing.T, p *Examination, _ string) { p.Mode = mountd.System }},
		{name: "mistake in the configuration", check: "conf", wrong: `conf:1: slot 1 has no "stdll"`, mend: "editor ",
			spoil: func(t *testing.T, _ *Examination, root string) { put(t, root+"/conf", "slot 1 {\n}\n", 0o600) }},
		{name: "warnings in the configuration", check: "conf", wrong: "(and 1 more)", mend: "editor ",
			spoil: func(t *testing.T, _ *Examination, root string) {
				put(t, root+"/conf", "slot 1 {\nstdll = x\nfrob = y\nhwversion = a.b\n}\n", 0o600)
			}},
		{name: "data absent", spoil: func(t *testing.T, _ *Examination, root string) { remove(t, root+"/data") }},
		{name: "system data absent", check: "data", wrong: "missing", mend: "install -d -m 0770 -g pkcs11",
			spoil: func(t *testing.T, p *Examination, root string) {
				remove(t, root+"/data")
				p.Mode = mountd.System
				put(t, root+"/conf", "", 0o600)
			}},
		{name: "data is a file", check: "data", wrong: "no directory", mend: "ls -ld",
			spoil: func(t *testing.T, _ *Examination, root string) {
				remove(t, root+"/data")
				put(t, root+"/data", "", 0o600)
			}},
		{name: "data of another", check: "data", wrong: "belongs to user 12345", mend: "chown -R", root: true,
			spoil: func(t *testing.T, _ *Examination, root string) { own(t, root+"/data", 12345) }},
		{name: "data open to others", check: "data", wrong: "others may write", mend: "chmod go-w",
			spoil: func(t *testing.T, _ *Examination, root string) { mode(t, root+"/data", 0o770) }},
		{name: "data closed to its owner", check: "data", wrong: "not use it yourself", mend: "chmod u+rwx",
			spoil: func(t *testing.T, _ *Examination, root string) { mode(t, root+"/data", 0o500) }},
		{name: "system data open to all", check: "data", wrong: "everybody", mend: "chmod o-w",
			spoil: func(t *testing.T, p *Examination, root string) {
				p.Mode = mountd.System
				put(t, root+"/conf", "", 0o600)
				mode(t, root+"/data", 0o777)
			}},
		{name: "slot daemon runs", check: "pkcsslotd", wrong: "it runs", mend: "kill 77",
			spoil: func(t *testing.T, p *Examination, root string) { slotDaemon(t, p, root, "pkcsslotd\n") }},
		{name: "number of a slot daemon that ended",
			spoil: func(t *testing.T, p *Examination, root string) { slotDaemon(t, p, root, "bash\n") }},
		{name: "mount point absent", spoil: func(t *testing.T, _ *Examination, root string) { remove(t, root+"/mnt") }},
		{name: "mount point is a file", check: "mnt", wrong: "no directory", mend: "rm ",
			spoil: func(t *testing.T, _ *Examination, root string) {
				remove(t, root+"/mnt")
				put(t, root+"/mnt", "", 0o600)
			}},
		{name: "mount point closed", check: "mnt", wrong: "may not write", mend: "chown", user: true,
			spoil: func(t *testing.T, _ *Examination, root string) { mode(t, root+"/mnt", 0o500) }},
		{name: "no libcrypto", check: "libcrypto", wrong: "slower", mend: "libssl3",
			spoil: func(_ *testing.T, p *Examination, _ string) {
				p.Libcrypto = func() (string, error) { return "", errors.New("absent") }
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch root := os.Geteuid() == 0; {
			case c.root && !root:
				t.Skip("only root can make this trouble")
			case c.user && root:
				// Root has no such trouble: then nothing may be found.
				c.check = ""
			}
			p, root := healthy(t)
			if c.spoil != nil {
				c.spoil(t, &p, root)
			}
			found := false
			for _, f := range p.Run() {
				switch {
				case f.Wrong == "":
					if f.Detail == "" && f.Weak == nil || f.Mend != "" {
						t.Errorf("%s: nothing is wrong, but it says %+v", f.Check, f)
					}
				case c.check == "" || filepath.Base(f.Check) != filepath.Base(c.check):
					t.Errorf("found %+v", f)
				default:
					found = true
					if !strings.Contains(f.Wrong, c.wrong) || !strings.Contains(f.Mend, c.mend) {
						t.Errorf("found %+v, want %q and %q", f, c.wrong, c.mend)
					}
					if strings.Contains(f.Wrong+f.Mend, "\n") {
						t.Errorf("more than one line: %+v", f)
					}
				}
			}
			if c.check != "" && !found {
				t.Errorf("%s found nothing wrong", c.check)
			}
		})
	}
}

// TestStrength: a token of format 3.8 is named, with what to do, and nothing is wrong.
func TestStrength(t *testing.T) {
	p, _ := healthy(t)
	for name, size := range map[string]int{"old": 232, "new": 592} {
		if err := os.Mkdir(filepath.Join(p.Paths.Data, name), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(p.Paths.Data, name, "NVTOK.DAT"), strings.Repeat("x", size), 0o600)
	}
	if f := p.strength(); len(f.Weak) != 1 || !strings.HasPrefix(f.Weak[0], "old: ") || !strings.HasSuffix(f.Weak[0], ": p11fs migrate old") || f.Wrong != "" || f.Detail != "" {
		t.Errorf("%+v", f)
	}
	p.Mode = mountd.System
	put(t, p.Paths.Config, "slot 3 {\nstdll = libpkcs11_sw.so\ntokname = old\n}\n", 0o644)
	if f := p.strength(); len(f.Weak) != 1 || !strings.Contains(f.Weak[0], "p11fs migrate old (once no program") {
		t.Errorf("%+v", f)
	}
}

// TestHidden: who may not look into the token directories is not told that there are
// none, nor that all is well with them.
func TestHidden(t *testing.T) {
	p, _ := healthy(t)
	p.Mode = mountd.System
	put(t, p.Paths.Config, "", 0o644)
	mode(t, p.Paths.Data, 0)
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Setfsuid(65534)
		defer func() { _ = unix.Setfsuid(0) }()
		p.Paths.Config = "/dev/null" // which is not in the test's own directory
	}
	for _, f := range []Finding{p.tokens(), p.modes()} {
		if !strings.HasPrefix(f.Detail, "not seen: ") || f.Wrong != "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestTokensAreNamed: a token is called by its name and label, with the number of the slot that
// the daemon which serves it has for it.
func TestTokensAreNamed(t *testing.T) {
	p, _ := healthy(t)
	for _, name := range []string{"apple", "work", "zoo"} {
		if err := os.Mkdir(filepath.Join(p.Paths.Data, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := p.tokens().Detail, "3 found; apple (slot 0); work (slot 1); zoo (slot 2)"; got != want {
		t.Errorf("without a daemon: %q, want %q", got, want)
	}
	slots, _, err := p.Slots()
	if err != nil {
		t.Fatal(err)
	}
	by := servedBy("mode user\nstore work "+p.Paths.Data+"/work\nstore apple "+p.Paths.Data+"/apple\nstore other /elsewhere/zoo\n",
		"0 work swtok p11fs work\n7 apple swtok p11fs apple\n8 other swtok p11fs other\n9 - empty\n")
	for i, want := range []string{"apple (slot 7)", "work (slot 0)", "zoo (not served)"} {
		if got := p.called(slots[i], by); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNotServed(t *testing.T) {
	const good = "version 0.1.0\nself-test passed in 3ms\nstore swtok /data/swtok\nstore slot-4 absent: p11fs has no tokens for it\n"
	for status, want := range map[string]string{
		"":   "",
		good: "",
		good + "store a failed: self-test of RSA failed: no\n":                                "the token a is not served: self-test of RSA failed: no",
		good + "store b /data/b\noffline b: since 2001-09-09T01:46:40Z: no card\n":            "the token b is offline: since 2001-09-09T01:46:40Z: no card",
		good + "store a failed: nobody answers" + tokens.ToMend + "ask again\n":               "the token a is not served: nobody answers",
		good + "store b /data/b\noffline b: no card: 3\n":                                     "the token b is offline: no card: 3",
		good + "damaged swtok TOK_OBJ: 7 objects are not loaded: " + tokens.RoomAdvice + "\n": "the token swtok TOK_OBJ: 7 objects are not loaded",
		good + "damaged icsf on the server: there are more: " + tokens.ManyAdvice + "\n":      "the token icsf on the server: there are more",
		good + "damaged swtok MK_SO: it is absent\n":                                          "the token swtok has damaged files: MK_SO: it is absent",
		"store a failed: x\noffline b: y\nstore c failed: z\n":                                "the token a is not served: x (and 2 more)",
	} {
		if got := notServed(Finding{}, status).Wrong; got != want {
			t.Errorf("got %q, want %q, of\n%s", got, want, status)
		}
	}
	if f := notServed(Finding{}, good+"offline b: no card: 3\n"); strings.Contains(f.Mend, "restart") {
		t.Errorf("a token that comes back by itself is mended with: %s", f.Mend)
	}
}

// slotDaemon makes a process 77 of that name, which the slot daemon's file names.
func slotDaemon(t *testing.T, p *Examination, root, name string) {
	t.Helper()
	p.Mode = mountd.System
	p.Paths.PIDFile = filepath.Join(root, "pid")
	put(t, root+"/conf", "", 0o600)
	put(t, root+"/pid", "77", 0o600)
	if err := os.MkdirAll(root+"/proc/77", 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, root+"/proc/77/comm", name, 0o600)
}

func own(t *testing.T, path string, uid int) {
	t.Helper()
	err := filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if err := os.Lchown(path, uid, uid); err != nil {
			return err
		}
		return os.Chmod(path, st.Mode()) // chown takes the setuid bit away
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mode(t *testing.T, path string, m os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
}

func kinds() []tokens.Kind { return []tokens.Kind{swtok.NewKind(swtok.GoProvider())} }
