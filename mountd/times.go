package mountd

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// threadTimes is how long the threads of this process have run, and waited for a
// processor, in all. Both are 0 where the kernel does not count it.
func threadTimes() (ran, waited time.Duration) {
	threads, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		return 0, 0
	}
	for _, thread := range threads {
		line, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		var r, w time.Duration
		if _, err := fmt.Sscan(string(line), &r, &w); err == nil {
			ran, waited = ran+r, waited+w
		}
	}
	return ran, waited
}
