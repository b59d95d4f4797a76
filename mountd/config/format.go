package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// formatText is a line with tokversion: what is before the value, the value, and the rest.
var formatText = regexp.MustCompile(`^(\s*\S+\s*=\s*)("[^"]*"|[^"\s=]+)(.*)$`)

// SetFormat returns the text of a configuration with v as the tokversion of a slot, and
// all else as it is; without a line of tokversion in the block where v is zero. name is the
// file's name in what is reported.
func SetFormat(name, src string, id p11.SlotID, v p11.Version) (string, error) {
	f, _, err := Parse(name, src)
	if err != nil {
		return "", err
	}
	slot, ok := find(f, id)
	if !ok {
		return "", fmt.Errorf("%s has no slot %d", name, uint64(id))
	}
	text := strings.SplitAfter(src, "\n")
	switch at := f.blocks[id].format - 1; {
	case at < 0 && v == (p11.Version{}):
		return src, nil
	case at < 0:
		end := f.blocks[id].end - 1
		indent := text[end][:len(text[end])-len(strings.TrimLeft(text[end], " \t"))]
		text[end] = fmt.Sprintf("%s  %s = %s\n", indent, keyFormat, version(v)) + text[end]
	case v == (p11.Version{}):
		text[at] = ""
	default:
		text[at] = formatText.ReplaceAllString(strings.TrimSuffix(text[at], "\n"), "${1}"+version(v)+"${3}") + "\n"
	}
	out := strings.Join(text, "")
	// Nothing else may mean something else.
	slot.Format, slot.HasFormat = v, v != p11.Version{}
	g, _, err := Parse(name, out)
	if err != nil || len(g.Slots) != len(f.Slots) {
		return "", errors.Join(err, fmt.Errorf("%s cannot be changed: write %s = %s into slot %d by hand", name, keyFormat, version(v), uint64(id)))
	}
	for i, s := range g.Slots {
		want := f.Slots[i]
		if want.ID == id {
			want = slot
		}
		want.Line = s.Line
		if s != want {
			return "", fmt.Errorf("%s cannot be changed: write %s = %s into slot %d by hand", name, keyFormat, version(v), uint64(id))
		}
	}
	return out, nil
}

func find(f *File, id p11.SlotID) (Slot, bool) {
	for _, s := range f.Slots {
		if s.ID == id {
			return s, true
		}
	}
	return Slot{}, false
}

// WriteFormat does so with the file at path, and returns what puts back what was there. The
// file is replaced in one step, durably, and keeps its owner and mode.
func WriteFormat(path string, id p11.SlotID, v p11.Version) (undo func() error, err error) {
	none := func() error { return nil }
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return none, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return none, err
	}
	text, err := SetFormat(path, string(b), id, v)
	if err != nil || text == string(b) {
		return none, err
	}
	return func() error { return replace(path, string(b)) }, replace(path, text)
}

// replace puts a text in the place of a file.
func replace(path, text string) (err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	// A name that can be foreseen could be taken.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+tempMark+"*")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	sweep(path)
	_, err = f.WriteString(text)
	if err == nil && (os.Geteuid() == 0 || int(st.Gid) != os.Getegid()) {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = f.Chmod(os.FileMode(st.Mode & 0o777))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// tempMark is in the name of the next version of a file.
const tempMark = ".p11fs-"

// sweep removes next versions of a file that processes which were killed have left: those
// that are older than any that is being written.
func sweep(path string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+"*"))
	for _, name := range left {
		if st, err := os.Lstat(name); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > time.Hour {
			_ = os.Remove(name)
		}
	}
}
