package fs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/tokens/tokentest/hooks"
)

// daemonEnv makes the test binary a daemon that mounts a tree on the directory
// of that name: a process that reads its own mount can wait for itself forever.
const daemonEnv = "P11FS_TEST_MOUNT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(daemonEnv); dir != "" {
		run := serve
		if os.Getenv("P11FS_TEST_EMPTY") != "" {
			run = serveEmpty
		}
		if os.Getenv("P11FS_TEST_STUCK") != "" {
			run = serveStuck
		}
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Tests that are callers themselves need a session whose leader lives, and a service
	// that runs them may have none.
	if sid, err := unix.Getsid(0); err != nil || sid == 0 || unix.Kill(sid, 0) == unix.ESRCH {
		if _, err := unix.Setsid(); err != nil {
			fmt.Fprintln(os.Stderr, "a session of one's own:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// The PINs of the token.
const (
	userPIN = hooks.UserPIN
	soPIN   = hooks.SOPIN
)

// newTree returns a tree over one token in memory.
func newTree(c Config, system processes, token *hooks.Token) (*FS, *engine.Engine, error) {
	e, err := engine.New(engine.Config{Log: c.Log, Processors: 2, Slots: []engine.SlotConfig{{ID: 1, Description: "a test slot", Token: token}}})
	if err != nil {
		return nil, nil, err
	}
	c.Engine = e
	f, err := newFS(c, system)
	return f, e, err
}

// serve mounts a tree until standard input ends.
func serve(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	resources := func() string { return "running\n" }
	status := func(bool) string { return resources() }
	var asked atomic.Int64
	metrics := func(bool) string { // as long as it happens
		n := asked.Add(1)
		return "running\n" + strings.Repeat("0\n", int(n*n%7))
	}
	f, e, err := newTree(Config{Log: log, Status: status, Resources: resources, Metrics: metrics, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())},
		systemProcesses(), hooks.New("tok", hooks.Options{Before: func(method string) error {
			if method == "SeedRandom" && os.Getenv("P11FS_TEST_PANIC") != "" {
				panic("as the test wants it")
			}
			if method == "GenerateKeyPair" && os.Getenv("P11FS_TEST_SLOW") != "" {
				time.Sleep(300 * time.Millisecond)
			}
			return nil
		}}))
	if err != nil {
		return err
	}
	s, err := f.Mount(context.Background(), dir, Options{AllowOther: os.Getuid() == 0})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	// The kernel tells of a close(2) when it has returned, and no more once the mount is gone.
	for range 200 {
		if f.Stats().Handles == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := detach(dir); err != nil {
		return err
	}
	// A mount namespace that another test made meanwhile has a copy of the mount, and then
	// nothing says that it has ended: it is enough that nobody has a file open for a second.
	for idle := 0; idle < 20; idle++ {
		select {
		case <-s.Done():
			idle = 20
		case <-time.After(50 * time.Millisecond):
			if f.Stats().Handles > 0 {
				idle = 0
			}
		}
	}
	stats := f.Stats()
	if err := f.Close(); err != nil {
		return err
	}
	left := e.Stats()
	fmt.Printf("handles=%d panics=%d sessions=%d operations=%d applications=%d\n", stats.Handles, stats.Panics, left.Sessions, left.Operations, left.Applications)
	return e.Close()
}

// detach takes a mount away, as umount -l does.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	return exec.Command("fusermount3", "-u", "-z", "--", dir).Run()
}

// mounted is a tree that another process serves.
type mounted struct {
	t    testing.TB
	dir  string
	last func() string // ends the daemon, and returns what it counted
}

// mount starts a daemon. It ends with the test, and must leave nothing.
func mount(t testing.TB, env ...string) *mounted {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	dir := filepath.Join(t.TempDir(), "m")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), daemonEnv+"="+dir), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	log, err := os.Create(filepath.Join(filepath.Dir(dir), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	m := &mounted{t: t, dir: dir}
	ended, counts := false, ""
	m.last = func() string {
		if ended {
			return counts
		}
		ended = true
		_ = in.Close()
		timer := time.AfterFunc(20*time.Second, func() {
			_ = cmd.Process.Signal(syscall.SIGQUIT) // it writes what it waits for
			_ = detach(dir)
		})
		defer timer.Stop()
		for lines.Scan() {
			counts = lines.Text()
		}
		if err := cmd.Wait(); err != nil {
			b, _ := os.ReadFile(log.Name())
			t.Errorf("the daemon ended with %v\n%s", err, b)
		}
		_ = log.Close()
		return counts
	}
	if !lines.Scan() || lines.Text() != "ready" {
		_ = in.Close()
		_ = cmd.Wait()
		b, _ := os.ReadFile(log.Name())
		t.Fatalf("the daemon did not start: %s", b)
	}
	t.Cleanup(func() {
		want := "handles=0 panics=0 sessions=0 operations=0 applications=0"
		if got := m.last(); got != want && !strings.Contains(strings.Join(env, " "), "PANIC") {
			t.Errorf("the daemon left %s, want %s", got, want)
		}
		if b, _ := os.ReadFile(log.Name()); t.Failed() && len(b) > 0 {
			t.Logf("the daemon wrote:\n%s", b)
		}
		if m, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(m), dir) {
			t.Errorf("%s is still mounted", dir)
		}
	})
	return m
}

// terminal is a shell in a POSIX session of its own.
type terminal struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string
	n   int
}

