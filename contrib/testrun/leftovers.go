package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lookAround returns what the tests could leave on the machine, each thing with
// a name of its own. The tests have tmp as their temporary directory, by which
// their mounts and processes are told from what other people do meanwhile.
func lookAround(tmp string) map[string]bool {
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
	// Besides tmp, where p11fs mounts if it is told no place.
	home, _ := os.UserHomeDir()
	usual := []string{"/p11", filepath.Join(home, "p11"), filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "p11")}
	lines("/proc/self/mounts", func(f []string) string {
		if len(f) > 2 && strings.Contains(f[2], "p11fs") && (strings.HasPrefix(f[1], tmp+"/") || slices.Contains(usual, f[1])) {
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
	// A token's segment is named as its directory is, and some tests have their own
	// directories there.
	for _, name := range []string{"*opencryptoki*", "*" + strings.ReplaceAll(strings.Trim(tmp, "/"), "/", ".") + "*", "Test*"} {
		segments, _ := filepath.Glob("/dev/shm/" + name)
		for _, s := range segments {
			found["segment "+s] = true
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if ofTests(p, tmp) {
			found["process "+filepath.Base(p)] = true
		}
	}
	return found
}

// ofTests says whether a process has the environment of the tests, or may have
// it: a daemon hides its own from the user who runs it.
func ofTests(proc, tmp string) bool {
	if filepath.Base(proc) == strconv.Itoa(os.Getpid()) {
		return false
	}
	env, err := os.ReadFile(filepath.Join(proc, "environ"))
	if err == nil {
		return slices.Contains(strings.Split(string(env), "\x00"), "TMPDIR="+tmp)
	}
	name, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || strings.TrimSpace(string(name)) != "p11fs" {
		return false
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	return err == nil && strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", os.Getuid()))
}

// leftovers names what is there now and was not before, and the files in tmp. It
// gives things until settle to go.
func leftovers(before map[string]bool, tmp string, settle time.Duration) []string {
	for deadline := time.Now().Add(settle); ; time.Sleep(100 * time.Millisecond) {
		var left []string
		for thing := range lookAround(tmp) {
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
