package mountd

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How often it is looked for memory to give back, and how much is too little to look
// for, in bytes.
const (
	memoryEvery = 5 * time.Second
	memoryWorth = 64 << 20
)

// clientMemory is what the heap may have, in bytes, beside twice what it has without
// clients. The engine's limits let all of them together hold less. Without it the heap
// grew to twice that before it is collected.
const clientMemory = 384 << 20

// returnMemory bounds the heap, and gives memory back to the system that clients have
// had. The runtime keeps it for minutes: it collects no garbage while nothing is made.
func (d *Daemon) returnMemory() {
	end, done := make(chan struct{}), make(chan struct{})
	before := debug.SetMemoryLimit(-1)
	d.later(func() error {
		close(end)
		<-done
		debug.SetMemoryLimit(before)
		return nil
	})
	own := heapSize() // what it is without clients
	limit := func() {
		if before == math.MaxInt64 { // nobody has set GOMEMLIMIT
			debug.SetMemoryLimit(int64(2*own + clientMemory))
		}
	}
	limit()
	go func() {
		defer close(done)
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			// A heap doubles before it is collected.
			if held := d.engine.Stats().Bytes; heapSize() > 2*(own+held)+memoryWorth {
				runtime.GC() // a sync.Pool has let go at the second collection
				debug.FreeOSMemory()
				own = max(0, heapSize()-d.engine.Stats().Bytes)
				limit()
			}
		}
	}()
}

// heapSize is how much memory the heap has from the system, in bytes.
func heapSize() (n int) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	for _, s := range samples {
		n += int(s.Value.Uint64())
	}
	return n
}
