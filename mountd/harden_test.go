package mountd

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// hardenEnv makes the test binary harden itself, for the mode that it names, and
// print what came of it: it is for a whole process and for good.
const hardenEnv = "P11FS_TEST_HARDEN"

func printHardened(mode string) {
	m := User
	if mode == System.String() {
		m = System
	}
	if err := Harden(m, slog.New(slog.DiscardHandler)); err != nil {
		fmt.Println(err)
		return
	}
	var core unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &core)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	// Memory goes on being had, whatever was locked.
	big := make([]byte, 64<<20)
	for i := 0; i < len(big); i += 4096 {
		big[i] = 1
	}
	fmt.Printf("core %d %d dumpable %d umask %03o\n", core.Cur, core.Max, dumpable, unix.Umask(0))
}

func TestHarden(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for mode, umask := range map[Mode]string{User: "077", System: "007"} {
		t.Run(mode.String(), func(t *testing.T) {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), hardenEnv+"="+mode.String())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if want := "core 0 0 dumpable 0 umask " + umask; string(bytes.TrimSpace(out)) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
