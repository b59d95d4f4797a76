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
// ends in time, and takes its mount with it. It does not wait for who does nothing.
func TestStopWhileInUse(t *testing.T) {
	t.Parallel()
	const soon = 2 * time.Second
	took := soon
	for range 8 { // on a busy machine all takes longer, but not each time
		if took = min(took, stopInUse(t)); took < soon {
			return
		}
	}
	t.Errorf("ending took %v each time", soon)
}

// stopInUse is how long it takes once.
func stopInUse(t *testing.T) time.Duration {
	t.Helper()
	d, term := ready(t, daemonConfig{})
	term.ok("echo 'ec:p256 label=ec' > $T/generate && cat $T/generate")
	term.ok("cd $O/ec.key && exec 3<>sign && echo hello >&3")
	begin := time.Now()
	d.stop()
	took := time.Since(begin)
	t.Logf("it took %v to end", took)
	if r := term.run("cat <&3"); r.status == 0 {
		t.Errorf("a handle outlives the daemon: %q", r.out)
	}
	term.ok("exec 3>&-; cd /")
	return took
}

// umount without a name ends one's own daemon at its usual place; the second time
// nothing, though others are mounted.
func TestUmountTwice(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	other := newDaemon(t, daemonConfig{})
	term.ok(fmt.Sprintf("export XDG_RUNTIME_DIR=%s XDG_DATA_HOME=%[1]s/data; mkdir $XDG_RUNTIME_DIR/p11; unset P11FS_MOUNT", other.dir))
	serving := term.start("setsid -w p11fs mount")
	eventually(t, "the mount at the usual place", func() bool { return len(mountsBelow(other.dir)) == 1 })
	term2 := d.terminal()
	term2.ok(fmt.Sprintf("export XDG_RUNTIME_DIR=%s; unset P11FS_MOUNT; p11fs umount", other.dir))
	if r := serving(); r.status != 0 {
		t.Errorf("the daemon ended with %d: %s", r.status, r.err)
	}
	if r := term2.run("p11fs umount"); r.status != 3 || !strings.Contains(r.err, "p11fs umount "+d.mnt) {
		t.Errorf("the second time it ended with %d: %s", r.status, r.err)
	}
	if len(mountsBelow(d.mnt)) != 1 {
		t.Error("the other daemon's mount is gone")
	}
}

// Root is told whose mount it is that not even root may enter.
func TestRootAtAUsersMount(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, daemonConfig{cred: anotherUser(t, "nobody")})
	term := d.terminalOf(nil)
	for _, line := range []string{"p11fs status", "p11fs login", "P11FS_MOUNT= p11fs path --mount " + d.mnt} {
		if r := term.run(line + " </dev/null"); r.status != 1 || !strings.Contains(r.err, "is nobody's alone: ") || !strings.Contains(r.err, "sudo -u nobody") {
			t.Errorf("%s ended with %d: %s", line, r.status, r.err)
		}
	}
	if r := term.run("p11fs doctor " + d.mnt); !strings.Contains(r.out, "closed to you") || strings.Contains(r.out, "umount") {
		t.Errorf("doctor says %s", r.out)
	}
}

// A command that waits for a daemon which hangs can be interrupted.
func TestInterruptedCommands(t *testing.T) {
	t.Parallel()
	d, term := ready(t, daemonConfig{})
	for _, line := range []string{"p11fs status", "p11fs login", "p11fs path swtok"} {
		if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// A thread that has not stopped yet would take the request, and nothing but its
		// answer ends a process that waits for that.
		eventually(t, "the daemon to stop", func() bool { return allStopped(d.pid()) })
		r := term.run("timeout --preserve-status -s INT -k 10 2 sh -c " + quote("exec "+line+" </dev/null"))
		if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if r.status != 130 || !strings.Contains(r.err, "interrupted") {
			t.Errorf("%s ended with %d: %s", line, r.status, r.err)
		}
	}
}

// allStopped reports whether SIGSTOP has come to each thread of a process.
func allStopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if _, state, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return len(threads) > 0
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

// Nobody waits at an open file for longer than there is a daemon, whichever way that ends.
func TestStopWhileSomebodyWaits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"SIGTERM", "umount --lazy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, term := ready(t, daemonConfig{})
			term.ok("echo 'aes:128 label=disk' > $T/generate && cat $T/generate")
			waiting := []func() result{
				d.terminal().start("exec 3<>$T/digest/sha256; cat <&3"),
				term.start("exec 3<>$O/disk.sec/encrypt:aes-ctr,counter=00000000000000000000000000000000; (head -c 10; exec sleep 30) <&3 >/dev/null & cat /dev/zero >&3; r=$?; kill $!; test $r = 0"),
			}
			time.Sleep(500 * time.Millisecond)
			begin := time.Now()
			if name != "SIGTERM" {
				d.terminal().ok("p11fs umount --lazy $P")
				d.ended()
			} else {
				d.stop()
			}
			for _, end := range waiting {
				if r := end(); r.status == 0 {
					t.Errorf("who waited ended well: %q", r.out)
				}
			}
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("ending took %v", took)
			}
		})
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
