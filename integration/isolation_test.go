package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// view is everything that a terminal can learn of the token without asking
// for anything: every name with its inode number, mode, link count, owner and
// size, and the text of every listed file that is state of the token. The
// counts of the whole daemon are in files of their own.
const view = `grep private $P/resources; cd $P && find . -path ./metrics -prune -o -path ./who -prune -o -path ./resources -prune -o -path ./status -prune -o -printf '%p %i %M %n %U %s\n' | grep -v '^\./swtok/sessions/[0-9]' | sort && cat swtok/info && cat swtok/slot && ls -la swtok/objects swtok/by-id swtok/by-uid swtok/data swtok/certs && cd - >/dev/null`

// privateWork makes everything of which another application must learn
// nothing: a login, private objects of each kind, waiting results, an error,
// session directories and session objects.
var privateWork = []string{
	"echo " + userPIN + " > $T/login",
	"echo 'aes:256 label=hidden-key private=true' > $T/generate && cat $T/generate",
	"echo 'ec:p256 label=hidden-pair id=0x77' > $T/generate && cat $T/generate",
	"echo secret > $T/data/hidden-note",
	"mkdir $T/sessions/hidden-session",
	"echo 'aes:128 label=hidden-session-key token=false' > $T/sessions/hidden-session/generate",
	"echo waiting > $T/digest/sha256",
	"cat $T/sessions/new",
	"p11io write $O/hidden-key.sec/nothing </dev/null || p11io write $T/find <<<'class=nonsense' || true",
}

// checkStranger fails the test for what other learns of the private work that
// term does.
func checkStranger(t *testing.T, term, other *terminal) {
	t.Helper()
	// The public half of a pair is for all to see, so it must not be in the
	// way of the comparison.
	term.ok("echo " + userPIN + " > $T/login")
	term.ok("echo 'ec:p256 label=hidden-pair id=0x77' > $T/generate")
	term.ok("echo > $T/logout")
	before := other.ok(view)
	beforeError := other.ok("cat $T/error")
	beforeStatus := other.ok("cat $T/login; cat $T/pin")
	for _, line := range privateWork {
		if !strings.Contains(line, "hidden-pair") {
			term.ok("bash -c " + quote(line))
		}
	}
	term.want("cat $T/login", "user\n")
	if got := term.ok("ls $O"); !strings.Contains(got, "hidden-key.sec") {
		t.Errorf("the owner does not see its private key: %q", got)
	}
	if term.ok("cat $T/error") == beforeError {
		t.Error("the owner's error is not kept")
	}

	if after := other.ok(view); after != before {
		t.Errorf("another application's work shows:\n%s", difference(before, after))
	}
	if after := other.ok("cat $T/error"); after != beforeError {
		t.Errorf("another application's error shows: %q, before %q", after, beforeError)
	}
	if after := other.ok("cat $T/login; cat $T/pin"); after != beforeStatus {
		t.Errorf("another application's login shows: %q, before %q", after, beforeStatus)
	}
	for _, name := range []string{
		"objects/hidden-key.sec", "objects/hidden-key.sec/encrypt", "objects/hidden-pair.key", "objects/hidden-pair.key/sign", "data/hidden-note",
		"sessions/hidden-session", "sessions/hidden-session/objects/hidden-session-key.sec", "objects/hidden-session-key.sec",
	} {
		other.fails("p11io stat $T/"+name, syscall.ENOENT)
		other.fails("p11io read $T/"+name, syscall.ENOENT)
		other.fails("p11io stat $T/"+strings.ReplaceAll(name, "hidden", "absent"), syscall.ENOENT)
	}
	// A result that waits is its session's alone, and is read once.
	other.fails("p11io read $T/digest/sha256", syscall.ENODATA)
	if got := other.ok("echo label=hidden-key > $T/find && cat $T/find"); got != "" {
		t.Errorf("another application finds %q", got)
	}
	if got := term.ok("cat $T/digest/sha256 | wc -c"); strings.TrimSpace(got) != "32" {
		t.Errorf("the waiting result is %s bytes long", got)
	}
	term.fails("p11io read $T/digest/sha256", syscall.ENODATA)

	// Logging out is the caller's own.
	other.run("echo > $T/logout")
	term.want("cat $T/login", "user\n")
	term.ok("rmdir $T/sessions/hidden-session")
	term.ok("rmdir $O/hidden-key.sec && rm $T/data/hidden-note && echo > $T/logout")
}

