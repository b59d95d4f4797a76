// Package shmtest says what tests of shared segments need of the machine.
package shmtest

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NeedFaultAddress skips the test where the signal for a page behind a file's end
// does not tell the page: a segment knows by the address that it was cut. Under
// qemu-user it does not, where the machine's byte order is not the host's.
func NeedFaultAddress(t testing.TB) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	if at, want := faultAddress(page), uintptr(unsafe.Pointer(&page[0])); at != want {
		t.Skipf("the address of a fault is told as %#x, and is %#x", at, want)
	}
}

// faultAddress is where reading page fails, as the signal tells it.
func faultAddress(page []byte) (at uintptr) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault, ok := recover().(interface{ Addr() uintptr }); ok {
			at = fault.Addr()
		}
	}()
	_ = load(page)
	return 0
}

//go:noinline
func load(page []byte) byte { return page[0] }
