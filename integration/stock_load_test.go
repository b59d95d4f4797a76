package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// loadTime is how long TestStockLoad works, if it gets that much done; make soak
// sets it.
var loadTime = flag.Duration("load", 12*time.Second, "let stock processes and shells work for this long in TestStockLoad")

const (
	// loadPerMinute is how many operations must come together in a minute.
	loadPerMinute = 20000
	// loadPatience is how much longer a slow machine may take for them.
	loadPatience = 5 * time.Minute
	// collectionPeriod is how often the slot daemon frees what dead processes
	// had, and how long it may take for it on a busy machine.
	collectionPeriod = 10*time.Second + 2*time.Second
	loadWorkers      = 4
)

// A loadTest is a machine where stock processes and shells work on one token.
type loadTest struct {
	*liveHost
	root    string // the token directories
	pin     string
	dir     string // where the workers write
	program string // stock_load
	workers []string
	clients [loadWorkers]string // the stock processes that run, by number
	ops     []*loadOp
	ends    []*loadOp         // what was listed after the load
	final   map[string]string // the objects of the load in the end, as the first view has them
	// kills counts the processes that were killed, held those that held the
	// token's lock then; forgetting is the longest that a stock process was
	// registered after its death; downs are the times without a daemon.
	kills, held int
	forgetting  time.Duration
	downs       []span
	backups     int // how many were taken
}

// A span is a time, in microseconds.
type span struct{ from, to int64 }

// meets says that the operation was under way in the span.
func (s span) meets(o *loadOp) bool { return o.call < s.to && o.back > s.from }

func newLoadTest(t *testing.T) *loadTest {
	t.Helper()
	needTools(t, "bash", "gcc", "flock")
	l := &loadTest{root: workDir(t, "tokens"), pin: readManifest(t).UserPIN, dir: workDir(t, "load")}
	unpackToken(t, l.root)
	l.liveHost = startLiveOver(t, l.root)
	l.program = filepath.Join(l.dir, "stock_load")
	if out, err := exec.Command("gcc", "-O2", "-I/usr/include/p11-kit-1", "testdata/stock_load.c", "-o", l.program, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	l.ok("cd " + l.dir + " && " + mountLister)
	l.login()
	l.ok("echo 'rsa:2048 label=load id=0x77' > $T/generate && cat $O/load.pub/public.pem > load.pem")
	return l
}

func (l *loadTest) login() {
	l.t.Helper()
	l.ok("echo " + l.pin + " > $T/login")
}

// startShell starts a shell loop, which is an application of its own.
func (l *loadTest) startShell(n int) {
	l.t.Helper()
	script, err := filepath.Abs("testdata/stock_load.sh")
	if err != nil {
		l.t.Fatal(err)
	}
	l.ok(fmt.Sprintf("setsid bash %s %s %s %d 2>>shell.err & shell%d=$!", script, l.pin, l.dir, n, n))
	l.workers = append(l.workers, fmt.Sprintf("sh%d", n))
}

// startClient starts a stock process. Others do not create objects meanwhile, and
// NVTOK.DAT is as new as the segment once the mount has been used: else the
// process would put the next name back for all (defect D2).
func (l *loadTest) startClient(n int) {
	l.t.Helper()
	name := fmt.Sprintf("c%dg%d", n, len(l.workers))
	l.ok("exec 9>gate && flock 9 && ls $O >/dev/null")
	l.ok(fmt.Sprintf("%s %s %s %s %d %s %d 2>>client.err 9>&- & client%d=$!", l.program, l.module, l.pin, l.dir, n, name, rand.Uint32()>>1, n))
	l.workers = append(l.workers, name)
	l.clients[n] = name
	l.await(name, "working")
	l.ok("exec 9>&-")
}

// await waits until a stock process says a line in its log.
func (l *loadTest) await(name, line string) {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if r := l.run("grep -q '^# " + line + "' " + name + ".log"); r.status == 0 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s does not say that it is %s: %s", name, line, l.ok("cat client.err"))
		}
	}
}

