package mountd

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// processorsEnv makes the test binary print what Go runs at once, what Processors says, and
// what Go runs at once after it.
const processorsEnv = "P11FS_TEST_PROCESSORS"

// TestProcessors: there are two places for each processor, unless somebody has said how many.
func TestProcessors(t *testing.T) {
	others := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GOMAXPROCS=") })
	for _, set := range []string{"", "1", "3", "0", "many"} {
		t.Run("GOMAXPROCS="+set, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(slices.Clone(others), processorsEnv+"=1", "GOMAXPROCS="+set)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var before, said, after int
			if _, err := fmt.Sscan(string(out), &before, &said, &after); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := 2 * before
			if set == "1" || set == "3" {
				want = before
			}
			if said != before || after != want {
				t.Errorf("%d processors of %d, and %d goroutines at once, want %d", said, before, after, want)
			}
		})
	}
}
