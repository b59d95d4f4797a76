package fs

import (
	"fmt"
	"os/exec"
	"strings"
)

// fusermountDetach takes a user's mount away with the program that made it.
func fusermountDetach(dir string) error {
	var last error
	for _, name := range []string{"fusermount3", "fusermount"} {
		bin, err := exec.LookPath(name)
		if err != nil {
			last = err
			continue
		}
		out, err := exec.Command(bin, "-u", "-z", "--", dir).CombinedOutput()
		if err == nil {
			return nil
		}
		last = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return last
}
