package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// crashes is how often TestCrash kills the daemon.
var crashes = flag.Int("crashes", 150, "kill -9 the daemon this many times in TestCrash")

// TestCrash kills the daemon at random moments of a loop that creates,
// changes, renames and destroys objects and changes the PIN. After each
// restart, which gets no help over the stale mount, each object is the old one
// or the new one, and no stored name was used twice.
func TestCrash(t *testing.T) {
	t.Parallel()
	n := *crashes
	if testing.Short() {
		n = min(n, 20)
	}
	seed := uint64(time.Now().UnixNano())
	moments := rand.New(rand.NewPCG(seed, 1))
	d := startDaemon(t, daemonConfig{binary: plainBinary(t)})
	d.initToken(d.terminal())
	client := newOrders(t, d, "p11io", "crash", d.path(), userPIN, fmt.Sprint(seed))
	client.order("check", "ok")
	begin, changes := time.Now(), 0
	var starting time.Duration
	for i := range n {
		answer := client.begin("work")
		time.Sleep(time.Duration(moments.Int64N(int64(80 * time.Millisecond))))
		d.crash()
		down := answer()
		var did int
		if _, err := fmt.Sscanf(down, "down after %d", &did); err != nil {
			t.Fatalf("round %d: %q", i, down)
		}
		// What fails while the daemon lives is a bug, not a crash.
		if !strings.Contains(down, "not connected") && !strings.Contains(down, "connection abort") && !strings.Contains(down, "input/output") {
			t.Fatalf("round %d: %s", i, down)
		}
		changes += did
		at := time.Now()
		d.start()
		starting += time.Since(at)
		if got := client.begin("check")(); !strings.HasPrefix(got, "ok") {
			t.Fatalf("seed %d, round %d, after %q: %s\n%s", seed, i, down, got, d.said())
		}
	}
	t.Logf("%d crashes, %d changes in %v; a start takes %v", n, changes, time.Since(begin).Round(time.Millisecond), (starting / time.Duration(max(n, 1))).Round(time.Millisecond))
	if n >= 100 && changes < n {
		t.Errorf("only %d changes in %d rounds: the test tests nothing", changes, n)
	}
}
