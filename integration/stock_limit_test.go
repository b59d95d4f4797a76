package integration

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStockLimit fills the list of public objects that stock processes share: the
// mount stops at 2047, stock at 2048, and both go on after.
func TestStockLimit(t *testing.T) {
	t.Parallel()
	h := startLive(t)
	m := readManifest(t)
	h.ok("echo " + m.UserPIN + " > $T/login")
	a := h.client(0)
	a.want("login "+m.UserPIN, "ok")
	public, private := 0, 0
	for _, o := range m.Objects {
		if o.Private {
			private++
		} else {
			public++
		}
	}
	count := func() int {
		t.Helper()
		n, err := strconv.Atoi(strings.TrimSpace(h.ok("ls $O | wc -l")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const limit, full = 2047, 2048
	a.want(fmt.Sprintf("many m %d", limit-1-public), "ok")
	if got := count(); got != limit-1+private {
		t.Errorf("the mount lists %d objects, want %d", got, limit-1+private)
	}
	h.ok("echo 'aes:128 label=last private=false' > $T/generate && cat $T/generate")
	h.fails("sh -c '/bin/echo aes:128 label=more private=false > $T/generate'", syscall.ENOSPC)
	if got := h.ok("cat $T/error"); !strings.Contains(got, "CKR_HOST_MEMORY") {
		t.Errorf("error says %q", got)
	}
	h.ok("echo secret > $T/data/note") // the other list has room
	a.want("create stock-last one 0", "ok")
	a.want("create stock-more two 0", "0x2")
	if got := count(); got != full+private+1 {
		t.Errorf("the mount lists %d objects, want %d", got, full+private+1)
	}
	// A destroy from the full list costs no private object.
	before := h.ok("cat $O/known-aes-256.sec/attr/id")
	h.ok("rmdir $O/m0.dat")
	h.want("cat $O/known-aes-256.sec/attr/id", before)
	a.want("value m1", "ok x")
	h.fails("sh -c '/bin/echo aes:128 label=more private=false > $T/generate'", syscall.ENOSPC)
	a.want("create stock-again one 0", "ok")
	// Stock's own destroy from the full list clears the first private entry.
	a.want("destroy m2", "ok")
	if got, want := count(), full-1+private+1; got != want {
		t.Errorf("the mount lists %d objects, want %d", got, want)
	}
	h.ok("rmdir $O/m3.dat")
	h.ok("sleep 2.1; ls $O >/dev/null")
	h.ok("{ echo 'aes:128 label=more private=false' > $T/generate && cat $T/generate; } || { cat $T/error >&2; false; }")
	h.want("cat $O/known-aes-256.sec/attr/id", before)
	// What stock lost it has again: a new stock process lists as much as the mount.
	a.end()
	b := h.client(1)
	b.want("login "+m.UserPIN, "ok")
	// The hardware feature is not found without its class, and one label is empty.
	if got, want := len(strings.Split(strings.TrimPrefix(b.do("list"), "ok "), " ")), count()-1; got != want {
		t.Errorf("stock lists %d objects, the mount %d", got, want)
	}
	b.end()
	h.stop()
}

// TestStockKilled kills stock processes, and the daemon, in the middle of work.
func TestStockKilled(t *testing.T) {
	t.Parallel()
	h := startLive(t)
	m := readManifest(t)
	h.ok("echo " + m.UserPIN + " > $T/login")
	a, b := h.client(0), h.client(1)
	for _, c := range []*client{a, b} {
		c.want("login "+m.UserPIN, "ok")
	}
	attached := func() int {
		t.Helper()
		n, err := strconv.Atoi(strings.TrimSpace(h.ok("awk '$1 == \"shm/slot-manager\" { print $4 }' $P/resources")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	sessions := func() string {
		t.Helper()
		return strings.TrimSpace(h.ok("pkcsconf -t | awk '/^\tSessions:/ { sub(\"/.*\", \"\", $2); print $2 }'"))
	}
	if got := attached(); got != 3 {
		t.Errorf("%d processes attached, want the daemon and two", got)
	}
	if got := sessions(); got != "3" {
		t.Errorf("%s sessions, want 3", got)
	}

	// A stock process dies in the middle of its creations.
	h.ok("echo 'many killed 2000' >&3; sleep 0.3; kill -9 $client0")
	listed := lines(h.ok("ls $O"))
	if len(listed) <= len(m.Objects) {
		t.Error("the process had not begun")
	}
	h.ok("echo after > $T/data/after-kill") // its lock is free
	b.want("value after-kill", "ok after")
	deadline := time.Now().Add(13 * time.Second)
	for attached() != 2 || sessions() != "2" {
		if time.Now().After(deadline) {
			t.Fatalf("%d processes attached and %s sessions, a collection period after one of three was killed", attached(), sessions())
		}
		time.Sleep(500 * time.Millisecond)
	}

	// The daemon dies while it creates objects, and while a stock process does.
	h.ok("rm -f made; (i=0; while echo v > $T/data/made-$i; do echo made-$i >> made; i=$((i+1)); done) 2>/dev/null & loop=$!; echo 'many stock 300' >&5")
	h.ok("sleep 1; kill -9 $p11fs; wait $p11fs; wait $loop; true")
	h.ok("IFS= read -r line <&6; [ \"$line\" = ok ]")
	b.want("create alone one 1", "ok") // without a daemon
	h.ok(": > " + quote(h.log))
	h.serve()
	h.ok("echo " + m.UserPIN + " > $T/login")
	made := lines(h.ok("cat made"))
	if len(made) == 0 {
		t.Error("the daemon was killed before it had made anything")
	}
	t.Logf("%d objects were made before the daemon was killed", len(made))
	mount, stock := map[string]bool{}, map[string]bool{}
	for _, n := range lines(h.ok("ls $O")) {
		mount[strings.TrimSuffix(n, ".dat")] = true
	}
	for _, n := range strings.Fields(b.do("list")) {
		stock[n] = true
	}
	for i := range 300 {
		made = append(made, fmt.Sprintf("stock%d", i))
	}
	for _, n := range append(made, "alone", "after-kill") {
		if !mount[n] || !stock[n] {
			t.Errorf("%s: in the mount %v, for stock %v", n, mount[n], stock[n])
		}
	}
	b.want("create afterwards two 0", "ok")
	b.wantObject("afterwards", true)
	if got := attached(); got != 2 {
		t.Errorf("%d processes attached after the restart, want 2", got)
	}
	if got := sessions(); got != "2" {
		t.Errorf("%s sessions after the restart, want 2", got)
	}
	b.end()
	h.stop()
}
