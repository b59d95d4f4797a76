package slotd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IsStock reports whether process pid is openCryptoki's slot daemon. Its program has
// pkcsslotd in its name, wherever a package or an administrator put it
// (pkcsslotd.stock), and is another than this one, which may have that name too. If
// the program may not be looked at, the name of the process counts, and file, the
// pkcsslotd that clients stat.
func IsStock(proc string, pid int, file string) bool {
	program := filepath.Join(proc, strconv.Itoa(pid), "exe")
	name, err := os.Readlink(program)
	if err != nil {
		// One that has ended, and whose parent has not waited for it, has no
		// program any more.
		if b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat")); err == nil && bytes.Contains(b, []byte(") Z ")) {
			return false
		}
		b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
		if err != nil {
			return false
		}
		name, program = strings.TrimSpace(string(b)), file
	}
	return strings.Contains(filepath.Base(name), "pkcsslotd") && !sameFile(program, "/proc/self/exe")
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// rival reports whether process pid is a stock slot daemon that serves where we do, or
// is about to: with the same directory for its socket, or the same key for its segment
// in the same IPC namespace. The daemon of another container or root directory is
// none. What cannot be found out counts as no.
func (c Config) rival(pid int) bool {
	if c.ordinary(pid) || !IsStock(c.Proc, pid, c.File) {
		return false
	}
	if c.sees(pid, filepath.Dir(c.StockSocket), filepath.Dir(c.Socket)) {
		return true
	}
	ours, err := os.Readlink("/proc/self/ns/ipc")
	theirs, errTheirs := os.Readlink(filepath.Join(c.Proc, strconv.Itoa(pid), "ns", "ipc"))
	return err == nil && errTheirs == nil && ours == theirs && c.sees(pid, c.StockFile, c.File)
}

// ordinary reports whether process pid is an ordinary user's, who cannot start a slot
// daemon, not even as root of a user namespace. Nothing of such a process is looked
// at: its program and root directory may lie in a file system that the user serves,
// and whose answer may never come.
func (c Config) ordinary(pid int) bool {
	b, err := os.ReadFile(filepath.Join(c.Proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return false // it has ended
	}
	_, ids, _ := strings.Cut(string(b), "\nUid:")
	ids, _, _ = strings.Cut(ids, "\n")
	if ids := strings.Fields(ids); len(ids) >= 2 { // the real, the effective
		uid, err := strconv.Atoi(ids[1])
		return err == nil && uid != 0 && uid != os.Geteuid()
	}
	return false
}

// sees reports whether path, as process pid sees it, is the same file as own here.
// Links on the way stay below the process's root directory. Files are opened with
// O_PATH only, about which no fanotify group is asked.
func (c Config) sees(pid int, path, own string) bool {
	root, err := unix.Open(filepath.Join(c.Proc, strconv.Itoa(pid), "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return sameFile(fmt.Sprintf("/proc/self/fd/%d", fd), own)
}

// findRival looks for a rival among all processes. The one that our pid file names
// is one also where it cannot be looked into, for want of CAP_SYS_PTRACE.
func (c Config) findRival() (pid int, ok bool) {
	if b, err := os.ReadFile(c.PIDFile); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && !c.ordinary(pid) && IsStock(c.Proc, pid, c.File) {
			return pid, true
		}
	}
	dir, err := os.Open(c.Proc)
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read before an error counts
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && c.rival(pid) {
			return pid, true
		}
	}
	return 0, false
}
