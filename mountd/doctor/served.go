package doctor

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// answerTime is how long a daemon has to tell its status.
const answerTime = 5 * time.Second

// readWithin reads a file that a daemon serves, which may not answer.
func readWithin(limit time.Duration, path string) (string, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		b, err := os.ReadFile(path)
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		return string(r.text), r.err
	case <-time.After(limit):
		return "", fmt.Errorf("no answer for %v", limit)
	}
}

// notServed says which token a daemon that runs does not serve, or whose keys it
// cannot use, by its status; empty if there is none.
func notServed(status string) string {
	var first string
	more := 0
	for line := range strings.Lines(status) {
		line = strings.TrimSpace(line)
		what, rest, _ := strings.Cut(line, " ")
		_, why, failed := strings.Cut(rest, " failed: ")
		switch {
		case what == "store" && failed:
			name, _, _ := strings.Cut(rest, " ")
			line = fmt.Sprintf("the token %s is not served: %s", name, why)
		case what == "offline":
			line = "the token " + strings.Replace(rest, ": ", " is offline: ", 1)
		default:
			continue
		}
		if first == "" {
			first = line
		} else {
			more++
		}
	}
	if more > 0 {
		first += fmt.Sprintf(" (and %d more)", more)
	}
	return first
}
