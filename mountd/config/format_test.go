package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
)

// TestWriteFormat sets and removes tokversion in one of two slots. Nothing else changes, and
// what undoes it brings back each byte.
func TestWriteFormat(t *testing.T) {
	const head = "# the machine's slots\nversion opencryptoki-3.27\n\nslot 0 {\nstdll = libpkcs11_sw.so\n}\n"
	v312 := p11.Version{Major: 3, Minor: 12}
	for _, c := range []struct {
		name, slot, want string
		v                p11.Version
	}{
		{"without", "slot 4\n{\n  stdll = libpkcs11_sw.so\n  tokname = mine\n}\n", "slot 4\n{\n  stdll = libpkcs11_sw.so\n  tokname = mine\n  tokversion = 3.12\n}\n", v312},
		{"indented", "slot 4\n{\n\tstdll = libpkcs11_sw.so\n\t}\n# end\n", "slot 4\n{\n\tstdll = libpkcs11_sw.so\n\t  tokversion = 3.12\n\t}\n# end\n", v312},
		{"with", "slot 4 {\ntokversion = 0.0 # old\nstdll = libpkcs11_sw.so\n}\n", "slot 4 {\ntokversion = 3.12 # old\nstdll = libpkcs11_sw.so\n}\n", v312},
		{"in quotes", "slot 4 {\n tokversion=\"3.8\"\nstdll = libpkcs11_sw.so\n}\n", "slot 4 {\n tokversion=3.12\nstdll = libpkcs11_sw.so\n}\n", v312},
		{"as it is", "slot 4 {\ntokversion = 3.12\nstdll = libpkcs11_sw.so\n}\n", "slot 4 {\ntokversion = 3.12\nstdll = libpkcs11_sw.so\n}\n", v312},
		{"removed", "slot 4 {\nstdll = libpkcs11_sw.so\ntokversion = 3.12\n}\n", "slot 4 {\nstdll = libpkcs11_sw.so\n}\n", p11.Version{}},
		{"none to remove", "slot 4 {\nstdll = libpkcs11_sw.so\n}\n", "slot 4 {\nstdll = libpkcs11_sw.so\n}\n", p11.Version{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "real.conf")
			if err := os.WriteFile(path, []byte(head+c.slot), 0o640); err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(dir, "opencryptoki.conf")
			if err := os.Symlink("real.conf", link); err != nil {
				t.Fatal(err)
			}
			// Nobody can take the name of a temporary file, and what a killed process has left goes.
			if err := os.MkdirAll(filepath.Join(dir, "real.conf.p11fs", "full"), 0o700); err != nil {
				t.Fatal(err)
			}
			left := filepath.Join(dir, ".real.conf"+tempMark+"left")
			if err := os.WriteFile(left, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(left, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
				t.Fatal(err)
			}
			if c.name == "as it is" || c.name == "none to remove" {
				_ = os.Remove(left) // nothing is written
			}
			undo, err := WriteFormat(link, 4, c.v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if st, serr := os.Stat(path); err != nil || string(got) != head+c.want || serr != nil || st.Mode().Perm() != 0o640 {
				t.Errorf("%v %v\n%s", err, serr, got)
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != head+c.slot {
				t.Errorf("%v\n%s", err, got)
			}
			if names, err := os.ReadDir(dir); err != nil || len(names) != 3 {
				t.Errorf("left: %v %v", names, err)
			}
		})
	}
	if _, err := SetFormat("conf", head, 5, v312); err == nil || !strings.Contains(err.Error(), "no slot 5") {
		t.Errorf("a slot that is not there: %v", err)
	}
	if _, err := SetFormat("conf", strings.Replace(head, "stdll", "none", 1), 0, v312); err == nil {
		t.Error("a file that is refused is changed")
	}
}
