package locks

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is the process that holds the lock of the file at path, by the list in
// proc, which is /proc but for tests; 0 if there is none, or if it is not told.
func Holder(proc, path string) (pid int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(proc, "locks"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		// 1: FLOCK  ADVISORY  WRITE 123 00:2f:4711 0 EOF
		// A line with "->" behind its number is one who waits.
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			return strconv.Atoi(f[4])
		}
	}
	return 0, nil
}
