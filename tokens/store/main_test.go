package store

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain puts the tests' directories into memory: the tests inject the faults
// of a disk themselves and need not wait for one. P11FS_TEST_DISK names a
// directory on a real disk to run them in instead.
func TestMain(m *testing.M) {
	if os.Getenv(rewriterEnv) != "" {
		fmt.Println("it failed:", rewriteUntilKilled(os.Args[1], os.Args[2]))
		os.Exit(1)
	}
	if os.Getenv(counterEnv) != "" {
		fmt.Println("it failed:", countUntilKilled(os.Args[1]))
		os.Exit(1)
	}
	if dir := os.Getenv("P11FS_TEST_DISK"); dir != "" {
		os.Setenv("TMPDIR", dir)
	} else if !inMemory(os.TempDir()) && inMemory("/dev/shm") {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// inMemory reports whether dir is in memory and has room for all the tests' files.
func inMemory(dir string) bool {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	return err == nil && int64(fs.Type) == unix.TMPFS_MAGIC && fs.Bavail*uint64(fs.Bsize) >= 1<<30
}