// difference is the lines that only one of two texts has.
func difference(a, b string) string {
	count := map[string]int{}
	for _, l := range lines(a) {
		count[l]++
	}
	for _, l := range lines(b) {
		count[l]--
	}
	var out strings.Builder
	for _, l := range append(lines(a), lines(b)...) {
		switch n := count[l]; {
		case n > 0:
			fmt.Fprintf(&out, "-%s\n", l)
		case n < 0:
			fmt.Fprintf(&out, "+%s\n", l)
		}
		count[l] = 0
	}
	return out.String()
}

func TestTwoTerminals(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, daemonConfig{})
	term, other := d.terminal(), d.terminal()
	d.initToken(term)
	checkStranger(t, term, other)
	checkStranger(t, other, term)
}

// Sessions of one number, or of one name, that two terminals of a user have are two: one terminal goes
// on in its own, also when it is in there, after the other one has closed its session.
func TestSessionClosedElsewhere(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, daemonConfig{})
	term, other := d.terminal(), d.terminal()
	for _, begin := range []string{"n=$(cat $T/sessions/new) && echo $n", "n=work && mkdir $T/sessions/$n && echo $n"} {
		name := term.ok(begin)
		other.want(begin, name)
		term.ok("cd $T/sessions/$n && cat info")
		other.ok("cat $T/sessions/$n/info && rmdir $T/sessions/$n")
		other.fails("p11io stat $T/sessions/"+strings.TrimSpace(name), syscall.ENOENT)
		term.ok("cat info && echo label=none > find && cat find")
		term.ok("cd - && echo label=none > $T/sessions/$n/find && cat $T/sessions/$n/find && rmdir $T/sessions/$n")
	}
}

func TestTwoUsers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := startDaemon(t, daemonConfig{system: true})
	alice, bob := d.terminalOf(anotherUser(t, "nobody", "pkcs11")), d.terminalOf(anotherUser(t, "daemon", "pkcs11"))
	root := d.terminal()
	d.initToken(root)
	checkStranger(t, alice, bob)
	checkStranger(t, bob, root)
	checkStranger(t, root, alice)

	// Who is not in the group stays out.
	outsider := d.terminalOf(anotherUser(t, "games"))
	outsider.fails("ls $P", syscall.EACCES)
	outsider.fails("cat $T/info", syscall.EACCES)
	outsider.fails("sh -c '/bin/echo "+userPIN+" >$T/login'", syscall.EACCES)

	// A session directory is its maker's, root or not.
	alice.ok("mkdir $T/sessions/own && stat -c %a $T/sessions/own | grep -qx 700")
	bob.fails("p11io stat $T/sessions/own", syscall.ENOENT)
	root.fails("p11io stat $T/sessions/own", syscall.ENOENT)
}

// A caller in a process namespace below the daemon's has another pid there
// than the daemon sees: it is an application like any other.
func TestCallerInChildNamespace(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "unshare")
	d := startDaemon(t, daemonConfig{})
	term := d.terminal()
	other := d.terminal("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "setsid", "--wait", "sh")
	d.initToken(term)
	checkStranger(t, term, other)
	checkStranger(t, other, term)
}

