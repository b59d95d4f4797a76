package mountd

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/mountd/mountpoint"
)

// TestMountCopiedByANamespace: a service or container that was started with a
// mount namespace of its own has a copy of the mount, and keeps no daemon from
// ending, whoever takes the mount away.
func TestMountCopiedByANamespace(t *testing.T) {
	needFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root: a user's namespace follows what is unmounted")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	tests := []struct {
		name string
		end  func(stop func(), mount string) error
	}{
		{"the daemon is told to end", func(stop func(), _ string) error { stop(); return nil }},
		{"umount", func(_ func(), mount string) error { return mountpoint.Unmount(t.Context(), mount) }},
		{"umount, and another mount in its place", func(_ func(), mount string) error {
			if err := mountpoint.Unmount(t.Context(), mount); err != nil {
				return err
			}
			return unix.Mount("other", mount, "tmpfs", 0, "")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := userConfig(tempDir(t))
			d, err := New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() {
				d.wait(ctx)
				ended <- d.Close()
			}()
			guest := exec.Command(unshare, "--mount", "--propagation", "private", "sh", "-c", "echo in; exec sleep 60")
			out, err := guest.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := guest.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = guest.Process.Kill()
				_ = guest.Wait()
			}()
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(stop, c.Paths.Mount); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(8 * time.Second):
				t.Error("the daemon waits for another namespace")
				_ = guest.Process.Kill()
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
			if err := unix.Unmount(c.Paths.Mount, 0); (err == nil) != strings.HasSuffix(tt.name, "place") {
				t.Errorf("what is left at the mount's place: unmounting it gives %v", err)
			}
		})
	}
}
