package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestModuleOverRestarts has a program sign through libp11fs.so in several
// threads, while the daemon is ended and started again, in order and by SIGKILL
// in turn, each time once all threads sign. Each signature is verified, a lost
// session is all that a thread may notice, and all threads sign on.
func TestModuleOverRestarts(t *testing.T) {
	t.Parallel()
	const restarts, threads = 8, 4
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
	cmd := exec.Command(check, module, "restart")
	cmd.Env = append(append(os.Environ(), d.env()...), "P11FS_SOCKET="+filepath.Join(d.dir, "p11fs", "rpc.sock"), "P11FS_TIMEOUT=60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startPinned(cmd); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	lines := bufio.NewScanner(out)
	sessions := make([]int, threads) // that have signed, of each thread
	for done := 0; ; done++ {
		for slices.Min(sessions) <= done {
			if !lines.Scan() {
				t.Fatalf("after %d restarts the threads have signed in %v sessions: %v\n%s", done, sessions, cmd.Wait(), said.String())
			}
			n, err := strconv.Atoi(lines.Text())
			if err != nil || n < 0 || n >= threads {
				t.Fatalf("it says %q", lines.Text())
			}
			sessions[n]++
		}
		if done == restarts {
			break
		}
		if done%2 == 0 {
			d.stop()
		} else {
			d.kill()
		}
		d.start()
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
	report := ""
	for lines.Scan() {
		report = lines.Text()
	}
	err = cmd.Wait()
	t.Log(report)
	var signatures, seen int
	if _, scan := fmt.Sscanf(report, "%d signatures, %d restarts", &signatures, &seen); err != nil || scan != nil || seen < threads*restarts {
		t.Errorf("%v, %v: %q\n%s", err, scan, report, said.String())
	}
	d.stop()
}
