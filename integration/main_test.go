package integration

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test run's own directory: bin holds the commands under test, and every
// mount, store and socket of the run is below it, so that what is left over
// can be told from what others do on the machine.
const runDirEnv = "P11FS_INTEGRATION_DIR"

// A program with the race detector waits for a second before it ends, unless told
// otherwise. The tests run hundreds of them.
const atOnce = "atexit_sleep_ms=0"

// atATime is how many tests run at once.
const atATime = 6

func runDir() string         { return os.Getenv(runDirEnv) }
func binary() string         { return filepath.Join(runDir(), "bin", "p11fs") }
func itself() string         { return filepath.Join(runDir(), "bin", "integration-test") }
func below(path string) bool { return path == runDir() || strings.HasPrefix(path, runDir()+"/") }

// TestMain builds the commands, runs the tests, and fails the run for
// whatever they left behind. The test binary itself, called as p11io, is the
// Go program that the scripts use, and called as itself is a part of a test that
// runs in a process of its own.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "p11io":
		os.Exit(p11io(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case filepath.Base(itself()):
		os.Exit(m.Run())
	}
	log.SetFlags(0)
	code, err := runAll(m)
	if err != nil {
		log.Print("integration: ", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "p11fs-it-")
	if err != nil {
		return 1, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return 1, err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	if err := os.Setenv(runDirEnv, dir); err != nil {
		return 1, err
	}
	if err := build(dir); err != nil {
		return 1, err
	}
	if err := os.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return 1, err
	}
	for name, value := range map[string]string{
		"LC_ALL": "C.UTF-8", // messages are compared, so all programs speak one language
		"GORACE": atOnce,
	} {
		if err := os.Setenv(name, value); err != nil {
			return 1, err
		}
	}
	// The tests mostly wait for other programs.
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(atATime)); err != nil {
		return 1, err
	}
	segments := sharedSegments()
	code = m.Run()
	if left := leftovers(segments); len(left) > 0 {
		return 1, fmt.Errorf("the tests left behind:\n%s", strings.Join(left, "\n"))
	}
	return code, nil
}

// build puts p11fs, p11io and this program into dir/bin, readable by every user.
func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	var flags []string
	if raceEnabled {
		flags = append([]string{"-race"}, strings.Fields(os.Getenv("P11FS_TEST_RACE"))...)
	}
	if err := goBuild(filepath.Join(bin, "p11fs"), flags...); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(itself(), b, 0o755); err != nil {
		return err
	}
	return os.Symlink(itself(), filepath.Join(bin, "p11io"))
}

func goBuild(out string, flags ...string) error {
	args := append([]string{"build", "-o", out}, flags...)
	cmd := exec.Command("go", append(args, "p11fs/cmd/p11fs")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

// plainBinary is p11fs without the race detector, for tests that measure it or
// start it hundreds of times, and for one client's long lists of calls, one after the
// other, of which the detector sees as much in the first twenty.
func plainBinary(t testing.TB) string {
	t.Helper()
	if !raceEnabled {
		return binary()
	}
	plain.once.Do(func() { plain.err = goBuild(filepath.Join(runDir(), "bin", "p11fs-plain")) })
	if plain.err != nil {
		t.Fatal(plain.err)
	}
	return filepath.Join(runDir(), "bin", "p11fs-plain")
}

var plain struct {
	once sync.Once
	err  error
}

// leftovers names each mount and process of this run that still is, and each
// new POSIX segment.
func leftovers(segmentsBefore []string) []string {
	var left []string
	deadline := time.Now().Add(5 * time.Second)
	for {
		left = left[:0]
		for _, m := range mountsBelow(runDir()) {
			left = append(left, "mount "+m)
		}
		for _, pid := range processes() {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && below(exe) && pid != os.Getpid() {
				left = append(left, fmt.Sprintf("process %d %s", pid, exe))
			}
		}
		for _, s := range sharedSegments() {
			if !slices.Contains(segmentsBefore, s) {
				left = append(left, "segment "+s)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, m := range mountsBelow(runDir()) {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
	return left
}

// sharedSegments lists the POSIX shared memory that could be p11fs's.
func sharedSegments() []string {
	names, _ := filepath.Glob("/dev/shm/*opencryptoki*")
	more, _ := filepath.Glob("/dev/shm/*p11fs*")
	return append(names, more...)
}

// mountsBelow lists the mount points at or below dir.
func mountsBelow(dir string) []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for _, line := range lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			found = append(found, f[4])
		}
	}
	return found
}

// workDir makes a directory that every user can reach, and removes it with
// the test. It is not t.TempDir: socket paths must stay short.
func workDir(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp(runDir(), name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountsBelow(dir) {
			t.Errorf("%s is still mounted", m)
			_ = syscall.Unmount(m, syscall.MNT_DETACH)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the test's directory: %v", err)
		}
	})
	return dir
}

// startPinned starts cmd from a goroutine whose thread lives as long as the
// process: Pdeathsig is about the thread, not the process.
func startPinned(cmd *exec.Cmd) error {
	starter.once.Do(func() {
		starter.work = make(chan func())
		go func() {
			runtime.LockOSThread()
			for f := range starter.work {
				f()
			}
		}()
	})
	done := make(chan error)
	starter.work <- func() { done <- cmd.Start() }
	return <-done
}

// need skips a test for want of a tool or of root. The test runner fails a run
// in CI for a skip that is not on its list.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if !ok {
		t.Skip("needs " + what)
	}
}

// needTools is need for programs. Each must be one that any Debian machine with
// a compiler has, or stand in contrib/packages.txt: who installed it by hand
// would not notice that make test does not.
func needTools(t testing.TB, tools ...string) {
	t.Helper()
	packages, err := os.ReadFile(filepath.Join("..", "contrib", "packages.txt"))
	if err != nil {
		t.Fatal(err)
	}
	everywhere := strings.Fields("du find flock gcc go grep ipcrm ipcs make mount setpriv sh tar umount")
	for _, tool := range tools {
		if !slices.Contains(everywhere, tool) && !strings.Contains(string(packages), "/"+tool+"\n") {
			t.Errorf("contrib/packages.txt does not say which package brings %s", tool)
		}
		_, err := exec.LookPath(tool)
		need(t, err == nil, tool)
	}
}

// needRoot is need for tests that change users or namespaces.
func needRoot(t testing.TB) {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
}

// starter is the thread that starts the children of the whole test process.
var starter struct {
	once sync.Once
	work chan func()
}
