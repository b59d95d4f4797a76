// Package mountpoint looks after the directory that p11fs is mounted on: it
// reads the kernel's list of mounts, tells a live mount from one whose daemon
// died, and takes mounts away, also for users who may not call umount(2).
//
// Nothing here opens a file in a mount, so a daemon may use it on its own.
package mountpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Type is the file system type of a p11fs mount.
const Type = "fuse.p11fs"

// mountinfo is the kernel's list of the mounts that this process sees.
const mountinfo = "/proc/self/mountinfo"

// probeTimeout bounds how long a mount may take to answer. One that takes longer
// hangs, and so has a daemon.
const probeTimeout = 2 * time.Second

// State is what a directory is as a mount point.
type State int

// The states of a mount point.
const (
	Free  State = iota // no p11fs is mounted there
	Live               // a p11fs is mounted there and its daemon runs
	Stale              // a p11fs is mounted there and its daemon is gone
)

// Resolve returns the absolute path of a mount point with no symbolic links in
// it. The last element may be absent, and may be a mount whose daemon died, on
// which the kernel refuses every call.
func Resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 40 { // the kernel's own limit on links in a row
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, os.ErrNotExist) {
			return path, nil // nothing there yet: the caller makes it, or fails
		}
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", fmt.Errorf("%s: %w", path, unix.ELOOP)
}

// Probe finds out what is mounted on path, which Resolve has returned.
func Probe(path string) (State, error) {
	mounts, err := List()
	if err != nil {
		return Free, err
	}
	return probe(mounts, path), nil
}

func probe(mounts []Mount, path string) State {
	if topOn(mounts, path).Type != Type {
		return Free
	}
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(path, &st)
	}()
	select {
	case err := <-answer:
		// Anything else, EACCES above all, comes from a mount that lives.
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return Stale
		}
	case <-time.After(probeTimeout):
	}
	return Live
}

// Clean takes away every p11fs mount on path whose daemon is gone, one on top
// of the other, and returns how many there were. It leaves live ones alone.
func Clean(ctx context.Context, path string) (int, error) {
	for n := 0; ; n++ {
		state, err := Probe(path)
		if err != nil || state != Stale {
			return n, err
		}
		if err := Detach(ctx, path); err != nil {
			return n, fmt.Errorf("cleaning the stale mount: %w", err)
		}
	}
}

// Mount is one line of the kernel's list of mounts.
type Mount struct {
	Device  string // major:minor, of the file system; the same wherever it is mounted
	Path    string
	Type    string // such as ext4, or fuse.p11fs
	Source  string
	Options []string // of the file system, such as user_id=1000
}

// UserID is the user who mounted a FUSE file system, as the kernel writes it.
func (m Mount) UserID() string {
	for _, o := range m.Options {
		if id, ok := strings.CutPrefix(o, "user_id="); ok {
			return id
		}
	}
	return ""
}

// List returns all mounts, in the order in which they cover each other.
func List() ([]Mount, error) {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	return parse(string(b)), nil
}

// Ours returns the p11fs mounts.
func Ours() ([]Mount, error) {
	all, err := List()
	return ours(all), err
}

func ours(mounts []Mount) []Mount {
	return slices.DeleteFunc(mounts, func(m Mount) bool { return m.Type != Type })
}

// topOn is the last mount on path, which covers those before it; zero without one.
func topOn(mounts []Mount, path string) (top Mount) {
	for _, m := range mounts {
		if m.Path == path {
			top = m
		}
	}
	return top
}

// parse reads mountinfo (proc(5)): ID, parent, device, root, mount point,
// options, optional fields up to "-", type, source, super options.
func parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 6 || len(tail) < 2 {
			continue
		}
		m := Mount{Device: head[2], Path: unescape(head[4]), Type: unescape(tail[0]), Source: unescape(tail[1])}
		if len(tail) > 2 {
			m.Options = strings.Split(unescape(tail[2]), ",")
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape undoes what the kernel does with blanks, newlines and backslashes.
func unescape(s string) string { return escapes.Replace(s) }

var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\043`, "#", `\134`, `\`) //nolint:gochecknoglobals // a table, never written
