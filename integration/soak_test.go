package integration

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p11fs/mountd"
)

// soakTime is how long TestSoak works; make soak sets it.
var soakTime = flag.Duration("soak", 20*time.Second, "let all doors work for this long in TestSoak")

const (
	// soakLeast is from when on times are compared, too: in less a machine's other work is
	// all that they would tell.
	soakLeast = 4 * time.Minute
	// soakRounds is how many measurements there are at least.
	soakRounds = 6
)

// A soaking is what is looked at in each round, by name.
type soaking map[string][]float64

// thirds are the medians of the first and the last third.
func (s soaking) thirds(name string) (first, last float64) {
	all := s[name]
	n := (len(all) + 2) / 3
	median := func(part []float64) float64 {
		part = slices.Sorted(slices.Values(part))
		return part[len(part)/2]
	}
	return median(all[:n]), median(all[len(all)-n:])
}

// soakMixed is what a shell does all the time: objects, files and logins come and go. What
// fails stands in mixed.err.
const soakMixed = `
set -e
n=0
while [ ! -e stop ]; do
	echo PIN > $T/login
	s=$T/sessions/$(cat $T/sessions/new)
	echo "aes:256 label=mixed token=false" > $s/generate
	cat $s/generate > /dev/null
	echo data > $T/digest/sha256
	cat $T/digest/sha256 > /dev/null
	echo text > $T/data/mixed
	cat $T/data/mixed > /dev/null
	rm $T/data/mixed
	cat $P/who $P/metrics > /dev/null
	ls -l $O > /dev/null
	rmdir $s
	echo > $T/logout
	n=$((n+1))
	echo $n > mixed.new && mv mixed.new mixed.n
	sleep 0.05
done
`

// yardstick is how long the same arithmetic takes on this machine now: what else it does
// makes that and the doors slower alike.
func yardstick() float64 {
	var block [4096]byte
	best := time.Hour
	for range 5 {
		begun := time.Now()
		for range 200 {
			sum := sha256.Sum256(block[:])
			copy(block[:], sum[:])
		}
		best = min(best, time.Since(begun))
	}
	return best.Seconds()
}

