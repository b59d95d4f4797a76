package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestModuleOverRestarts has a program sign through libp11fs.so in several
// threads for ten seconds, while the daemon is ended and started again every
// second, in order and by SIGKILL in turn. Each signature is verified, a lost
// session is all that a thread may notice, and all threads sign on.
func TestModuleOverRestarts(t *testing.T) {
	t.Parallel()
	const seconds, threads = 10, 4
	module := ownModule(t)
	check := filepath.Join(workDir(t, "check"), "check")
	sources, err := filepath.Glob("../cmd/libp11fs/testdata/*.c")
	if err != nil {
		t.Fatal(err)
	}
	needTools(t, "gcc")
	args := append([]string{"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-O1", "-pthread", "-o", check}, sources...)
	if out, err := exec.Command("gcc", append(args, "-ldl")...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	d := startDaemon(t, daemonConfig{})
	cmd := exec.Command(check, module, "restart", fmt.Sprint(seconds))
	cmd.Env = append(append(os.Environ(), d.env()...), "P11FS_SOCKET="+filepath.Join(d.dir, "p11fs", "rpc.sock"), "P11FS_TIMEOUT=60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := startPinned(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	hung := time.After(time.Duration(seconds)*time.Second + 90*time.Second)
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for restarts := 0; ; restarts++ {
		select {
		case err = <-ended:
			report := strings.TrimSpace(out.String())
			t.Logf("%d restarts: %s", restarts, report)
			var signatures, seen int
			if _, scan := fmt.Sscanf(report, "%d signatures, %d restarts", &signatures, &seen); err != nil || scan != nil {
				t.Fatalf("%v: %q", err, report)
			}
			// On a busy machine a thread may not run between two restarts.
			if restarts < seconds/2 || seen < threads*restarts*3/4 || signatures < 10*seen {
				t.Errorf("%d restarts, and the %d threads saw %d in all, with %d signatures", restarts, threads, seen, signatures)
			}
			d.stop()
			return
		case <-hung:
			_ = cmd.Process.Kill()
			t.Fatalf("the program did not end\n%s", out.String())
		case <-every.C:
		}
		if restarts%2 == 0 {
			d.stop()
		} else {
			d.kill()
		}
		d.start()
	}
}
