package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SIGTERM while files are open and a shell stands in the tree: the daemon
// ends in time, and takes its mount with it.
func TestStopWhileInUse(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	term.ok("echo 'ec:p256 label=ec' > $T/generate && cat $T/generate")
	term.ok("cd $O/ec.key && exec 3<>sign && echo hello >&3")
	begin := time.Now()
	d.stop()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("ending took %v", took)
	}
	if r := term.run("cat <&3"); r.status == 0 {
		t.Errorf("a handle outlives the daemon: %q", r.out)
	}
	term.ok("exec 3>&-; cd /")
}

// A message that is being written when SIGTERM comes is no longer taken, but
// nothing hangs.
func TestStopDuringMessages(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	writing := term.start("cat /dev/zero > $T/digest/sha256")
	time.Sleep(200 * time.Millisecond)
	d.stop()
	if r := writing(); r.status == 0 {
		t.Error("writing without end ended well")
	}
}

// A mount point or a token directory that is in use is refused, and its daemon
// is not disturbed.
func TestSecondMount(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	other := newDaemon(t, daemonConfig{})
	for _, c := range []struct {
		name string
		env  []string
		mnt  string
		says string
	}{
		{"mount point", other.env(), d.mnt, d.mnt},
		{"tokens", d.env(), other.mnt, d.tokenRoot()},
		{"both", d.env(), d.mnt, "in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(d.c.binary, "mount", c.mnt)
			cmd.Env = append(os.Environ(), c.env...)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%v\n%s", err, out)
			}
			term.want("cat $T/login", "user\n")
			if m := mountsBelow(d.mnt); len(m) != 1 {
				t.Errorf("%d mounts on %s", len(m), d.mnt)
			}
			if m := mountsBelow(other.mnt); len(m) != 0 {
				t.Errorf("%d mounts on %s", len(m), other.mnt)
			}
		})
	}
}

// The daemon of an ordinary user keeps its memory from that user's other
// processes, and dumps no core.
func TestNotDumpable(t *testing.T) {
	t.Parallel()
	cred := anotherUser(t, "nobody")
	d := startDaemon(t, daemonConfig{cred: cred})
	term := d.terminal()
	for _, file := range []string{"mem", "maps", "environ"} {
		path := filepath.Join("/proc", fmt.Sprint(d.pid()), file)
		term.fails("head -c 1 "+path, syscall.EACCES)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(string(b)) {
		if strings.HasPrefix(line, "Max core file size") && !strings.Contains(line, " 0 ") {
			t.Errorf("it may dump core: %s", line)
		}
	}
}
