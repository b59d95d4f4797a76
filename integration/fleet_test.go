package integration

import (
	"flag"
	"testing"
	"time"
)

// fleetTime is how long TestFleet has its machines work; make soak sets it.
var fleetTime = flag.Duration("fleet", 5*time.Second, "let the machines of TestFleet work for this long")

// TestFleet is three machines, each with a daemon, and three members of etcd on a network that
// loses what it is told to. The clocks of the machines are hours apart.
func TestFleet(t *testing.T) {
	if member := flag.Arg(0); member != "" {
		serveMember(t, member)
		return
	}
	t.Parallel()
	f := newFleetTest(t)
	for _, part := range []struct {
		name string
		run  func()
	}{
		{"a daemon killed in each phase", f.killedInEveryPhase}, {"PINs tried at once", f.pinsTriedAtOnce},
		{"histories", f.histories}, {"nothing is readable", f.nothingIsReadable},
	} {
		start := time.Now()
		part.run()
		t.Logf("%s: %v", part.name, time.Since(start).Round(time.Second/10))
	}
}