// A caller whose pid the daemon cannot see is nobody: the kernel says pid 0.
func TestCallerOutsideTheNamespace(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "unshare", "mount", "umount")
	d := newDaemon(t, daemonConfig{})
	// The daemon lives in a process namespace of its own with its own /proc,
	// as in a container, and its mount travels to the outside through a
	// shared directory.
	for _, line := range [][]string{{"--bind", d.dir, d.dir}, {"--make-shared", d.dir}} {
		if out, err := command("mount", line...); err != nil {
			t.Fatalf("mount %q: %v\n%s", line, err, out)
		}
	}
	t.Cleanup(func() {
		d.kill()
		if out, err := command("umount", d.dir); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	d.c.wrap = []string{"unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "sh", "-c",
		`mount --make-private /proc && mount -t proc proc /proc && "$@"`, "sh"}
	d.start()
	inside := d.pid()

	nobody := d.terminal()
	member := d.terminal("nsenter", "--target", fmt.Sprint(inside), "--pid", "--mount", "setsid", "--wait", "sh")
	d.initToken(member)
	member.ok("echo " + userPIN + " > $T/login")
	member.ok("echo 'ec:p256 label=pair' > $T/generate && cat $T/generate")
	member.ok("echo 'aes:256 label=hidden private=true' > $T/generate && cat $T/generate")
	member.ok("ls $O/pair.key $O/hidden.sec")

	// Public objects show, nothing private does.
	if got := nobody.ok("ls $O"); got != "pair.pub\n" {
		t.Errorf("nobody sees %q, want pair.pub only", got)
	}
	nobody.ok("cat $O/pair.pub/public.pem | openssl pkey -pubin -noout")
	nobody.ok("cat $T/info $T/mechanisms $P/status $P/slots >/dev/null")
	nobody.fails("p11io stat $O/hidden.sec", syscall.ENOENT)
	// State there is none.
	for _, line := range []string{
		"echo " + userPIN + " | p11io write $T/login",
		"echo data | p11io write $T/digest/sha256",
		"echo label=pair | p11io write $T/find",
		"echo aes:128 | p11io write $T/generate",
		"p11io mkdir $T/sessions/x",
		"p11io read $T/sessions/new",
	} {
		nobody.fails(line, syscall.EOPNOTSUPP)
	}
	member.want("cat $T/login", "user\n")
	member.close()
	nobody.close()
	d.stop()
}

// An application ends with its session leader, and all that it had goes,
// though other processes of the session live on.
func TestApplicationEndsWithItsLeader(t *testing.T) {
	t.Parallel()
	d, watcher := ready(t, daemonConfig{})
	idle := applications(t, watcher)
	term := d.terminal()
	term.ok("echo " + userPIN + " > $T/login && mkdir $T/sessions/mine && echo waiting > $T/digest/sha256")
	out := filepath.Join(term.dir, "heir")
	// A child of the session looks once the shell is gone.
	term.ok(fmt.Sprintf("{ while kill -0 %d 2>/dev/null; do sleep 0.02; done; sleep 1; { cat $T/login; cat $T/digest/sha256; ls $T/sessions; cat $T/error; } >%s.tmp 2>&1; mv %s.tmp %s; } &", term.pid(), out, out, out))
	if n := applications(t, watcher); n != idle+1 {
		t.Errorf("%d applications, want %d", n, idle+1)
	}
	if err := syscall.Kill(term.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = term.cmd.Wait()
	eventually(t, "the application to end", func() bool { return applications(t, watcher) <= idle })
	var heir []byte
	eventually(t, "the child's look", func() (ok bool) {
		var err error
		heir, err = os.ReadFile(out)
		return err == nil
	})
	if strings.Contains(string(heir), "user") || strings.Contains(string(heir), "mine") {
		t.Errorf("what the leader had outlives it: %q", heir)
	}
	if !strings.Contains(string(heir), "its session leader has exited") {
		t.Errorf("its children are not told why nothing works: %q", heir)
	}
	watcher.want("cat $T/login", "user\n")
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// applications is the number of applications that the daemon knows.
func applications(t testing.TB, term *terminal) int {
	t.Helper()
	return counted(t, term, "applications")
}

// counted returns one count of the file status.
func counted(t testing.TB, term *terminal, name string) int {
	t.Helper()
	for _, line := range lines(term.ok("cat $P/status")) {
		var n int
		if _, err := fmt.Sscanf(line, name+" %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("status does not count %s", name)
	return 0
}

// held is what the daemon holds for its callers, by the metrics of that name:
// descriptors of the system, open files of the tree, operations.
func held(t testing.TB, term *terminal) map[string]float64 {
	t.Helper()
	counts := map[string]float64{}
	for _, line := range lines(term.ok("cat $P/metrics")) {
		for _, name := range []string{"process_open_fds", "p11fs_open_handles", "p11fs_operations", "p11fs_session_objects"} {
			var n float64
			if _, err := fmt.Sscanf(line, name+" %g", &n); err == nil {
				counts[name] = n
			}
		}
	}
	if len(counts) != 4 {
		t.Fatalf("metrics has only %v", counts)
	}
	return counts
}
