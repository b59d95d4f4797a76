package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A presence is what p11fs who --json says of an application.
type presence struct {
	Number                     uint64
	UID                        uint32
	User, Command, Door, Since string
	PID, Sessions, Operations  int
	Calls, Errors              int
	Seconds                    float64
	Logins                     []struct{ Token, User, Since string }
}

// TestWho: who is there, on either door, and kick, which are for root and one's own uid.
func TestWho(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "python3")
	d := newDaemon(t, daemonConfig{system: true})
	d.start()
	root := d.terminal()
	d.initToken(root)
	user := anotherUser(t, "daemon", "pkcs11")
	first, second, other := d.terminalOf(user), d.terminalOf(user), d.terminalOf(anotherUser(t, "nobody", "pkcs11"))
	login := "echo " + userPIN + " > $T/login"
	for _, term := range []*terminal{first, second, other} {
		term.ok(login)
	}
	first.ok("mkdir $T/sessions/x && echo data > $T/digest/sha256")
	who := func(term *terminal) []presence {
		t.Helper()
		var list []presence
		if err := json.Unmarshal([]byte(term.ok("p11fs who --json")), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	of := func(pid int) presence {
		t.Helper()
		list := who(root)
		n := slices.IndexFunc(list, func(p presence) bool { return p.PID == pid })
		if n < 0 {
			t.Fatalf("nobody has pid %d: %+v", pid, list)
		}
		return list[n]
	}
	if list := who(first); len(list) != 2 {
		t.Errorf("the user sees %+v", list)
	}
	for term, sessions := range map[*terminal]int{first: 2, second: 1} {
		p := of(term.pid())
		if p.UID != 1 || p.User != "daemon" || p.Command != "sh" || p.Door != "files" || p.Sessions != sessions || len(p.Since) != 20 || len(p.Logins) != 1 || p.Logins[0].Token != "swtok" || p.Logins[0].User != "user" || len(p.Logins[0].Since) != 20 {
			t.Errorf("%+v", p)
		}
	}
	if got := root.ok("p11fs who"); strings.Count(got, "swtok:user") != 3 || !strings.Contains(got, "daemon") || !strings.Contains(got, "nobody") {
		t.Errorf("who, to root:\n%s", got)
	}
	if got := first.ok("cat $P/who"); strings.Contains(got, "uid=65534") {
		t.Errorf("another's sessions show: %s", got)
	}
	first.ok("for n in 1 2 3; do echo data > $T/digest/sha256 && cat $T/digest/sha256 >/dev/null; done")
	if p := of(first.pid()); p.Calls < 6 || p.Errors != 0 || p.Seconds <= 0 {
		t.Errorf("after three digests: %+v", p)
	}
	wantTop(t, root, first, other)

	// Another's and nobody's are refused alike.
	number := strconv.FormatUint(of(second.pid()).Number, 10)
	for _, n := range []string{number, "99999"} {
		other.fails("/bin/echo "+n+" > $P/kick", syscall.ESRCH)
	}
	other.fails("/bin/echo x > $P/kick", syscall.EINVAL)
	second.want("cat $T/login", "user\n")
	first.ok("p11fs kick " + number)
	second.want("cat $T/login", "public\n")
	first.want("cat $T/login", "user\n")
	second.ok(login)
	root.ok(fmt.Sprintf("p11fs kick %d %d", of(first.pid()).Number, of(second.pid()).Number))
	first.want("cat $T/login", "public\n")
	first.fails("ls $T/sessions/x", syscall.ENOENT)
	first.fails("cat $T/digest/sha256", syscall.ENODATA)
	other.want("cat $T/login", "user\n")
	first.ok(login)

	// A program at the socket.
	first.ok("eval \"$(p11fs env --root " + d.dir + ")\"")
	pid, err := strconv.Atoi(strings.TrimSpace(first.ok("python3 -c " + quote(holdSession) + " " + ownModule(t) + " " + userPIN + " > ready & echo $!")))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program's login", func() bool { return strings.Contains(first.run("cat ready").out, "in") })
	p := of(pid)
	if p.Door != "rpc" || p.Command != "python3" || len(p.Logins) != 1 {
		t.Errorf("the program: %+v", p)
	}
	root.ok(fmt.Sprintf("p11fs kick %d", p.Number))
	if slices.ContainsFunc(who(root), func(q presence) bool { return q.PID == pid }) {
		t.Error("the program still has sessions")
	}
	first.ok(fmt.Sprintf("kill %d", pid))
	for _, term := range []*terminal{first, second, other, root} {
		term.close()
	}
	d.stop()
}

// wantTop: top tells each user of his own applications, and of mechanisms only root.
func wantTop(t *testing.T, root, first, other *terminal) {
	t.Helper()
	for term, want := range map[*terminal][2]int{root: {4, 1}, first: {2, 0}, other: {1, 0}} {
		var top struct{ Callers, Tokens []struct{ PID int } }
		if err := json.Unmarshal([]byte(term.ok("p11fs top --json --once -d 0.1")), &top); err != nil {
			t.Fatal(err)
		}
		if len(top.Callers) != want[0] || min(1, len(top.Tokens)) != want[1] {
			t.Errorf("top tells %+v, want %v", top, want)
		}
	}
	if got := other.ok("p11fs top -d 0.1"); strings.Contains(got, "daemon") || !strings.Contains(got, "WAITS FOR") || strings.Contains(got, "sha256") {
		t.Errorf("top, to another user:\n%s", got)
	}
}

// holdSession loads the module that is its first argument, logs in with the second, says so,
// and waits.
const holdSession = `
import ctypes, sys, time
m = ctypes.CDLL(sys.argv[1])
assert m.C_Initialize(None) == 0
h = ctypes.c_ulong()
slots = (ctypes.c_ulong * 8)()
n = ctypes.c_ulong(8)
assert m.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(n)) == 0
assert m.C_OpenSession(slots[0], ctypes.c_ulong(6), None, None, ctypes.byref(h)) == 0
assert m.C_Login(h, ctypes.c_ulong(1), sys.argv[2].encode(), ctypes.c_ulong(len(sys.argv[2]))) == 0
print("in", flush=True)
time.sleep(600)
`
