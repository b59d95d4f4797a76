package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockHoldersAreReadOnce: however many wait for one lock, the kernel's list of all locks is
// read once for them.
func TestLockHoldersAreReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	h := lockHolders{}
	if pid := h.of(path); pid != os.Getpid() {
		t.Fatalf("process %d has the lock, want %d", pid, os.Getpid())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if pid := h.of(path); pid != os.Getpid() {
		t.Errorf("it was looked up again: %d", pid)
	}
	if pid := (lockHolders{}).of(path); pid != 0 {
		t.Errorf("process %d has the lock, which is free", pid)
	}
}
