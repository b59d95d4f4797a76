package integration

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	benchOut    = flag.String("bench-out", "", "the file into which BenchmarkDoors writes what it has measured, for contrib/benchreport")
	benchRounds = flag.Int("bench-rounds", 5, "how often BenchmarkDoors measures each work at each door")
	benchOnly   = flag.String("bench-works", "", "a regular expression of the works that BenchmarkDoors measures, each followed by a space and its number of threads")
	benchWhere  = flag.String("bench-doors", "", "a regular expression of the doors")
	benchTime   = flag.Duration("bench-time", 200*time.Millisecond, "how long each time")
)

// noWork is why a door has nothing of a work.
const noWork = "no such work"

// A benchDoor is what BenchmarkDoors measures: a way to a token.
type benchDoor struct {
	name    string
	measure func(work, how string) (measured, error)
	end     func()
	pid     int // of the daemon that serves it; 0 if there is none, or it cannot be seen
}

// measured is what one run of testdata/bench.c has told. The JSON is contrib/benchreport's.
type measured struct {
	Rate     float64 `json:"rate"`               // a second
	CPU      float64 `json:"cpu,omitempty"`      // microseconds of processor time for each, of the program
	Daemon   float64 `json:"daemon,omitempty"`   // the same of the daemon
	Switches float64 `json:"switches,omitempty"` // of threads for each, of the program
	Half     float64 `json:"half,omitempty"`     // microseconds that half of them took at most
	Most     float64 `json:"most,omitempty"`     // likewise 99 of 100
	Least    float64 `json:"least,omitempty"`    // of an even share of the work: what the thread had that had least
}

type benchRow struct {
	Work  string                `json:"work"`
	How   string                `json:"how"`
	Doors map[string][]measured `json:"doors"`             // a run each round
	Not   map[string]string     `json:"refused,omitempty"` // why a door has none
}

type benchResults struct {
	Machine  string            `json:"machine"`
	Date     string            `json:"date"`
	Programs map[string]string `json:"programs"`
	Rows     []benchRow        `json:"rows"`
}

// The rows: what of which works is measured with how many threads or processes (p).
func benchWorks() (rows []benchRow) {
	only := regexp.MustCompile(*benchOnly)
	add := func(hows string, works ...string) {
		for _, w := range works {
			for _, how := range strings.Fields(hows) {
				if !only.MatchString(w + " " + how) {
					continue
				}
				rows = append(rows, benchRow{Work: w, How: how, Doors: map[string][]measured{}, Not: map[string]string{}})
			}
		}
	}
	add("1", "info", "start", "login", "random:32", "digest:1024", "digest:65536")
	add("1 2 8 64 p2 p8", "sign:p256", "sign:rsa2048")
	add("1", "sign:rsa3072", "sign:rsa4096", "sign:p384", "sign:ed25519", "sign:mldsa65")
	add("1", "verify:rsa2048", "verify:p256", "verify:ed25519", "verify:mldsa65")
	add("1", "encrypt:cbc:1024", "encrypt:cbc:65536", "encrypt:gcm:1024", "encrypt:gcm:65536", "encrypt:ctr:65536")
	add("1", "digest:16777216", "encrypt:cbc:16777216", "encrypt:gcm:16777216", "parts:cbc:16777216", "parts:ctr:16777216")
	add("1", "generate:p256", "object:session")
	add("1", "digest:two", "digest:one", "digest:held", "sign:p256:two", "sign:p256:one", "sign:p256:held", "sign:rsa2048:two", "sign:rsa2048:held")
	add("2 64", "sign:p256:one", "sign:rsa2048:held")
	add("1", "shell:p11fs", "shell:tmpfs", "shell:pkcs11-tool")
	add("1 64", "object:token")
	add("1", "find:label", "find:all") // last: see measureDoors
	return rows
}

