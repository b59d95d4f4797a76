package integration

import (
	"strings"
	"testing"
	"time"
)

// TestStoppedHolder: a process that holds the API lock of all stock programs and
// is stopped keeps nobody waiting for long, and does not keep the daemon from
// ending.
func TestStoppedHolder(t *testing.T) {
	t.Parallel()
	h := newBesideHost(t)
	h.mount()
	// Two sessions are there, and close while the lock is held.
	h.ok("cat /p11/swtok/sessions/new /p11/swtok/sessions/new")
	lock := "/run/lock/opencryptoki/LCK..APIlock"
	h.ok("flock -F " + lock + " sh -c 'echo held > $STATE/held; exec sleep 600' & holder=$!")
	h.ok("for i in $(seq 100); do [ -s $STATE/held ] && break; sleep 0.1; done; kill -STOP $holder")

	begin := time.Now()
	h.ok("timeout 20 cat /p11/resources /p11/status /p11/swtok/info")
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("what only reads took %v", took)
	}
	if r := h.run("timeout 20 cat /p11/swtok/sessions/new"); r.status != 1 {
		t.Errorf("a session opens with status %d: %s%s", r.status, r.out, r.err)
	}
	if said := h.ok("cat /p11/swtok/error; cat $STATE/log"); !strings.Contains(said, "another process holds the API lock") ||
		!strings.Contains(said, "pid="+strings.TrimSpace(h.ok("echo $holder"))) {
		t.Errorf("who holds the lock is not said:\n%s", said)
	}
	h.ok("timeout 20 rmdir /p11/swtok/sessions/1")
	h.ok("kill -TERM $p11fs")
	h.ok("for i in $(seq 200); do [ -d /proc/$p11fs ] || break; sleep 0.1; done; [ ! -d /proc/$p11fs ] && wait $p11fs")
	h.ok("kill -CONT $holder; kill $holder; wait $holder; true")

	// The next one cleans up.
	h.mount()
	h.umount()
	h.close()
}