// killClient kills a stock process, at best one that holds the token's lock, and
// starts another. The lock is free at once, and the slot manager has forgotten the
// process within a collection period.
func (l *loadTest) killClient() {
	l.t.Helper()
	const locks = "/run/lock/opencryptoki/"
	n := rand.IntN(loadWorkers)
	l.kills++
	held := l.ok(fmt.Sprintf("dead=$client%d; %s kill $dead %sswtok/LCK..swtok && wait $dead; true", n, l.program, locks)) == "held\n"
	if held {
		l.held++
	}
	at := time.Now()
	for _, lock := range []string{"LCK..APIlock", "swtok/LCK..swtok"} {
		l.ok("flock --timeout 10 " + locks + lock + " true")
	}
	free := time.Since(at)
	l.startClient(n)
	l.ok(l.program + " await $dead")
	forgotten := time.Since(at)
	l.forgetting = max(l.forgetting, forgotten)
	l.t.Logf("killed a stock process (it held the lock: %v): locks free after %v, its entry and sessions after %v",
		held, free.Round(time.Millisecond), forgotten.Round(time.Millisecond))
	if forgotten > collectionPeriod {
		l.t.Errorf("a dead process was registered for %v, longer than the collection period", forgotten)
	}
	l.wantSessions()
}

// wantSessions compares the counts in the slot manager's segment: each stock
// process has its two sessions, and all together are what is counted for all.
func (l *loadTest) wantSessions() {
	l.t.Helper()
	var clients, pids []string
	for n := range loadWorkers {
		clients = append(clients, fmt.Sprintf("$client%d", n))
	}
	counts := map[string]int{}
	all, sum := 0, 0
	for _, line := range lines(l.ok(l.program + " sessions")) {
		pid, n, _ := strings.Cut(line, " ")
		count, err := strconv.Atoi(n)
		if err != nil {
			l.t.Fatalf("sessions: %q", line)
		}
		if pid == "all" {
			all = count
			continue
		}
		counts[pid] = count
		sum += count
	}
	pids = strings.Fields(l.ok("echo " + strings.Join(clients, " ")))
	for _, pid := range pids {
		if counts[pid] != 2 {
			l.t.Errorf("a stock process has 2 sessions, and %d are counted", counts[pid])
		}
	}
	if all != sum || len(counts) != len(pids)+1 {
		l.t.Errorf("%d sessions are counted for all, and %v for the daemon and %v", all, counts, pids)
	}
}

// killDaemon kills the daemon, and starts it again.
func (l *loadTest) killDaemon() {
	l.t.Helper()
	l.kills++
	from := time.Now()
	l.ok("kill -9 $p11fs; wait $p11fs; cat " + quote(l.log) + " >> daemon.log; : > " + quote(l.log))
	time.Sleep(300 * time.Millisecond) // in which stock processes are alone
	l.serve()
	l.login()
	l.downs = append(l.downs, span{from.UnixMicro(), time.Now().UnixMicro()})
	l.t.Logf("killed the daemon: serves again after %v", time.Since(from).Round(time.Millisecond))
	l.wantSessions()
}

// backUp takes a backup of the token while all work on it.
func (l *loadTest) backUp() {
	l.t.Helper()
	if l.backups == 0 {
		key, err := age.GenerateX25519Identity()
		if err == nil {
			err = os.WriteFile(filepath.Join(l.dir, "key.txt"), []byte(key.String()+"\n"), 0o600)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(l.dir, "recipients"), []byte(key.Recipient().String()+"\n"), 0o600)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	l.backups++
	l.ok(fmt.Sprintf("%s backup --system swtok token.%d --recipients-file recipients", quote(binary()), l.backups))
}

// checkBackups restores each backup to a token of its own, in which all is well.
func (l *loadTest) checkBackups() {
	l.t.Helper()
	own := "XDG_DATA_HOME=$PWD/own XDG_CONFIG_HOME=$PWD/own XDG_RUNTIME_DIR=$PWD/own " + quote(binary())
	for n := 1; n <= l.backups; n++ {
		l.ok(fmt.Sprintf("%s restore token.%d copy%[2]d --identity key.txt", own, n))
		l.ok(fmt.Sprintf("echo %s | %s check --login copy%d > found && grep -q ^good found || { cat found; false; }", l.pin, own, n))
	}
	l.t.Logf("%d backups", l.backups)
}

// wantNames looks whether a stored name is another object's than it was.
func (l *loadTest) wantNames(names map[string]string) {
	l.t.Helper()
	// What is destroyed meanwhile find complains about, and may about nothing else.
	const find = "LC_ALL=C find $T/by-uid -type l -printf '%f %l\\n' 2>complaints; ! grep -v 'No such file or directory' complaints >&2"
	for _, line := range lines(l.ok(find)) {
		name, target, _ := strings.Cut(line, " ")
		if target == "" {
			continue // destroyed meanwhile, too
		}
		key, _, _ := strings.Cut(filepath.Base(target), ".")
		if was, known := names[name]; known && was != key {
			l.t.Errorf("the stored name %s is %s's, and was %s's", name, key, was)
		}
		names[name] = key
	}
}

// work lets all work for d, and longer until enough is done, and kills one after
// the other meanwhile.
func (l *loadTest) work(d time.Duration) {
	l.t.Helper()
	wanted := int(float64(loadPerMinute) * min(1, d.Minutes()))
	names := map[string]string{}
	for n := range loadWorkers {
		l.startShell(n)
		l.startClient(n)
	}
	begin := time.Now()
	every := max(time.Second, min(d/6, 10*time.Second))
	next := begin.Add(every)
	for round := 0; ; {
		time.Sleep(every / 8)
		l.wantNames(names)
		if time.Now().Before(next) {
			continue
		}
		l.backUp()
		// The first and the last part go undisturbed.
		if left := d - time.Since(begin); left > every/2 {
			if round%2 == 0 {
				l.killDaemon()
			} else {
				l.killClient()
			}
			round++
		} else if left <= 0 {
			done := l.readLogs()
			if done >= wanted {
				break
			}
			if -left > loadPatience {
				l.t.Fatalf("%d operations in %v, want %d", done, time.Since(begin), wanted)
			}
		}
		next = time.Now().Add(every)
	}
	l.ok("touch stop")
	for n := range loadWorkers {
		l.ok(fmt.Sprintf("wait $shell%d", n))
		l.await(l.clients[n], "stopped")
	}
	done := l.readLogs()
	l.t.Logf("%d operations in %v; %d stored names seen", done, time.Since(begin).Round(time.Second/10), len(names))
}

// clockOffset is how far the clock that the workers read is from one that nobody
// sets.
func clockOffset(t testing.TB) time.Duration {
	t.Helper()
	var wall, steady unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &steady); err != nil {
		t.Fatal(err)
	}
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &wall); err != nil {
		t.Fatal(err)
	}
	return time.Duration(wall.Nano() - steady.Nano())
}

