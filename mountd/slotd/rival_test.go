package slotd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/shm"
)

// program copies a program of this machine to a new directory, by another name.
func program(t *testing.T, which, name string) string {
	t.Helper()
	path, err := exec.LookPath(which)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return copied
}

// see lets the daemon see a process: others on this machine, such as those of
// tests that run at the same time, are none of its.
func (r *rig) see(t *testing.T, pid int) {
	t.Helper()
	n := strconv.Itoa(pid)
	if err := os.Symlink(filepath.Join("/proc", n), filepath.Join(r.conf.Proc, n)); err != nil {
		t.Fatal(err)
	}
}

// start starts a program that stays until the test ends.
func start(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(path, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c
}

func TestIsStock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pkcsslotd")
	for name, want := range map[string]bool{
		"pkcsslotd": true, "pkcsslotd.stock": true, "lt-pkcsslotd": true, "pkcsslotd-3.27.0-of-the-vendor": true,
		"sleep": false, "p11fs": false, "pkcsslot": false,
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, program(t, "sleep", name), "60").Process.Pid
			if got := IsStock("/proc", pid, file); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	t.Run("by a link of that name", func(t *testing.T) {
		// As p11fs is on most machines.
		link := filepath.Join(t.TempDir(), "pkcsslotd")
		if err := os.Symlink(program(t, "sleep", "p11fs"), link); err != nil {
			t.Fatal(err)
		}
		if IsStock("/proc", start(t, link, "60").Process.Pid, file) {
			t.Error("another program is taken for stock's")
		}
	})
	t.Run("by its process name alone", func(t *testing.T) {
		proc := t.TempDir()
		for pid, comm := range map[string]string{"77": "pkcsslotd\n", "78": "bash\n"} {
			if err := errors.Join(os.Mkdir(filepath.Join(proc, pid), 0o755), os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(comm), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if !IsStock(proc, 77, file) || IsStock(proc, 78, file) || IsStock(proc, 79, file) {
			t.Error("77 is stock, 78 and 79 are not")
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if IsStock(proc, 77, self) {
			t.Error("the pkcsslotd that clients stat is this program, and so is 77")
		}
	})
}

func TestBesideStock(t *testing.T) {
	r := newRig(t)
	stock := start(t, program(t, "sleep", "pkcsslotd"), "60")
	r.see(t, stock.Process.Pid)
	_, err := Open(context.Background(), r.conf)
	if !errors.Is(err, ErrRunning) {
		t.Fatalf("%v, want ErrRunning", err)
	}
	if _, err := os.Stat(r.conf.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
	t.Run("of another root directory", func(t *testing.T) {
		other := r.conf
		other.StockFile, other.StockSocket = "/usr/bin/env", "/nowhere/pkcsslotd.socket"
		if other.rival(stock.Process.Pid) {
			t.Error("it has another socket, and another key")
		}
		other.StockFile = r.conf.File
		if !other.rival(stock.Process.Pid) {
			t.Error("it has the same key")
		}
		other.StockFile, other.StockSocket = "/usr/bin/env", r.conf.Socket
		if !other.rival(stock.Process.Pid) {
			t.Error("it has the same socket")
		}
	})
	t.Run("known by the pid file alone", func(t *testing.T) {
		other := r.conf
		other.StockFile, other.StockSocket = "/usr/bin/env", "/nowhere/pkcsslotd.socket"
		if pid, ok := other.findRival(); ok {
			t.Errorf("process %d is none", pid)
		}
		for pid, want := range map[int]bool{stock.Process.Pid: true, os.Getpid(): false, 1: false} {
			if err := os.WriteFile(r.conf.PIDFile, []byte(strconv.Itoa(pid)), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, ok := other.findRival(); ok != want {
				t.Errorf("process %d: %v, want %v", pid, ok, want)
			}
		}
	})
	t.Run("that is about to end", func(t *testing.T) {
		time.AfterFunc(rivalWait/4, func() { _ = stock.Process.Kill() })
		r.open(t)
	})
}

// TestBesideOrdinary has a user run a program of stock's name: he is no rival, and
// his program and his root directory are not looked at.
func TestBesideOrdinary(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	r := newRig(t)
	name := program(t, "sleep", "pkcsslotd")
	for dir := filepath.Dir(name); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(name, "60")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	r.see(t, c.Process.Pid)
	if err := os.WriteFile(r.conf.PIDFile, []byte(strconv.Itoa(c.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if !IsStock("/proc", c.Process.Pid, r.conf.File) || r.conf.rival(c.Process.Pid) {
		t.Error("it has the name, and is no rival")
	}
	if pid, ok := r.conf.findRival(); ok {
		t.Errorf("process %d is none", pid)
	}
	r.open(t)
}

// TestLost takes away what clients find, a piece at a time.
func TestLost(t *testing.T) {
	segment := func(t *testing.T, d *Daemon) *shm.SlotManager {
		t.Helper()
		// As stock does: the old one goes, and the key has a new one.
		m, _, err := shm.CreateSlotManager(d.key, -1, func([]shm.Process) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		name string
		take func(t *testing.T, r *rig, d *Daemon)
		want string
		left bool // the thief's socket stays when we end
	}{
		{name: "socket", left: true, want: "somebody took away the socket;", take: func(t *testing.T, r *rig, d *Daemon) {
			if err := os.Remove(d.conf.Socket); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", d.conf.Socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}},
		{name: "segment", want: "somebody took away the shared memory;", take: func(t *testing.T, r *rig, d *Daemon) {
			m := segment(t, d)
			t.Cleanup(func() { _ = m.Remove(); _ = m.Detach() })
		}},
		{name: "file of the key", want: "is another file now", take: func(t *testing.T, r *rig, d *Daemon) {
			next := d.conf.File + ".new"
			if err := errors.Join(os.WriteFile(next, nil, 0o755), os.Rename(next, d.conf.File)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "all of it, by a stock daemon", want: "took the socket and the shared memory; stop it (systemctl stop pkcsslotd, or kill ", take: func(t *testing.T, r *rig, d *Daemon) {
			m := segment(t, d)
			t.Cleanup(func() { _ = m.Remove(); _ = m.Detach() })
			if err := os.Remove(d.conf.Socket); err != nil {
				t.Fatal(err)
			}
			r.see(t, start(t, program(t, "sleep", "pkcsslotd"), "60").Process.Pid)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			d := r.open(t)
			if err := d.Lost(); err != nil {
				t.Fatalf("before: %v", err)
			}
			c.take(t, r, d)
			if err := d.Lost(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := os.WriteFile(r.conf.PIDFile, []byte("1"), 0o644); err != nil { // a thief's
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(r.conf.PIDFile); err != nil {
				t.Errorf("the other's pid file: %v", err)
			}
			if _, err := os.Lstat(r.conf.Socket); (err == nil) != c.left {
				t.Errorf("the socket after our end: %v", err)
			}
		})
	}
}

// said is a log that can be read while it is written.
type said struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestUnrefusable is a daemon without the right to be asked, which root has.
func TestUnrefusable(t *testing.T) {
	withoutCapability(t, unix.CAP_SYS_ADMIN)
	if err := CanRefuse(); !errors.Is(err, ErrNoRefusal) {
		t.Errorf("%v, want ErrNoRefusal", err)
	}
	r := newRig(t)
	log := &said{}
	r.conf.Log = slog.New(slog.NewTextHandler(log, nil))
	d := r.open(t)
	if err := d.Unrefusable(); !errors.Is(err, ErrNoRefusal) {
		t.Errorf("%v, want ErrNoRefusal", err)
	}
	if n := strings.Count(log.String(), "cannot be refused"); n != 1 {
		t.Errorf("it says so %d times: %s", n, log)
	}
}

// TestRefusalWithoutDescriptors has the kernel ask while the daemon can open
// nothing.
func TestRefusalWithoutDescriptors(t *testing.T) {
	if err := CanRefuse(); err != nil {
		t.Skip(err)
	}
	r := newRig(t)
	// opens is a program that says, for each line that it is written, whether it
	// may open the configuration.
	opens := func(name string) (open func() string) {
		c := exec.Command(program(t, "sh", name), "-c", `while read -r _; do if read -r version <"$0"; then echo yes; else echo no; fi; done`, r.conf.StockConf)
		in, errIn := c.StdinPipe()
		out, errOut := c.StdoutPipe()
		if err := errors.Join(errIn, errOut, c.Start()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = c.Wait() })
		answers := bufio.NewScanner(out)
		if name == "pkcsslotd" {
			r.see(t, c.Process.Pid)
		}
		return func() string {
			if _, err := in.Write([]byte("\n")); err != nil || !answers.Scan() {
				t.Fatal(err, answers.Err())
			}
			return answers.Text()
		}
	}
	d := r.open(t)
	other, rival := opens("other"), opens("pkcsslotd")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	other()
	other()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got := other(); got != "yes" {
		t.Errorf("another program may open the configuration: %s", got)
	}
	if got := rival(); got != "no" {
		t.Errorf("a stock daemon may open the configuration: %s", got)
	}
	if err := d.refusal.mark(); err != nil {
		t.Error(err)
	}
}

// withoutCapability takes a capability from the test's thread, which ends with it.
func withoutCapability(t *testing.T, capability uint) {
	t.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

func TestRefusal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: fanotify asks for CAP_SYS_ADMIN")
	}
	if err := CanRefuse(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	log := &said{}
	r.conf.Log = slog.New(slog.NewTextHandler(log, nil))
	r.conf.Proc = "/proc"
	re, err := refuse(r.conf)
	if err != nil {
		t.Fatal(err)
	}
	conf, dir := r.conf.StockConf, filepath.Dir(r.conf.StockConf)
	stock, cat := program(t, "cat", "pkcsslotd"), program(t, "cat", "cat")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reads := func(program, path string, want bool) {
		t.Helper()
		out, err := exec.Command(program, path).CombinedOutput()
		switch {
		case want && err != nil:
			t.Errorf("%s cannot read %s: %v: %s", filepath.Base(program), path, err, out)
		case !want && (err == nil || !strings.Contains(string(out), unix.EPERM.Error()) && !strings.Contains(string(out), "Operation not permitted")):
			t.Errorf("%s reads %s: %v: %s", filepath.Base(program), path, err, out)
		}
	}
	reads(stock, conf, false)
	reads(cat, conf, true)
	if b, err := os.ReadFile(conf); err != nil || len(b) == 0 { // this process, which answers itself
		t.Errorf("%q, %v", b, err)
	}
	write(conf, "changed\n")
	reads(stock, conf, false)

	t.Run("another file", func(t *testing.T) {
		other := filepath.Join(dir, "ep11tok.conf")
		write(other, "APQN_ANY\n")
		reads(stock, other, true)
		pipe := filepath.Join(dir, "pipe")
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(pipe, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	})
	t.Run("replaced by an editor", func(t *testing.T) {
		write(conf+".new", "new\n")
		reads(stock, conf+".new", true)
		if err := errors.Join(os.Rename(conf, conf+"~"), os.Rename(conf+".new", conf)); err != nil {
			t.Fatal(err)
		}
		reads(stock, conf, false)
		reads(stock, conf+"~", true)
		reads(cat, conf, true)
	})
	t.Run("a link to elsewhere", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "slots")
		write(target, "there\n")
		if err := errors.Join(os.Remove(conf), os.Symlink(target, conf), re.mark()); err != nil {
			t.Fatal(err)
		}
		reads(stock, conf, false)
		reads(stock, target, false) // which is the same file
		reads(cat, conf, true)
	})
	t.Run("no directory for a while", func(t *testing.T) {
		if err := errors.Join(os.RemoveAll(dir), re.mark(), os.Mkdir(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		write(conf, "again\n")
		if err := re.mark(); err != nil {
			t.Fatal(err)
		}
		reads(stock, conf, false)
		reads(cat, conf, true)
	})
	t.Run("many at once", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					if _, err := os.ReadFile(conf); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	if err := re.close(); err != nil {
		t.Fatal(err)
	}
	reads(stock, conf, true)
	if !strings.Contains(log.String(), "a stock slot daemon was refused") || !strings.Contains(log.String(), "pid=") {
		t.Errorf("the log: %s", log)
	}
}

// TestRefusalGivesUp is a group that can no longer be read: it lets everybody go.
func TestRefusalGivesUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: fanotify asks for CAP_SYS_ADMIN")
	}
	r := newRig(t)
	re, err := refuse(r.conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := re.group.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	re.wg.Wait()
	if out, err := exec.Command(program(t, "cat", "pkcsslotd"), r.conf.StockConf).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := re.mark(); err == nil {
		t.Error("it does not tell that it has given up")
	}
	if err := re.close(); err != nil {
		t.Error(err)
	}
}
