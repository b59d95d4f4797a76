package locks

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenOwn: a file that others may have put into a directory is not opened for one of
// its owner, whatever it is.
func TestOpenOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chmod := func(name string, mode fs.FileMode) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	opens := func(name string, want bool) {
		t.Helper()
		f, err := OpenOwn(dir, name)
		if (err == nil) != want {
			t.Errorf("%s is opened: %v", name, err)
		}
		if err == nil {
			_ = f.Close()
		}
	}
	for _, mode := range []fs.FileMode{0o770, 0o775, 0o700} {
		chmod(".", mode)
		chmod("a", 0o640)
		opens("a", true)
		chmod("a", 0o660)
		opens("a", mode == 0o700) // which nobody else reaches
		opens("fifo", false)
	}
	if os.Geteuid() == 0 {
		chmod(".", 0o770)
		chmod("a", 0o600)
		if err := os.Chown(filepath.Join(dir, "a"), 65534, -1); err != nil {
			t.Fatal(err)
		}
		opens("a", false)
	}
	if _, err := OpenOwn(dir, "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there gives %v", err)
	}
}
