// Package cgroup says which systemd unit a process is of, by the control group that the
// kernel has it in.
package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Unit returns the unit of a process, such as nginx.service: one of the system's or, for a
// user other than root, one of that user's own service manager. It is empty for a process of
// no unit, and where it cannot be read. The caller sees to it that the process still lives
// when this returns, so that the answer is of no other with its number.
func Unit(pid int, user uint32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	if user == 0 {
		return System(path(string(b)))
	}
	return User(path(string(b)), user)
}

// path is the control group in what /proc/PID/cgroup says, of systemd's own hierarchy, or
// else of version 2 (cgroups(7)).
func path(text string) string {
	unified := ""
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) < 3:
		case f[1] == "name=systemd":
			return f[2]
		case f[0] == "0" && f[1] == "":
			unified = f[2]
		}
	}
	return unified
}

// System is the system's unit that a control group is of: what stands first that is no
// slice. A user who is given control groups makes others below his unit alone (systemd's
// "Control Group APIs and Delegation").
func System(path string) string {
	unit, _ := first(path)
	return unit
}

// User is likewise that of the service manager of a user.
func User(path string, user uint32) string {
	unit, rest := first(path)
	if unit != "user@"+strconv.FormatUint(uint64(user), 10)+".service" {
		return ""
	}
	unit, _ = first(rest)
	return unit
}

// first cuts a path behind its first part that is no slice.
func first(path string) (unit, rest string) {
	for path != "" {
		var part string
		part, path, _ = strings.Cut(path, "/")
		switch {
		case part == "" || strings.HasSuffix(part, ".slice"):
		case part != ".." && strings.Contains(part, "."): // .. is outside of this process's namespace
			return strings.TrimPrefix(part, "_"), path // which systemd puts before names that the kernel has, too
		default:
			return "", ""
		}
	}
	return "", ""
}
