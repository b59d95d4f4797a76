package mountd

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"
)

// capIPCLock is CAP_IPC_LOCK (capabilities(7)).
const capIPCLock = 14

// Harden makes the process fit to hold keys: no core dumps, not dumpable (so
// that only root may trace it or read its memory), memory kept out of swap
// where that is permitted, and files closed to others unless made otherwise. It
// changes the whole process, so the program calls it, once, before it touches a
// secret.
func Harden(mode Mode, log *slog.Logger) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if mode == System {
		unix.Umask(0o007) // group pkcs11 shares the token directories
	} else {
		unix.Umask(0o077)
	}
	var reason any = "RLIMIT_MEMLOCK"
	if mayLockAll() {
		// ONFAULT: the Go heap reserves far more than it uses.
		reason = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if reason != nil {
		log.Debug("memory as a whole is not locked; PINs and master keys are on their own", "reason", reason)
	}
	return nil
}

// mayLockAll reports whether the process may lock memory without limit. With a
// limit, mlockall would make later allocations fail.
func mayLockAll() bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur == unix.RLIM_INFINITY {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<capIPCLock) != 0
}