// BenchmarkDoors measures kinds of work at each door of p11fs, and in the peers, by turns in
// one run.
func BenchmarkDoors(b *testing.B) {
	for b.Loop() { // once: it takes minutes
		measureDoors(b)
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

func measureDoors(b *testing.B) {
	b.Helper()
	doors := benchDoors(b, benchProgram(b))
	rows := benchWorks()
	for _, row := range rows {
		if strings.HasPrefix(row.Work, "find:") {
			for _, stock := range []string{"stock-over-p11fs", "opencryptoki"} {
				row.Not[stock] = "its library takes minutes to make a thousand objects, and all later work is slow beside them"
			}
		}
	}
	// By turns in all, so that what the machine does meanwhile is in every row's rounds. But
	// what is searched is made last.
	found := slices.IndexFunc(rows, func(r benchRow) bool { return strings.HasPrefix(r.Work, "find:") })
	if found < 0 {
		found = len(rows)
	}
	where := regexp.MustCompile(*benchWhere)
	for i := range 2 * *benchRounds {
		some := rows[:found]
		if i >= *benchRounds {
			some = rows[found:]
		}
		for _, row := range some {
			for _, d := range doors {
				if where.MatchString(d.name) {
					measureRow(row, d)
				}
			}
		}
		b.Logf("round %d of %d", i+1, 2**benchRounds)
	}
	for _, row := range rows {
		line := ""
		for _, d := range doors {
			if runs := row.Doors[d.name]; len(runs) > 0 {
				line += fmt.Sprintf("  %s %.0f/s", d.name, runs[len(runs)/2].Rate)
			}
		}
		for name, why := range row.Not {
			if why != noWork {
				line += fmt.Sprintf("  %s: %s", name, why)
			}
		}
		b.Logf("%s ×%s%s", row.Work, row.How, line)
	}
	for _, d := range doors {
		d.end()
	}
	if *benchOut == "" {
		return
	}
	out, err := json.MarshalIndent(benchResults{machine(), time.Now().UTC().Format(time.DateOnly), programs(), rows}, "", "\t")
	if err == nil {
		err = os.WriteFile(*benchOut, append(out, '\n'), 0o644)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// measureRow measures a work once at a door, unless that has refused it.
func measureRow(row benchRow, d benchDoor) {
	if row.Not[d.name] != "" {
		return
	}
	before := processorTime(d.pid)
	m, err := d.measure(row.Work, row.How)
	if err != nil {
		row.Not[d.name] = err.Error()
		return
	}
	if d.pid != 0 && row.How[0] != 'p' { // processes start in it
		m.Daemon = 1e6 * (processorTime(d.pid) - before).Seconds() / (m.Rate * benchTime.Seconds())
	}
	row.Doors[d.name] = append(row.Doors[d.name], m)
}

// benchDoors opens the doors.
func benchDoors(b *testing.B, program string) []benchDoor {
	b.Helper()
	plain := func(name string, pid int, env ...string) func(args ...string) benchDoor {
		return func(args ...string) benchDoor {
			return benchClient(b, newTerminal(b, terminalConfig{env: env}), program, name, pid, args...)
		}
	}
	d, term := ready(b, daemonConfig{binary: plainBinary(b), modern: true})
	for _, key := range []string{"rsa:2048 label=rsa2048 id=01", "ec:p256 label=p256 id=02"} {
		term.ok("echo '" + key + "' > $T/generate && cat $T/generate")
	}
	socket := "P11FS_SOCKET=" + filepath.Join(d.dir, "p11fs/rpc.sock")
	const own, label = "libp11fs", "test token"
	kit, err := filepath.Glob("/usr/lib/*/pkcs11/p11-kit-client.so")
	need(b, err == nil && len(kit) > 0, "p11-kit-client.so")
	doors := []benchDoor{
		plain("softhsm2", 0, softToken(b))("module", "/usr/lib/softhsm/libsofthsm2.so", label, userPIN),
		plain(own, d.pid(), append(d.env(), socket)...)("module", ownModule(b), label, userPIN),
		plain("p11-kit", d.pid(), append(d.env(), "P11_KIT_SERVER_ADDRESS=unix:path="+filepath.Join(d.dir, "p11fs/rpc.sock"))...)("module", kit[0], label, userPIN),
		benchClient(b, term, program, "files", d.pid(), "files", d.path()),
		benchShell(b, term, d),
		benchEmpty(b, program),
		benchOpenSSL(),
	}
	if os.Geteuid() == 0 && regexp.MustCompile(*benchWhere).MatchString("stock-over-p11fs") {
		m := readManifest(b)
		live := startLive(b)
		doors = append(doors, benchClient(b, live.terminal, program, "stock-over-p11fs", 0, "module", live.module, m.Label, m.UserPIN))
	}
	if os.Geteuid() == 0 && regexp.MustCompile(*benchWhere).MatchString("opencryptoki") {
		m := readManifest(b)
		root := workDir(b, "tokens")
		unpackToken(b, root)
		stock := startStock(b, root)
		doors = append(doors, benchClient(b, stock.terminal, program, "opencryptoki", 0, "module", stock.module, m.Label, m.UserPIN))
	}
	return doors
}

// benchClient starts testdata/bench.c in a terminal.
func benchClient(b *testing.B, term *terminal, program, name string, pid int, args ...string) benchDoor {
	b.Helper()
	dir := workDir(b, "client")
	line := program
	for _, a := range args {
		line += " " + quote(a)
	}
	term.ok("mkfifo " + dir + "/in " + dir + "/out && { " + line + " <" + dir + "/in >" + dir + "/out & } && exec 8>" + dir + "/in 9<" + dir + "/out && read -r line <&9 && [ \"$line\" = ready ] || { echo \"$line\"; false; }")
	return benchDoor{
		name: name,
		pid:  pid,
		measure: func(work, how string) (measured, error) {
			answer := strings.TrimSpace(term.ok(fmt.Sprintf("echo '%s %s %d' >&8; IFS= read -r line <&9; echo \"$line\"", work, how, benchTime.Milliseconds())))
			var count, ns, cpu, switches, half, most, least float64
			if _, err := fmt.Sscan(answer, &count, &ns, &cpu, &switches, &half, &most, &least); err != nil || count == 0 {
				return measured{}, fmt.Errorf("%s", strings.TrimPrefix(answer, "refused "))
			}
			threads, _ := strconv.ParseFloat(how, 64) // 0 of processes, as least is
			return measured{
				Rate: count * 1e9 / ns, CPU: cpu / 1000 / count, Switches: switches / count,
				Half: half / 1000, Most: most / 1000, Least: least * threads / count,
			}, nil
		},
		end: func() { term.ok("exec 8>&- 9<&-") },
	}
}

// benchEmpty starts the empty tree of fs's tests: what the kernel, go-fuse and the calls of
// files cost without us.
func benchEmpty(b *testing.B, program string) benchDoor {
	b.Helper()
	dir := workDir(b, "empty")
	server := filepath.Join(dir, "fs.test")
	if out, err := exec.Command("go", "test", "-c", "-o", server, "p11fs/fs").CombinedOutput(); err != nil {
		b.Fatalf("go test -c p11fs/fs: %v\n%s", err, out)
	}
	mnt := filepath.Join(dir, "m")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		b.Fatal(err)
	}
	term := newTerminal(b, terminalConfig{})
	term.ok("mkfifo " + dir + "/end && { P11FS_TEST_EMPTY=1 P11FS_TEST_MOUNT=" + mnt + " " + server + " <" + dir + "/end >" + dir + "/log 2>&1 & } && exec 7>" + dir + "/end && until grep -q ready " + dir + "/log; do sleep 0.1; done")
	client := benchClient(b, term, program, "empty", 0, "files", filepath.Join(mnt, "token"))
	measure, end := client.measure, client.end
	client.measure = func(work, how string) (measured, error) {
		if !strings.HasPrefix(work, "digest:") {
			return measured{}, errors.New(noWork)
		}
		return measure(work, how)
	}
	client.end = func() {
		end()
		term.ok("exec 7>&- && until grep -q handles= " + dir + "/log; do sleep 0.1; done")
	}
	return client
}

// shellWorks are lines of a shell, each with what it is measured beside.
func shellWorks(module string) map[string]string {
	return map[string]string{
		"p11fs":       "cat msg > $O/p256.key/sign; cat $O/p256.key/sign > out",
		"tmpfs":       "cat msg > other; cat other > out",
		"pkcs11-tool": "pkcs11-tool --module " + quote(module) + " --login --pin $PIN --sign --mechanism ECDSA --id 02 -i msg -o out 2>&1 >/dev/null",
	}
}

// benchShell measures lines of a shell that sign.
func benchShell(b *testing.B, term *terminal, d *daemon) benchDoor {
	b.Helper()
	module := ownModule(b)
	term.ok("cd " + memoryDir(b) + " && head -c 32 /dev/zero > msg && export PIN=" + userPIN + " P11FS_SOCKET=" + filepath.Join(d.dir, "p11fs/rpc.sock"))
	return benchDoor{name: "shell", end: func() {}, measure: func(work, _ string) (measured, error) {
		name, ok := strings.CutPrefix(work, "shell:")
		line := shellWorks(module)[name]
		if !ok || line == "" {
			return measured{}, errors.New(noWork)
		}
		const times = 25
		begun := time.Now()
		term.ok("for i in $(seq " + strconv.Itoa(times) + "); do " + line + "; done")
		return measured{Rate: times / time.Since(begun).Seconds()}, nil
	}}
}

// benchOpenSSL measures libcrypto alone, the least that there can be.
func benchOpenSSL() benchDoor {
	algorithms := map[string]string{
		"sign:rsa2048": "rsa2048", "sign:rsa3072": "rsa3072", "sign:rsa4096": "rsa4096",
		"sign:p256": "ecdsap256", "sign:p384": "ecdsap384", "sign:ed25519": "ed25519",
		"encrypt:cbc": "-evp aes-256-cbc", "encrypt:gcm": "-evp aes-256-gcm", "encrypt:ctr": "-evp aes-256-ctr", "digest": "-evp sha256",
	}
	return benchDoor{name: "libcrypto", end: func() {}, measure: func(work, how string) (measured, error) {
		size := 0
		name := work
		if at := strings.LastIndexByte(work, ':'); at > 0 {
			if n, err := strconv.Atoi(work[at+1:]); err == nil {
				name, size = work[:at], n
			}
		}
		a := algorithms[name]
		if a == "" || how != "1" && how != "2" {
			return measured{}, errors.New(noWork)
		}
		args := append([]string{"speed", "-mr", "-seconds", "1", "-multi", how}, strings.Fields(a)...)
		if size > 0 {
			args = append(args, "-bytes", strconv.Itoa(size))
		}
		out, err := exec.Command("openssl", args...).Output()
		if err != nil {
			return measured{}, err
		}
		fields := strings.Split(strings.TrimSpace(string(out[strings.LastIndex(string(out), "+F"):])), ":")
		at := 3 // of "+F2:2:2048:SIGN:VERIFY", "+F:25:AES-256-GCM:BYTES"
		if name == "sign:ed25519" {
			at = 4
		}
		rate, err := strconv.ParseFloat(fields[at], 64)
		if size > 0 {
			rate /= float64(size)
		}
		return measured{Rate: rate}, err
	}}
}

// softToken makes a token of SoftHSM2, and returns the environment that leads to it.
func softToken(b *testing.B) string {
	b.Helper()
	needTools(b, "softhsm2-util")
	dir := workDir(b, "softhsm2")
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	env := "SOFTHSM2_CONF=" + conf
	newTerminal(b, terminalConfig{env: []string{env}}).ok("softhsm2-util --init-token --free --label 'test token' --so-pin " + soPIN + " --pin " + userPIN)
	return env
}

// processorTime is what a process has had.
func processorTime(pid int) (sum time.Duration) {
	if pid == 0 {
		return 0
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		ns, _, _ := strings.Cut(string(b), " ")
		n, _ := strconv.ParseInt(ns, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

func machine() string {
	cpu := "unknown processor"
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
		}
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, unix.ByteSliceToString(u.Release[:]), runtime.Version())
}

// programs are the versions of the peers.
func programs() map[string]string {
	versions := map[string]string{}
	for _, p := range []string{"softhsm2", "opencryptoki", "openssl", "p11-kit", "opensc"} {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", p).Output()
		if err == nil {
			versions[p] = string(out)
		}
	}
	return versions
}
