package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"log/syslog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/mountd"
	"p11fs/mountd/config"
	"p11fs/mountd/slotd"
)

func TestSlotOptions(t *testing.T) {
	for _, c := range []struct {
		args string
		want slotOptions
		bad  string
	}{
		{"", slotOptions{}, ""},
		{"-v", slotOptions{verbose: 1}, ""},
		{"-vvf -v", slotOptions{verbose: 3, foreground: true}, ""},
		{"-l a -f", slotOptions{logFile: "a", foreground: true}, ""},
		{"-vla -f", slotOptions{verbose: 1, logFile: "a", foreground: true}, ""},
		{"-l -f", slotOptions{logFile: "-f"}, ""},
		{"-l", slotOptions{}, "requires an argument -- 'l'"},
		{"-h", slotOptions{help: true}, ""},
		{"-x -f", slotOptions{foreground: true}, "invalid option -- 'x'"},
		{"word -f", slotOptions{foreground: true}, ""},
		{"-- -f", slotOptions{}, ""},
		{"- -f", slotOptions{foreground: true}, ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			got, bad := parseSlotOptions(strings.Fields(c.args))
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if said := strings.Join(bad, ";"); (c.bad == "") != (said == "") || !strings.Contains(said, c.bad) {
				t.Errorf("complains %q, want %q", said, c.bad)
			}
		})
	}
}

func TestMayBeSlotDaemon(t *testing.T) {
	there := func(string) (*user.Group, error) { return &user.Group{Gid: "105"}, nil }
	none := func(name string) (*user.Group, error) { return nil, user.UnknownGroupError(name) }
	for _, c := range []struct {
		name       string
		euid, egid int
		lookup     func(string) (*user.Group, error)
		want       string
	}{
		{"root", 0, 0, there, ""},
		{"root in group pkcs11", 0, 105, there, ""},
		{"root in another group", 0, 100, there, "effective group id"},
		{"no root", 1000, 105, there, "root privileges"},
		{"no group", 0, 0, none, "groupadd --system pkcs11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := mayBeSlotDaemon(c.euid, c.egid, c.lookup)
			if said := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(said, c.want) && err != nil {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestSlotCheck(t *testing.T) {
	const good = "slot 0\n{\nstdll = libpkcs11_sw.so\ntokname = a\n}\n"
	for _, c := range []struct {
		name, conf string
		code       int
		says       string
	}{
		{"good", good, 0, ""},
		{"a syntax error is none to stock", good + "slot 1\n{\n\n}\n", 0, ""},
		{"no file", "", 1, "Failed to read config file."},
		{"one tokname in two slots", good + strings.Replace(good, "0", "1", 1), 13, "Duplicate token name"},
		{"no library", "slot 0\n{\ntokname = a\n}\n", 6, "Failed to populate slot info."},
		{"one slot twice", good + good, 6, "Failed to populate slot info."},
		{"no data", "-", 2, "Token directories missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			paths := mountd.SystemPaths(t.TempDir())
			for path, text := range map[string]string{paths.Config: c.conf, filepath.Join(paths.Data, "x"): ""} {
				if c.conf == "-" || c.conf == "" && path == paths.Config {
					continue
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var said bytes.Buffer
			d := &slotDaemon{paths: paths, s: streams{err: &said}, log: slog.New(slog.NewTextHandler(&said, nil))}
			if code := d.check(); code != c.code || !strings.Contains(said.String(), c.says) {
				t.Errorf("code %d, said %q; want %d and %q", code, said.String(), c.code, c.says)
			}
		})
	}
}

func TestSlotExit(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{context.Canceled, 0},
		{fs.ErrNotExist, 1},
		{fmt.Errorf("x: %w", mountd.ErrBusy), 1},
		{fmt.Errorf("x: %w", slotd.ErrRunning), 1},
		{fmt.Errorf("x: %w", mountd.ErrNoSlotDaemonFile), 1},
		{fmt.Errorf("x: %w", slotd.ErrSocket), 5},
		{fmt.Errorf("x: %w", config.ErrTokenName), 13},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			code, text := slotExit(c.err)
			if code != c.code || (text == "") != (c.code == 0) {
				t.Errorf("code %d %q, want %d", code, text, c.code)
			}
		})
	}
}

func TestSlotLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var terminal bytes.Buffer
	at := time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC)
	l := newSlotLog(&terminal, func() time.Time { return at })
	defer l.close()
	if err := l.open(path); err != nil {
		t.Fatal(err)
	}
	l.dial = func() (*syslog.Writer, error) { return nil, errors.New("not the machine's") }
	log := slog.New(l.handler(slog.LevelInfo))
	log.Debug("not this")
	log.Info("Shared memory file is x")
	log.With("token", "swtok").Warn("two\nlines", "err", "a b")
	l.noTerminal()
	log.Error("late")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("pkcsslotd[%d]: ", os.Getpid())
	const stamp = "Tue Nov  3 04:05:06 2026 "
	want := stamp + "   INFO " + name + "Shared memory file is x\n" +
		stamp + "WARNING " + name + `two lines token=swtok err="a b"` + "\n" +
		stamp + "  ERROR " + name + "late\n"
	if string(b) != want {
		t.Errorf("the file holds\n%swant\n%s", b, want)
	}
	if got, want := terminal.String(), "WARNING "+name+`two lines token=swtok err="a b"`+"\n"; got != want {
		t.Errorf("the terminal shows %q, want %q", got, want)
	}
}

func TestIsSlotDaemon(t *testing.T) {
	for arg0, want := range map[string]bool{"pkcsslotd": true, "/usr/sbin/pkcsslotd": true, "p11fs": false, "/x/pkcsslotd/p11fs": false, "": false} {
		if isSlotDaemon(arg0) != want {
			t.Errorf("%q: %v", arg0, !want)
		}
	}
}