func (m *mounted) terminal(shell ...string) *terminal {
	m.t.Helper()
	if shell == nil {
		shell = []string{"sh"}
	}
	dir := m.t.TempDir()
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "P="+m.dir, "T="+m.dir+"/tok", "O="+m.dir+"/tok/objects", "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	term := &terminal{t: m.t, cmd: cmd, in: in, out: bufio.NewReader(out), dir: dir}
	m.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return term
}

// run runs one line, and returns its standard output, its complaints and its
// status.
func (term *terminal) run(line string) (out, complaint string, status int) {
	term.t.Helper()
	term.n++
	o, e := filepath.Join(term.dir, fmt.Sprintf("%d.o", term.n)), filepath.Join(term.dir, fmt.Sprintf("%d.e", term.n))
	fmt.Fprintf(term.in, "{ %s\n} >%s 2>%s </dev/null; echo $?\n", line, o, e)
	timer := time.AfterFunc(60*time.Second, func() { _ = term.cmd.Process.Kill() })
	defer timer.Stop()
	s, err := term.out.ReadString('\n')
	if err != nil {
		term.t.Fatalf("the shell ended in %q", line)
	}
	if _, err := fmt.Sscan(s, &status); err != nil {
		term.t.Fatalf("%q: %v", s, err)
	}
	ob, _ := os.ReadFile(o)
	eb, _ := os.ReadFile(e)
	return string(ob), string(eb), status
}

// ok runs a line that must succeed.
func (term *terminal) ok(line string) string {
	term.t.Helper()
	out, complaint, status := term.run(line)
	if status != 0 {
		e, _, _ := term.run("cat $T/error")
		term.t.Fatalf("%s\nended with status %d: %s%serror: %s", line, status, out, complaint, e)
	}
	return out
}

// fails runs a line that must fail with the text of errno.
func (term *terminal) fails(line string, errno syscall.Errno) {
	term.t.Helper()
	out, complaint, status := term.run(line)
	if status == 0 || !strings.Contains(strings.ToLower(complaint), strings.ToLower(errno.Error())) {
		term.t.Errorf("%s\nended with status %d and %q%q, want %q", line, status, out, complaint, errno.Error())
	}
}

// want runs a line and compares what it writes.
func (term *terminal) want(line, want string) {
	term.t.Helper()
	if got := term.ok(line); got != want {
		term.t.Errorf("%s\nwrote %q, want %q", line, got, want)
	}
}

// login logs the user in.
func (term *terminal) login() {
	term.t.Helper()
	term.ok("echo " + userPIN + " > $T/login")
}