// TestSoak has all doors work, and a shell beside them that makes and destroys whatever there
// is. The daemon's memory and descriptors stay what they are, and so do its times: the last
// third of the rounds is as the first.
func TestSoak(t *testing.T) {
	t.Parallel()
	needTools(t, "python3", "gcc")
	h := startLive(t)
	manifest := readManifest(t)
	pin := manifest.UserPIN
	script, err := filepath.Abs("testdata/rate.py")
	if err != nil {
		t.Fatal(err)
	}
	h.ok("echo " + pin + " > $T/login && echo 'rsa:2048 label=k' > $T/generate && cat $T/generate")
	kit, _ := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	need(t, len(kit) > 0, "p11-kit-client.so")
	program := benchProgram(t)
	module := func(path, work string) string {
		return fmt.Sprintf("echo %s 1 300 | %s module %s %s %s | awk 'END { if ($1 !~ /^[0-9]+$/) { print; exit 1 }; printf \"%%d\\n\", $1 * 1e9 / $2 }'", work, program, path, quote(manifest.Label), pin)
	}
	socket := mountd.SystemPaths("").RPC // a daemon of a user's own would be preferred
	h.ok("export P T O P11FS_SOCKET=" + socket + " P11_KIT_SERVER_ADDRESS=unix:path=" + socket)
	doors := map[string]string{
		"files":   "python3 -B " + script + " file 0.3 $O/k.key",
		"module":  module(ownModule(t), "sign:p256"),
		"p11-kit": module(kit[0], "sign:p256"),
		"stock":   module(h.module, "object:session"), // it computes in its own process
	}
	h.ok("setsid sh -c " + quote(strings.ReplaceAll(soakMixed, "PIN", pin)) + " > /dev/null 2> mixed.err & mixed=$!")
	seen := soaking{}
	number := func(line string) float64 {
		t.Helper()
		n, err := strconv.ParseFloat(strings.TrimSpace(h.ok(line)), 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	see := func(name string, value float64) { seen[name] = append(seen[name], value) }
	for begun := time.Now(); time.Since(begun) < *soakTime || len(seen["descriptors"]) < soakRounds; {
		for door, line := range doors {
			see(door, 1/max(1, number(line))/yardstick())
		}
		see("memory", number("sed -n 's/^process_resident_memory_bytes //p' $P/metrics")/(1<<20))
		see("descriptors", number("sed -n 's/^process_open_fds //p' $P/metrics"))
		see("goroutines", number("sed -n 's/^go_goroutines //p' $P/metrics"))
		see("mixed", number("cat mixed.n"))
	}
	h.ok("touch stop; wait $mixed")
	if text := h.ok("cat mixed.err"); text != "" {
		t.Errorf("the shell says: %s", text)
	}
	report, grown := seen.compare(slices.Sorted(maps.Keys(doors)), *soakTime >= soakLeast)
	t.Log(report)
	for _, what := range grown {
		t.Error(what)
	}
	h.stop()
}

// compare compares the thirds: what they are, and what has grown. The times of the doors
// count if timed.
func (s soaking) compare(doors []string, timed bool) (report string, grown []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds\n", len(s["descriptors"]))
	for _, name := range doors {
		first, last := s.thirds(name)
		fmt.Fprintf(&b, "%-12s a call takes %.2f of what it took in the first third\n", name, last/first)
		if timed && last > 1.5*first {
			grown = append(grown, fmt.Sprintf("%s: a call takes %.2f of what it took at first", name, last/first))
		}
	}
	// The room is for what comes and goes while it is looked at, and for what the runtime keeps.
	for _, of := range []struct {
		name         string
		factor, room float64
	}{{"memory", 1.2, 32}, {"descriptors", 1, 8}, {"goroutines", 1, 24}} {
		first, last := s.thirds(of.name)
		fmt.Fprintf(&b, "%-12s %.1f in the first third, %.1f in the last\n", of.name, first, last)
		if last > of.factor*first+of.room {
			grown = append(grown, fmt.Sprintf("%s: %.1f at first, %.1f in the end", of.name, first, last))
		}
	}
	first, last := s.thirds("mixed")
	fmt.Fprintf(&b, "mixed        %.0f rounds of the shell in the middle of the last third\n", last)
	if last <= first {
		grown = append(grown, fmt.Sprintf("the shell has done nothing since its round %.0f", first))
	}
	return b.String(), grown
}

// TestSoakTells: what grows is told, and what only goes up and down is not.
func TestSoakTells(t *testing.T) {
	t.Parallel()
	flat := func() soaking {
		s := soaking{}
		for n := range 30 {
			wave := float64(n % 3)
			s["files"] = append(s["files"], 1+wave/10)
			s["memory"] = append(s["memory"], 100+5*wave)
			s["descriptors"] = append(s["descriptors"], 40+wave)
			s["goroutines"] = append(s["goroutines"], 60+wave)
			s["mixed"] = append(s["mixed"], float64(n))
		}
		return s
	}
	if _, grown := flat().compare([]string{"files"}, true); len(grown) > 0 {
		t.Errorf("what is flat: %q", grown)
	}
	for name, each := range map[string]float64{"files": 0.05, "memory": 5, "descriptors": 1, "goroutines": 2, "mixed": -1} {
		s := flat()
		for n := range s[name] {
			s[name][n] += each * float64(n)
		}
		if _, grown := s.compare([]string{"files"}, true); len(grown) != 1 {
			t.Errorf("%s grows, and told is %q", name, grown)
		}
	}
	s := flat()
	s["files"][29], s["files"][28] = 50, 50 // two hiccups
	if _, grown := s.compare([]string{"files"}, true); len(grown) > 0 {
		t.Errorf("two hiccups: %q", grown)
	}
}
