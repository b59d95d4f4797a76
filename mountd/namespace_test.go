package mountd

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMountCopiedByANamespace: a service or container that was started with a
// mount namespace of its own has a copy of the mount, and keeps no daemon from
// ending.
func TestMountCopiedByANamespace(t *testing.T) {
	needFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root: a user's namespace follows what is unmounted")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	d, err := New(t.Context(), userConfig(tempDir(t)))
	if err != nil {
		t.Fatal(err)
	}
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
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(8 * time.Second):
		t.Error("the daemon waits for another namespace")
		_ = guest.Process.Kill()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
}
