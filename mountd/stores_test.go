package mountd

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// layout makes files below a new directory; a name that ends in a slash is a
// directory.
func layout(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		parent := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// slotsOf lists the slots that a daemon would have, a line each.
func slotsOf(t *testing.T, c Config) ([]string, error) {
	t.Helper()
	d := &Daemon{conf: c, log: slog.New(slog.DiscardHandler)}
	if err := d.loadSlots(t.Context()); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range d.stores {
		line := fmt.Sprintf("%d %s", uint64(s.slot.ID), s.name)
		if s.dir != "" {
			rel, err := filepath.Rel(c.Paths.Data, s.dir)
			if err != nil {
				t.Fatal(err)
			}
			line += " " + rel
		}
		if s.why != "" {
			line += "(" + s.why + ")"
		}
		out = append(out, line)
	}
	return out, nil
}

func TestLoadSlots(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		mode  Mode
		need  bool
		want  []string
		err   string
	}{
		{name: "no data at all", want: []string{"0 swtok swtok"}},
		{name: "empty data", files: map[string]string{"data/": ""}, want: []string{"0 swtok swtok"}},
		{name: "own tokens", files: map[string]string{
			"data/office/NVTOK.DAT": "", "data/home/NVTOK.DAT": "",
			"data/notoken/file": "", "data/.lock/NVTOK.DAT": "", "data/file": "", "data/dir/NVTOK.DAT/": "",
		}, want: []string{"0 home home", "1 office office"}},
		{name: "own configuration", files: map[string]string{
			"conf":                  "slot 7 {\nstdll = libpkcs11_sw.so\ntokname = a\n}\nslot 2 {\nstdll = libpkcs11_sw.so\n}\n",
			"data/office/NVTOK.DAT": "",
		}, want: []string{"7 a a", "2 swtok swtok"}},
		{name: "own configuration asked for and absent", need: true, err: "no such file"},
		{name: "system without configuration", mode: System, err: "no such file"},
		{name: "system", mode: System, files: map[string]string{
			"conf": "slot 0\n{\nstdll = libpkcs11_tpm.so\n}\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\nslot 4\n{\nstdll = other.so\ntokname = other\n}\nslot 5\n{\nstdll = other.so\n}\n",
		}, want: []string{
			`0 (p11fs has no tokens of the kind "tpm")`, "3 swtok swtok",
			`4 (p11fs has no tokens for the library "other.so")`, `5 (p11fs has no tokens for the library "other.so")`,
		}},
		{name: "one directory in two slots", mode: System, files: map[string]string{
			"conf": "slot 1 {\nstdll = libpkcs11_sw.so\n}\nslot 2 {\nstdll = libpkcs11_sw.so\n}\n",
		}, want: []string{"1 swtok swtok", "2 (slot 1 has the token directory swtok already)"}},
		{name: "a mistake", mode: System, files: map[string]string{"conf": "slot 1 {\n}\n"}, err: `conf:1: slot 1 has no "stdll"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := layout(t, c.files)
			got, err := slotsOf(t, Config{
				Mode: c.mode, ConfigRequired: c.need,
				Paths: Paths{Config: filepath.Join(dir, "conf"), Data: filepath.Join(dir, "data")},
			})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	good := Config{Paths: SystemPaths("/x")}
	if err := good.Check(); err != nil {
		t.Errorf("got %v for a good configuration", err)
	}
	for name, change := range map[string]func(*Config){
		"provider": func(c *Config) { c.Provider = "magic" },
		"mount":    func(c *Config) { c.Paths.Mount = "" },
		"data":     func(c *Config) { c.Paths.Data = "" },
	} {
		c := good
		if change(&c); c.Check() == nil {
			t.Errorf("%s: a bad configuration passed", name)
		}
	}
}
