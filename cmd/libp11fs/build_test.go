package libp11fs

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// A build is the module and the test program, both compiled in one way.
type build struct{ module, check string }

// addressSanitizer has the compiler's checks on memory and undefined behaviour.
const addressSanitizer = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined"

// builds are those of this run, by their flags, and the folder that they are in: the
// compiler takes longer than most tests.
var builds struct {
	dir string

	mu   sync.Mutex // guards made, and is held while one is made
	made map[string]build
}

func TestMain(m *testing.M) {
	log.SetFlags(0)
	code, err := runIn(m)
	if err != nil {
		log.Fatal("libp11fs: ", err)
	}
	os.Exit(code)
}

// runIn runs the tests with a folder for builds, which other users can reach.
func runIn(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "libp11fs-")
	if err != nil {
		return 1, err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil {
			err = rerr
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	builds.dir, builds.made = dir, map[string]build{}
	return m.Run(), nil
}

// compile builds both, unless a test before has, with more flags for the compiler: none
// are the flags that users get.
func compile(t testing.TB, flags string) build {
	t.Helper()
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if b, ok := builds.made[flags]; ok {
		return b
	}
	dir := filepath.Join(builds.dir, fmt.Sprint(len(builds.made)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := build{module: filepath.Join(dir, "libp11fs.so"), check: filepath.Join(dir, "check")}
	make := exec.Command("make", "-s", "-f", "cmd/libp11fs/build.mk", "libp11fs", "LIBP11FS="+b.module)
	make.Dir = filepath.Join("..", "..")
	// The go command keeps results of tests: it must see what these depend on.
	for _, pattern := range []string{"src/*", "testdata/*", "build.mk"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if _, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	sources, err := filepath.Glob("testdata/*.c")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", "-o", b.check}, sources...)
	if flags != "" {
		make.Args = append(make.Args, "LIBP11FS_CFLAGS="+flags)
		args = append(args, splitFlags(flags)...)
	}
	args = append(args, "-ldl")
	for _, c := range []*exec.Cmd{make, exec.Command("cc", args...)} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.Args, err, out)
		}
	}
	builds.made[flags] = b
	return b
}

// need skips a test whose program is not installed.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip(err)
	}
	return path
}

// testExports: the module gives the program that loads it the functions of
// PKCS#11 and no other name.
func testExports(t *testing.T, b build) {
	out, err := exec.Command("nm", "-D", "--defined-only", "-P", b.module).Output()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, line := range splitLines(string(out)) {
		name := splitFlags(line)[0]
		if len(name) < 2 || name[:2] != "C_" {
			t.Errorf("%s is exported", name)
		}
		names[name] = true
	}
	if len(names) != 68+24+12 {
		t.Errorf("%d functions, want %d", len(names), 68+24+12)
	}
}

// testInterposed: another module whose functions come first under the same
// names does not get into this one's function lists.
func testInterposed(t *testing.T, b build) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.so")
	source := filepath.Join(dir, "other.c")
	if err := os.WriteFile(source, []byte("unsigned long C_Initialize(void *a) { (void)a; return 0x77; }\nunsigned long C_GetInfo(void *a) { (void)a; return 0x77; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", other, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := serve(t)
	c := d.command(b, "interfaces")
	c.Env = append(c.Env, "LD_PRELOAD="+other)
	run(t, c)
}

// testHeader compares the layout of every struct with another header of the
// standard, where one is installed.
func testHeader(t *testing.T, b build) {
	const installed = "/usr/include/p11-kit-1/p11-kit/pkcs11.h"
	if _, err := os.Stat(installed); err != nil {
		t.Skip(err)
	}
	dir := filepath.Dir(b.check)
	var prints []string
	for i, header := range []string{"../src/pkcs11.h", installed} {
		program := filepath.Join(dir, []string{"ours", "theirs"}[i])
		abs, err := filepath.Abs(filepath.Join("testdata", header))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.IsAbs(header) {
			abs = header
		}
		args := []string{"-std=c11", "-D_GNU_SOURCE", "-I/usr/include/p11-kit-1", "-include", abs, "-x", "c", "-o", program, "testdata/layout.txt"}
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := exec.Command(program).Output()
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, string(out))
	}
	if prints[0] != prints[1] {
		t.Errorf("ours:\n%s\ntheirs:\n%s", prints[0], prints[1])
	}
}
