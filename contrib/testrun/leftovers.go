package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// How long after the tests something may take to go away.
const settle = 5 * time.Second

// lookAround returns what the tests could leave on the machine, each thing with
// a name of its own.
func lookAround() map[string]bool {
	found := map[string]bool{}
	lines := func(path string, name func(fields []string) string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(b)) {
			if n := name(strings.Fields(line)); n != "" {
				found[n] = true
			}
		}
	}
	lines("/proc/self/mounts", func(f []string) string {
		if len(f) > 2 && strings.Contains(f[2], "p11fs") {
			return "mount " + f[1]
		}
		return ""
	})
	lines("/proc/sysvipc/shm", func(f []string) string {
		if len(f) > 4 && f[0] != "key" {
			return "System V segment " + f[1] + " of process " + f[4]
		}
		return ""
	})
	segments, _ := filepath.Glob("/dev/shm/*")
	for _, s := range segments {
		found["segment "+s] = true
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, p := range processes {
		b, err := os.ReadFile(p)
		if err != nil {
			continue // it ended meanwhile
		}
		switch name := strings.TrimSpace(string(b)); name {
		case "p11fs", "pkcsslotd":
			found["process "+filepath.Base(filepath.Dir(p))+" "+name] = true
		}
	}
	return found
}

// leftovers names what is there now and was not before, and the files in tmp. It
// gives things a moment to go.
func leftovers(before map[string]bool, tmp string) []string {
	for deadline := time.Now().Add(settle); ; time.Sleep(100 * time.Millisecond) {
		var left []string
		for thing := range lookAround() {
			if !before[thing] {
				left = append(left, thing)
			}
		}
		files, _ := filepath.Glob(filepath.Join(tmp, "*"))
		for _, f := range files {
			left = append(left, "file "+f)
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}
