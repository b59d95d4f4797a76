package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWhoWaitsForLock: while another process has a token's lock, who and top tell of each
// application that waits for it, on either door, which process that is.
func TestWhoWaitsForLock(t *testing.T) {
	t.Parallel()
	needTools(t, "pkcs11-tool")
	d, term := ready(t, daemonConfig{})
	out, err := exec.Command("find", d.dir, "-name", "LCK..*").Output()
	path := ""
	for file := range strings.Lines(string(out)) {
		if file = strings.TrimSpace(file); filepath.Base(file) == "LCK.."+d.c.token {
			path = file
		}
	}
	if err != nil || path == "" {
		t.Fatalf("%v, no lock file of %s: %s", err, d.c.token, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := []string{
		"echo 'aes:128 label=files' > $T/generate && cat $T/generate",
		"P11FS_SOCKET=" + filepath.Join(d.dir, "p11fs/rpc.sock") + " pkcs11-tool --module " + ownModule(t) + " --token-label 'test token' --login --pin " + userPIN + " --keygen --key-type AES:16 --label rpc",
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	terms := []*terminal{term, d.terminal()}
	var ends []func() result
	for i, line := range lines {
		ends = append(ends, terms[i].start(line))
	}
	other := d.terminal()
	waits := func() (doors map[string]bool) {
		var list []struct {
			Door string
			Lock *struct {
				Token   string
				Seconds float64
				Holder  int
			}
		}
		if err := json.Unmarshal([]byte(other.ok("p11fs who --json")), &list); err != nil {
			t.Fatal(err)
		}
		doors = map[string]bool{}
		for _, p := range list {
			if p.Lock == nil {
				continue
			}
			doors[p.Door] = true
			if p.Lock.Token != d.c.token || p.Lock.Holder != os.Getpid() || p.Lock.Seconds <= 0 {
				t.Errorf("waits for %+v, want the lock of %s, which process %d has", p.Lock, d.c.token, os.Getpid())
			}
		}
		return doors
	}
	becomes := func(want int) {
		t.Helper()
		for limit := time.Now().Add(2 * time.Minute); len(waits()) != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%v wait, want %d", waits(), want)
			}
		}
	}
	becomes(len(lines))
	for _, line := range []string{"p11fs who", "p11fs top --once -d 0.1"} {
		if got := other.ok(line); !strings.Contains(got, d.c.token+": its lock, which process ") {
			t.Errorf("%s tells nothing of it:\n%s", line, got)
		}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	for i, end := range ends {
		if r := end(); r.status != 0 {
			t.Errorf("%s: %+v", lines[i], r)
		}
	}
	becomes(0)
}
