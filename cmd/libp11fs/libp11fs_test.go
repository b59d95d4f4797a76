package libp11fs

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cases are those of the test program that need a daemon and nothing else; its
// C files say what each holds the module to.
var cases = []string{
	"functions", "not-initialized", "arguments", "buffers", "mechanisms", "attributes", "deferred", "interfaces",
	"initialize", "fork", "threads", "shared", "events", "cancel", "oversized", "dlclose",
	"descriptors", "unloaded", "standard", "closed", "destroyed", "foreign", "unset",
}

// TestModule tests the module as users get it, compiled once.
func TestModule(t *testing.T) {
	t.Parallel()
	b := compile(t, "")
	for name, test := range map[string]func(*testing.T, build){
		"exports": testExports, "interposed": testInterposed, "header": testHeader,
		"cases": testCases, "socket": testSocket, "killed": testKilled, "tools": testTools, "absent": testAbsent, "restart": testRestart, "race": testRace, "differ": testDiffer, "once": testOnce, "states": testStates, "valgrind": testValgrind,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

func testCases(t *testing.T, b build) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			run(t, serve(t).command(b, name))
		})
	}
}

func testAbsent(t *testing.T, b build) {
	for name, socket := range map[string]string{
		"no socket": t.TempDir() + "/s",
		"long path": "/" + strings.Repeat("x", 200),
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(b.check, b.module, "absent")
			c.Env = environment(socket)
			run(t, c)
		})
	}
}

// testOnce: an Init and its one-part operation are one request, but for the
// first of a kind.
func testOnce(t *testing.T, b build) {
	d := serve(t)
	run(t, d.command(b, "once"))
	// C_Initialize to C_GenerateKeyPair, the first C_SignInit, C_Finalize.
	const others = 7
	if n := d.server.Stats().Calls; n != 100+others {
		t.Errorf("%d calls for 100 signatures, want %d", n, 100+others)
	}
}

// kitClient is the path of p11-kit's client module.
func kitClient() (path string, ok bool) {
	// The pattern is right, so there is no error.
	found, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	if len(found) == 0 {
		return "", false
	}
	return found[0], true
}

// testDiffer makes the same calls at random through the module and through one
// that puts no Init off. What the program sees must be the same.
func testDiffer(t *testing.T, b build) {
	other, ok := kitClient()
	if !ok {
		t.Skip("p11-kit's client module is not installed")
	}
	for seed := range 8 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := serve(t)
			c := d.command(b, "differ", fmt.Sprint(seed), other)
			c.Env = append(c.Env, "P11_KIT_SERVER_ADDRESS=unix:path="+d.socket)
			run(t, c)
		})
	}
}

// testRestart restarts the daemon again and again under threads that sign.
func testRestart(t *testing.T, b build) { restart(t, b, 6) }

// testRace has threads use a key while others change what they can.
func testRace(t *testing.T, b build) { race(t, b, 3) }

func race(t *testing.T, b build, seconds int) {
	out := run(t, serve(t).command(b, "race", fmt.Sprint(seconds)))
	t.Log(strings.TrimSpace(out))
	var uses, changes int
	if _, err := fmt.Sscanf(out, "%d uses, %d changes", &uses, &changes); err != nil || uses < 100 || changes < 100 {
		t.Errorf("%q, %v", out, err)
	}
}

func restart(t *testing.T, b build, times int) {
	d := serve(t)
	c := d.command(b, "restart")
	end, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for range times {
			time.Sleep(500 * time.Millisecond)
			d.stop()
			time.Sleep(100 * time.Millisecond)
			d.start()
		}
		if err := end.Close(); err != nil {
			t.Error(err)
		}
	}()
	out := strings.TrimSpace(run(t, c))
	<-stopped
	out = out[strings.LastIndexByte(out, '\n')+1:]
	t.Log(out)
	var signatures, restarts int
	if _, err := fmt.Sscanf(out, "%d signatures, %d restarts", &signatures, &restarts); err != nil || signatures < 100 || restarts < times {
		t.Errorf("%q, %v", out, err)
	}
}

// TestSanitizers runs the cases with the compiler's checks on memory, undefined
// behaviour and races.
func TestSanitizers(t *testing.T) {
	t.Parallel()
	sanitizers := map[string]string{"address": addressSanitizer}
	if !testing.Short() { // one is enough there
		sanitizers["thread"] = "-O1 -g -fsanitize=thread"
	}
	for name, flags := range sanitizers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := compile(t, flags)
			for _, c := range cases {
				switch {
				case name == "thread" && c == "fork":
					continue // the sanitizer itself does not hold after a fork with threads
				case name == "thread" && (c == "dlclose" || c == "unloaded"):
					continue // nor when what it watches is unloaded
				case name == "thread" && c == "closed":
					continue // where the program's close is the race
				}
				t.Run(c, func(t *testing.T) { run(t, serve(t).command(b, c)) })
			}
			t.Run("restart", func(t *testing.T) { restart(t, b, 6) })
			t.Run("race", func(t *testing.T) { race(t, b, 3) })
		})
	}
}

func testValgrind(t *testing.T, b build) {
	valgrind := need(t, "valgrind")
	names := []string{"functions", "arguments", "buffers", "mechanisms", "attributes", "deferred", "threads", "fork"}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			d := serve(t)
			c := exec.Command(valgrind, "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible,indirect",
				"--track-fds=no", "--child-silent-after-fork=no", b.check, b.module, name)
			c.Env = environment(d.socket)
			run(t, c)
		})
	}
}
