package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p11fs/mountd/mountpoint"
	"p11fs/tokens"
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

// served are the numbers of the slots that a daemon which runs has, by the directories of their
// tokens; nil without a daemon.
type served map[string]string

// served asks the daemon on the mount.
func (e Examination) served() (all served) {
	path, err := mountpoint.Resolve(e.Paths.Mount)
	if err != nil {
		return all
	}
	if state, err := mountpoint.Probe(path); err != nil || state != mountpoint.Live {
		return all
	}
	var texts [2]string
	for i, name := range []string{"status", "slots"} {
		if texts[i], err = readWithin(answerTime, filepath.Join(path, name)); err != nil {
			return all // of which another check tells
		}
	}
	return servedBy(texts[0], texts[1])
}

// servedBy reads the status of a daemon, and the table of its slots.
func servedBy(status, slots string) served {
	all := served{}
	dirs := map[string]string{} // by the names
	for line := range strings.Lines(status) {
		if store, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "store "); ok {
			name, dir, _ := strings.Cut(store, " ")
			dirs[name] = dir
		}
	}
	for line := range strings.Lines(slots) {
		number, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		if dir := dirs[name]; dir != "" {
			all[dir] = number
		}
	}
	return all
}

// notServed says which tokens a daemon that runs does not serve, or whose keys it
// cannot use, by its status.
func notServed(f Finding, status string) Finding {
	const mend = "restart the daemon once that is mended"
	var all troubles
	for line := range strings.Lines(status) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, why, failed := strings.Cut(rest, " failed: ")
		switch {
		case what == "store" && failed:
			name, _, _ := strings.Cut(rest, " ")
			mend := mend
			if before, how, told := strings.Cut(why, tokens.ToMend); told { // it comes by itself then
				why, mend = before, how
			}
			all.add(mend, "the token %s is not served: %s", name, why)
		case what == "offline":
			all.add("bring back the device or server that has its keys: the token is online by itself then", "the token %s", strings.Replace(rest, ": ", " is offline: ", 1))
		case what == "member" && strings.Contains(rest, " wrong: "):
			which, wrong, _ := strings.Cut(rest, " wrong: ")
			token, address, _ := strings.Cut(which, ": ")
			wrong, mend, _ := strings.Cut(wrong, tokens.ToMend)
			all.add(mend, "a member of the fleet of %s, %s: %s", token, address, wrong)
		case what == "damaged" && strings.Contains(rest, tokens.ManyAdvice):
			about, more, _ := strings.Cut(rest, ": "+tokens.ManyAdvice)
			all.add(tokens.ManyAdvice+more, "the token %s", about)
		case what == "damaged":
			all.add("put it back from a backup of the token's directory", "the token %s", strings.Replace(rest, " ", " has damaged files: ", 1))
		}
	}
	return all.found(f)
}
