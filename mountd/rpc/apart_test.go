package rpc

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestApart: a worker that is where another is moves to a processor of its own, if there is
// one, and may run everywhere after that.
func TestApart(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for moved := before.Count() == 1; ; time.Sleep(time.Millisecond) {
		var a apart
		var mine, other place
		a.note(&other) // here
		was := other.processor.Load()
		a.enter(&mine)
		if err := unix.SchedGetaffinity(0, &after); err != nil {
			t.Fatal(err)
		}
		if after != before {
			t.Fatalf("the thread may run on %v, and before on %v", after, before)
		}
		moved = moved || mine.processor.Load() != was // the kernel may have moved it back already
		a.leave(&mine)
		a.leave(&mine)
		a.leave(&other)
		for i := range a.at {
			if n := a.at[i].Load(); n != 0 {
				t.Fatalf("%d workers are counted on processor %d when none is left", n, i)
			}
		}
		if moved {
			return
		}
	}
}
