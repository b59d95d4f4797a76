package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rateScript prints how many signatures a second a program makes, in the best half of
// some short times.
const rateScript = `
import os, sys, time
rates = []
for _ in range(int(sys.argv[2])):
    n, end = 0, time.monotonic() + 0.5
    while time.monotonic() < end:
        fd = os.open(sys.argv[1], os.O_RDWR)
        os.write(fd, b"data")
        assert len(os.read(fd, 4096)) == 256
        os.close(fd)
        n += 1
    rates.append(2 * n)
print(sorted(rates)[len(rates) // 2])
`

// TestStarving: one user does all at once that may starve a daemon. It stays small,
// another user goes on signing, and it ends when it is told to.
func TestStarving(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "python3")
	d := newDaemon(t, daemonConfig{system: true, wrap: []string{"sh", "-c", `ulimit -n 256 && exec "$@"`, "sh"}})
	// The file by which a system daemon serves stock programs, too.
	for _, dir := range []string{"usr/sbin", "dev/shm"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, "usr/sbin/pkcsslotd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.initToken(d.terminal())
	owner, other := d.terminalOf(anotherUser(t, "nobody", "pkcs11")), d.terminalOf(anotherUser(t, "daemon", "pkcs11"))
	owner.ok("echo " + userPIN + " > $T/login && echo 'rsa:2048 label=k' > $T/generate && cat $T/generate")
	rate := func(times int) int {
		t.Helper()
		n, err := strconv.Atoi(strings.TrimSpace(owner.ok("python3 -c " + quote(rateScript) + " $O/k.key/sign " + strconv.Itoa(times))))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	alone := rate(4)
	script, err := filepath.Abs("testdata/starve.py")
	if err != nil {
		t.Fatal(err)
	}
	slots := filepath.Join(d.dir, "var/run/pkcsslotd.socket")
	if _, err := os.Stat(slots); err != nil {
		t.Fatal(err)
	}
	other.ok("python3 " + script + " " + filepath.Join(d.dir, "run/p11fs/rpc.sock") + " " + slots + " $T > begun & until grep -q begun begun; do sleep 0.05; done")
	time.Sleep(time.Second)
	// The two are on the same cores: half is what is wanted, and what a busy machine
	// leaves of it is no failure.
	least, most := 0.2, 512
	if raceEnabled { // which takes several times the memory and time for the same
		least, most = 0.05, 4096
	}
	during := rate(10)
	if float64(during) < least*float64(alone) {
		t.Errorf("%d signatures a second, and %d alone", during, alone)
	}
	owner.ok("setsid -w sh -c 'echo " + userPIN + " > $T/login && cat $T/login'")
	status, err := os.ReadFile("/proc/" + strconv.Itoa(d.pid()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	peak, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil || peak>>10 > most {
		t.Errorf("the daemon took %d MiB (%v)", peak>>10, err)
	}
	t.Logf("%d signatures a second alone, %d beside; %d MiB", alone, during, peak>>10)
	begun := time.Now()
	if err := syscall.Kill(d.pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended()
	if took := time.Since(begun); took > 5*time.Second && !raceEnabled {
		t.Errorf("it took %v to end", took)
	}
}
