package mountd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPINFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pin")
	for name, c := range map[string]struct {
		text, pin, says string
		mode            os.FileMode
	}{
		"a line":             {"1234\n", "1234", "", 0o400},
		"of another system":  {"\xef\xbb\xbf1234\r\n", "1234", "", 0o600},
		"no line":            {"12 34", "12 34", "", 0o600},
		"empty":              {"", "", "is empty", 0o600},
		"an empty line":      {"\n", "", "is empty", 0o600},
		"too long":           {strings.Repeat("1", maxPINFile), "", "longer than a PIN", 0o600},
		"others may read it": {"1234\n", "", "chmod 0400 " + file, 0o640},
		"others may write":   {"1234\n", "", "chmod 0400 " + file, 0o602},
	} {
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		pin, err := readPIN(file)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v", name, err)
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case err == nil:
			pin.Use(func(b []byte) {
				if string(b) != c.pin {
					t.Errorf("%s: %q", name, b)
				}
			})
		}
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the PIN is in the error: %v", name, err)
		}
		_ = pin.Close()
	}
	for name, make := range map[string]func() error{
		"link": func() error { return os.Symlink(file, filepath.Join(dir, "link")) },
		"pipe": func() error { return unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600) },
		"dir":  func() error { return os.Mkdir(filepath.Join(dir, "dir"), 0o700) },
		"none": func() error { return nil },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := readPIN(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is taken for a PIN's file", name)
		}
	}
}
