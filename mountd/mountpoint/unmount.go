package mountpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Detach takes the mount on path out of the tree at once, whoever uses it
// (umount -l).
func Detach(ctx context.Context, path string) error {
	return unmount(ctx, path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW, "-u", "-z")
}

// Unmount takes the mount on path away, and fails with EBUSY while something
// in it is in use.
func Unmount(ctx context.Context, path string) error {
	return unmount(ctx, path, unix.UMOUNT_NOFOLLOW, "-u")
}

// unmount asks the kernel, and where that is not permitted, fuse's own helper.
func unmount(ctx context.Context, path string, flags int, args ...string) error {
	err := unix.Unmount(path, flags)
	if !errors.Is(err, unix.EPERM) {
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
		return nil
	}
	helper, err := Helper()
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	// The helper goes into the parent directory, not into the mount, but it
	// must not be told a relative path by a name that starts with a dash.
	cmd := exec.CommandContext(ctx, helper, append(args, "--", path)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(bytes.ToValidUTF8(out, []byte("?"))))
	if strings.Contains(said, "busy") {
		return fmt.Errorf("unmounting %s: %w", path, unix.EBUSY)
	}
	return fmt.Errorf("unmounting %s: %w: %s", path, err, said)
}

// Helper finds the program that mounts and unmounts FUSE file systems for
// ordinary users.
func Helper() (string, error) {
	for _, name := range [...]string{"fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		// An ordinary user's PATH need not have them.
		for _, dir := range [...]string{"/usr/bin", "/bin", "/usr/sbin"} {
			path := filepath.Join(dir, name)
			if unix.Access(path, unix.X_OK) == nil {
				return path, nil
			}
		}
	}
	return "", errors.New("fusermount3 is not installed (apt-get install fuse3)")
}