// TestStockLoad has four stock processes and four shell loops create, change, read
// and destroy objects, each its own and all together some, and sign. Stock
// processes are killed meanwhile, and so is the daemon. Nothing is lost, no name is
// used twice, every signature is good, what everybody saw at any time fits
// together, and the backups that are taken meanwhile restore to whole tokens. In the end
// the mount, each stock process, a new one, stock with its own daemon, and ours after a
// restart of the machine have what is left.
func TestStockLoad(t *testing.T) {
	t.Parallel()
	d := *loadTime
	if testing.Short() {
		d = min(d, 5*time.Second)
	}
	l := newLoadTest(t)
	offset := clockOffset(t)
	before, err := parseView(l.ok("mount_list"))
	if err != nil {
		t.Fatal(err)
	}
	stockBefore, err := parseView(l.ok(l.program + " list " + l.module + " " + l.pin))
	if err != nil {
		t.Fatal(err)
	}
	names := watchNames(t, filepath.Join(l.root, "swtok/TOK_OBJ"))
	l.work(d)

	names.stop(t)
	l.look("mount", l.ok("mount_list"), before.before)
	l.ok("touch list")
	for n := range loadWorkers {
		l.await(l.clients[n], "listed")
		l.look(l.clients[n], l.ok("cat "+l.clients[n]+".list"), stockBefore.before)
	}
	list := l.program + " list " + l.module + " " + l.pin
	l.look("new stock process", l.ok(list), stockBefore.before)
	l.wantSessions()
	l.ok("touch end")
	for n := range loadWorkers {
		l.ok(fmt.Sprintf("wait $client%d", n))
	}
	objects := len(lines(l.ok("ls $T/by-uid")))
	l.want("cat client.err shell.err", "")

	l.checkBackups()
	l.ok("kill -TERM $p11fs; wait $p11fs; cat " + quote(l.log) + " >> daemon.log; rm /dev/shm/*; : > " + quote(l.log))
	l.checkDirectory(objects)
	l.serve()
	l.login()
	l.look("mount after a restart", l.ok("mount_list"), before.before)
	l.ok("cat daemon.log >> " + quote(l.log))
	l.stop()
	h := startStock(t, l.root)
	if got := h.ok("pkcsconf -t"); !strings.Contains(got, "fixture token") {
		t.Errorf("pkcsconf -t: %s", got)
	}
	l.look("stock with its own daemon", h.ok(list), stockBefore.before)
	h.stop()

	if moved := (clockOffset(t) - offset).Abs(); moved > d/1000+10*time.Millisecond {
		t.Fatalf("the clock was set by %v: the times of this run tell nothing", moved)
	}
	l.checkResults()
	l.checkSignatures()
	l.checkHistory()
	t.Logf("%d kills; %d processes were killed with the lock held; the slowest was forgotten after %v", l.kills, l.held, l.forgetting.Round(time.Millisecond))
}
