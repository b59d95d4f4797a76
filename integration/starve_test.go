package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A starver is a user who attacks a daemon, and can be stopped and go on.
type starver struct{ *terminal }

// starve has the user of a terminal attack a daemon in some ways, all at once; without
// any in all there are.
func (d *daemon) starve(term *terminal, ways ...string) starver {
	d.t.Helper()
	script, err := filepath.Abs("testdata/starve.py")
	if err != nil {
		d.t.Fatal(err)
	}
	slots := filepath.Join(d.dir, "var/run/pkcsslotd.socket")
	term.ok("python3 " + script + " " + filepath.Join(d.dir, "run/p11fs/rpc.sock") + " " + slots + " $T " + strings.Join(ways, " ") +
		" > begun & until grep -q begun begun; do sleep 0.05; done")
	return starver{term}
}

func (s starver) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(-s.pid(), sig); err != nil {
		s.t.Fatal(err)
	}
}

// memory returns a line of the daemon's status, in MiB.
func (d *daemon) memory(line string) int {
	d.t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(d.pid()) + "/status")
	if err != nil {
		d.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), line+":")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		d.t.Fatal(err)
	}
	return n >> 10
}

// starved starts a system daemon with few descriptors, which serves stock programs, too,
// and has a token. Such tests do not run beside others, which would starve too.
func starved(t *testing.T) *daemon {
	t.Helper()
	needRoot(t)
	needTools(t, "python3")
	d := newDaemon(t, daemonConfig{system: true, wrap: []string{"sh", "-c", `ulimit -n 256 && exec "$@"`, "sh"}})
	// The file by which a system daemon serves stock programs.
	for _, dir := range []string{"usr/sbin", "dev/shm"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.dir, "usr/sbin/pkcsslotd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.start()
	if _, err := os.Stat(filepath.Join(d.dir, "var/run/pkcsslotd.socket")); err != nil {
		t.Fatal(err)
	}
	d.initToken(d.terminal())
	return d
}

// TestStarving: one user does all at once that may starve a daemon. It stays small,
// another user goes on signing, and it ends when it is told to.
func TestStarving(t *testing.T) {
	d := starved(t)
	owner := d.terminalOf(anotherUser(t, "nobody", "pkcs11"))
	owner.ok("echo " + userPIN + " > $T/login && echo 'rsa:2048 label=k' > $T/generate && cat $T/generate")
	script, err := filepath.Abs("testdata/rate.py")
	if err != nil {
		t.Fatal(err)
	}
	doors := map[string]string{
		"files":  "python3 -B " + script + " file 0.25 $O/k.key",
		"module": "python3 -B " + script + " module 0.25 " + ownModule(t) + " 'test token' " + userPIN,
	}
	type rates map[string]int
	measure := func(sum rates) {
		t.Helper()
		for door, command := range doors {
			n, err := strconv.Atoi(strings.TrimSpace(owner.ok(command)))
			if err != nil {
				t.Fatal(err)
			}
			sum[door] += n
		}
	}
	// By turns, so that what else the machine does is in all: alone; beside as many
	// processes that leave the daemon alone, which says what sharing the processors costs;
	// and beside the attack.
	other := anotherUser(t, "daemon", "pkcs11")
	burn := d.starve(d.terminalOf(other), slices.Repeat([]string{"burn"}, 8)...)
	burn.signal(syscall.SIGSTOP)
	attack := d.starve(d.terminalOf(other))
	time.Sleep(time.Second)
	alone, busy, beside := rates{}, rates{}, rates{}
	for range 8 {
		measure(beside)
		attack.signal(syscall.SIGSTOP)
		measure(alone)
		burn.signal(syscall.SIGCONT)
		measure(busy)
		burn.signal(syscall.SIGSTOP)
		attack.signal(syscall.SIGCONT)
	}
	// Half is what is wanted, and what a busy machine leaves of it is no failure.
	least, most := 0.2, 512
	if raceEnabled { // which takes several times the memory and time for the same
		least, most = 0.05, 4096
	}
	for door := range doors {
		share := func(r rates) float64 { return float64(r[door]) / float64(alone[door]) }
		t.Logf("%s: %d signatures a second alone, %.2f of that beside busy processes, %.2f beside the attack", door, alone[door]/8, share(busy), share(beside))
		if share(beside) < least {
			t.Errorf("%s: %d signatures a second, and %d alone", door, beside[door]/8, alone[door]/8)
		}
	}
	owner.ok("setsid -w sh -c 'echo " + userPIN + " > $T/login && cat $T/login'")
	peak := d.memory("VmHWM")
	if peak > most {
		t.Errorf("the daemon took %d MiB", peak)
	}
	t.Logf("%d MiB", peak)
	begun := time.Now()
	if err := syscall.Kill(d.pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended()
	if took := time.Since(begun); took > 5*time.Second && !raceEnabled {
		t.Errorf("it took %v to end", took)
	}
}

// TestMemoryGoesBack: what clients have had is the system's again soon after they have
// gone.
func TestMemoryGoesBack(t *testing.T) {
	d := starved(t)
	before := d.memory("VmRSS")
	for _, ways := range [][]string{{"session_objects", "half_frames"}, {"messages"}} {
		t.Run(ways[0], func(t *testing.T) {
			term := d.terminalOf(anotherUser(t, "daemon", "pkcs11"))
			d.starve(term, ways...)
			for start := time.Now(); d.memory("VmRSS") < before+128; time.Sleep(50 * time.Millisecond) {
				if time.Since(start) > time.Minute {
					t.Fatalf("the daemon has %d MiB only", d.memory("VmRSS"))
				}
			}
			term.killSession()
			gone := time.Now()
			most := 2*before + 64 // what a heap of that size may be
			if raceEnabled {
				most += 64 // the detector's own, which stays
			}
			for d.memory("VmRSS") > most {
				if time.Since(gone) > 30*time.Second {
					t.Fatalf("the daemon has %d MiB, and had %d", d.memory("VmRSS"), before)
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Logf("%d MiB before, and %d %v after", before, d.memory("VmRSS"), time.Since(gone).Round(time.Second))
		})
	}
}

// TestManyStarve: several users who attack at once do not have the daemon grow further.
func TestManyStarve(t *testing.T) {
	d := starved(t)
	for n := range uint32(4) {
		cred := *anotherUser(t, "daemon", "pkcs11")
		cred.Uid = 70001 + n // need no name
		d.starve(d.terminalOf(&cred))
	}
	time.Sleep(8 * time.Second)
	d.terminal().ok("cat $P/status")
	most := 512
	if raceEnabled {
		most = 4096
	}
	if peak := d.memory("VmHWM"); peak > most {
		t.Errorf("the daemon took %d MiB", peak)
	} else {
		t.Logf("%d MiB", peak)
	}
}
