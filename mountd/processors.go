package mountd

import (
	"os"
	"runtime"
	"strconv"
)

// Processors returns how many processors the process has, by its affinity and its cgroup's
// quota, and lets twice as many goroutines run at once. It changes the whole process, so the
// program calls it, once. Who sets GOMAXPROCS means both numbers, and nothing is changed.
//
// Go runs goroutines on GOMAXPROCS threads. A thread of these that is in a C function or in
// a system call keeps its place until the runtime's monitor, a thread as the others, takes it
// away, 20 µs later at the soonest; and one that the kernel took from its processor keeps it
// however long it waits to get that back. On a machine where others want the processors most
// threads are in one of these states, and with a place for each processor only a request that
// could be answered waits for a place, while the kernel would give its thread a processor.
// What bounds work by the number of processors counts those, and not the places.
func Processors() int {
	n := runtime.GOMAXPROCS(0)
	// This is the condition by which the runtime took the number from there.
	if set, err := strconv.ParseInt(os.Getenv("GOMAXPROCS"), 10, 32); err == nil && set > 0 {
		return n
	}
	runtime.GOMAXPROCS(2 * n)
	return n
}
