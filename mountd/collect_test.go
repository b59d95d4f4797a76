package mountd

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// TestCollectLarge: a heap that is large grows by less before it is collected, for as long
// as it is, and a program's own setting stays.
func TestCollectLarge(t *testing.T) {
	growth := func() int {
		percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(percent)
		return int(percent[0].Value.Uint64())
	}
	was := debug.SetGCPercent(growthSmall)
	defer debug.SetGCPercent(was)
	end := collectLarge()
	becomes := func(want int) {
		t.Helper()
		for limit := time.Now().Add(time.Minute); growth() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("the heap grows by %d %%, want %d", growth(), want)
			}
			runtime.GC()
		}
	}
	large := make([]byte, 2*largeHeap)
	becomes(growthLarge)
	runtime.KeepAlive(large)
	becomes(growthSmall)
	large = make([]byte, 2*largeHeap)
	becomes(growthLarge)
	end()
	for range 3 {
		runtime.GC()
		if growth() != growthSmall {
			t.Fatal("it goes on after the end")
		}
	}
	runtime.KeepAlive(large)

	debug.SetGCPercent(200)
	end = collectLarge()
	if runtime.GC(); growth() != 200 {
		t.Error("another setting does not stay")
	}
	if end(); growth() != 200 {
		t.Error("another setting does not stay after the end")
	}
}
