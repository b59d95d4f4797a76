package mountd

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// A heap that doubles before it is collected is right for a small one, which is collected
// often; one that holds very many objects would have as much garbage again. So a large
// heap grows by a part only.
const (
	largeHeap   = 48 << 20 // bytes that live
	growthSmall = 100      // per cent, Go's own
	growthLarge = 25
)

// A collecting sets how much the heap grows between two collections, after each of them.
type collecting struct {
	mu     sync.Mutex // guards all below
	growth int
	ended  bool
}

// collectLarge does so until end is called. A GOGC that somebody has set stays.
func collectLarge() (end func()) {
	before := debug.SetGCPercent(growthSmall)
	if before != growthSmall {
		debug.SetGCPercent(before)
		return func() {}
	}
	c := &collecting{growth: growthSmall}
	runtime.SetFinalizer(&collected{}, c.after)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended = true
		debug.SetGCPercent(before)
	}
}

// collected is garbage: its finalizer runs after a collection.
type collected struct{ _ *byte }

func (c *collecting) after(g *collected) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	growth := growthSmall
	if live[0].Value.Uint64() > largeHeap {
		growth = growthLarge
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if growth != c.growth {
		c.growth = growth
		debug.SetGCPercent(growth)
	}
	runtime.SetFinalizer(g, c.after)
}
