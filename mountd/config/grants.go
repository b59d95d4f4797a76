package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/engine/grants"
)

// maxGrants bounds the lines of a set: each is looked at where somebody has no login.
const maxGrants = 4096

// LoadGrants reads the grants of all files of a directory, in the order of their names.
// Without the directory there is no set. Whatever is wrong, in any file, is in the error,
// and then there is none.
func LoadGrants(dir string, k Keeper, names grants.Names) (*grants.Set, error) {
	var st unix.Stat_t
	switch err := unix.Stat(dir, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil, nil //nolint:nilnil // no grants are a set: see engine/grants
	case err != nil:
		return nil, fmt.Errorf("%s: %w", dir, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil, &Problem{File: dir, Reason: "it is no directory: make one, with a file of grants in it"}
	case int(st.Uid) != k.UID && st.Uid != 0:
		return nil, &Problem{File: dir, Reason: fmt.Sprintf("it belongs to user %d: chown %d %s", st.Uid, k.UID, dir)}
	case st.Mode&0o022 != 0:
		return nil, &Problem{File: dir, Reason: fmt.Sprintf("others may write to it (mode %04o): chmod go-w %s", st.Mode&0o7777, dir)}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	set := &grants.Set{}
	var errs []error
	for _, e := range entries {
		if leftOver(e.Name()) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		text, err := k.read(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := ParseGrants(name, text, names)
		set.List = append(set.List, list...)
		errs = append(errs, err)
	}
	if len(set.List) > maxGrants {
		errs = append(errs, &Problem{File: dir, Reason: fmt.Sprintf("it has %d grants, and %d are the most: grant a group, or a key of several", len(set.List), maxGrants)})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return set, nil
}

// leftOver says whether a file is what an editor or a package manager has left beside those
// that count.
func leftOver(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.Contains(name, ".dpkg-") {
		return true
	}
	switch filepath.Ext(name) {
	case ".rpmnew", ".rpmsave", ".rpmorig", ".swp":
		return true
	}
	return false
}

// ParseGrants reads the lines of one file. The error has all that are wrong.
func ParseGrants(name, src string, names grants.Names) ([]*grants.Grant, error) {
	var list []*grants.Grant
	var errs []error
	n := 0
	for line := range strings.Lines(src) {
		n++
		g, err := grants.Parse(strings.TrimRight(line, "\r\n"), names)
		switch {
		case err != nil:
			errs = append(errs, &Problem{File: name, Line: n, Reason: err.Error()})
		case g != nil:
			g.At = fmt.Sprintf("%s:%d", name, n)
			list = append(list, g)
		}
	}
	return list, errors.Join(errs...)
}
