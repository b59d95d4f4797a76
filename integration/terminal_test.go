package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lineTimeout is how long one line at a terminal may take: far more than any
// should, so that what hangs ends as a failure that names the line.
const lineTimeout = 3 * time.Minute

// A terminal is a shell that leads a POSIX session, which is one application
// to p11fs. Lines typed at it run one after the other in that same shell, so
// that variables and descriptors last.
type terminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	done *bufio.Reader // the shell's own output: one exit status a line
	dir  string        // where the output of each line is collected
	n    int
	once sync.Once
}

// A result is what one line at a terminal did.
type result struct {
	out, err string
	status   int
}

// terminalConfig says what kind of shell a terminal runs.
type terminalConfig struct {
	shell []string // the command line of a shell that reads standard input; nil is sh
	cred  *syscall.Credential
	env   []string
	dir   string // working directory
}

// newTerminal starts a shell in a new session and ends it with the test.
func newTerminal(t testing.TB, c terminalConfig) *terminal {
	t.Helper()
	if c.shell == nil {
		c.shell = []string{"sh"}
	}
	out := workDir(t, "terminal")
	cmd := exec.Command(c.shell[0], c.shell[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.cred, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = c.dir
	if c.cred != nil {
		if err := os.Chown(out, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
		if cmd.Dir == "" {
			cmd.Dir = out
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	done, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := startPinned(cmd); err != nil {
		t.Fatalf("starting %q: %v", c.shell, err)
	}
	term := &terminal{t: t, cmd: cmd, in: in, done: bufio.NewReader(done), dir: out}
	t.Cleanup(term.close)
	return term
}

// run types one line (or several) and waits for it to end.
func (term *terminal) run(line string) result {
	term.t.Helper()
	return term.start(line)()
}

// start types one line and returns a function that waits for it to end.
func (term *terminal) start(line string) func() result {
	term.t.Helper()
	term.n++
	o := filepath.Join(term.dir, fmt.Sprintf("%d.out", term.n))
	e := filepath.Join(term.dir, fmt.Sprintf("%d.err", term.n))
	if _, err := fmt.Fprintf(term.in, "{ %s\n} </dev/null >%s 2>%s; echo $?\n", line, o, e); err != nil {
		term.t.Fatalf("terminal: %v", err)
	}
	return func() result {
		term.t.Helper()
		timer := time.AfterFunc(lineTimeout, func() {
			fmt.Fprintf(os.Stderr, "terminal: %q is not done after %v: killing its session\n", line, lineTimeout)
			term.killSession()
		})
		s, err := term.done.ReadString('\n')
		timer.Stop()
		out, _ := os.ReadFile(o)
		errs, _ := os.ReadFile(e)
		if err != nil {
			term.t.Fatalf("the terminal ended during %q: %v\n%s%s", line, err, out, errs)
		}
		status, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			term.t.Fatalf("terminal: %q answered %q", line, s)
		}
		return result{string(out), string(errs), status}
	}
}

// ok runs line, which must succeed, and returns what it wrote.
func (term *terminal) ok(line string) string {
	term.t.Helper()
	r := term.run(line)
	if r.status != 0 {
		term.t.Fatalf("%s\nended with status %d\n%s%s", line, r.status, r.out, r.err)
	}
	return r.out
}

// fails runs line, which must fail and say the text of errno.
func (term *terminal) fails(line string, errno syscall.Errno) {
	term.t.Helper()
	r := term.run(line)
	if r.status == 0 {
		term.t.Errorf("%s\nsucceeded, want %s\n%s%s", line, errnoName(errno), r.out, r.err)
	} else if !saysErrno(r.err, errno) {
		term.t.Errorf("%s\nsaid %q, want %s (%v)", line, r.err, errnoName(errno), errno)
	}
}

// saysErrno reports whether a program's complaint names errno: its text, or
// its name.
func saysErrno(complaint string, errno syscall.Errno) bool {
	c := strings.ToLower(complaint)
	return strings.Contains(c, strings.ToLower(errno.Error())) ||
		strings.Contains(c, strings.ToLower(errnoName(errno)))
}

// want runs line and compares what it wrote.
func (term *terminal) want(line, out string) {
	term.t.Helper()
	if got := term.ok(line); got != out {
		term.t.Errorf("%s\nwrote %q, want %q", line, got, out)
	}
}

// pid is the shell's process, which leads the session.
func (term *terminal) pid() int { return term.cmd.Process.Pid }

// close ends the shell and all that it left running in its session.
func (term *terminal) close() {
	term.once.Do(func() {
		_ = term.in.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, term.done)
		}()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		term.killSession()
		_ = term.cmd.Wait()
	})
}

// killSession kills every process whose session the shell leads.
func (term *terminal) killSession() {
	for _, pid := range processes() {
		if sid, err := unix.Getsid(pid); err == nil && sid == term.pid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// processes lists the process ids that /proc shows.
func processes() []int {
	names, _ := filepath.Glob("/proc/[0-9]*")
	pids := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// quote makes one word of s for every POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// lines splits text into its lines without their ends.
func lines(text string) []string {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// repeat returns n bytes that do not repeat with a short period.
func repeat(n int) []byte {
	b := bytes.Repeat([]byte{0}, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}
