// Docsite makes one HTML site of the pages and the manual pages, for make docs:
//
//	docsite -man build/docs/man -out build/docs/html
//
// The pages are those that docs/README.md lists, in its order. The site is files alone, which
// a browser shows from the disk: no script, nothing fetched from elsewhere. A link or an anchor
// that leads nowhere ends it with an error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	root := flag.String("root", ".", "the directory of the source")
	man := flag.String("man", "", "the directory of the manual pages")
	out := flag.String("out", "", "the directory to write to, which is made anew")
	flag.Parse()
	if err := run(*root, *man, *out); err != nil {
		fmt.Fprintln(os.Stderr, "docsite:", err)
		os.Exit(1)
	}
}

func run(root, man, out string) error {
	if man == "" || out == "" || flag.NArg() > 0 {
		return errors.New("usage: docsite [-root DIR] -man DIR -out DIR")
	}
	manuals, err := readManuals(man)
	if err != nil {
		return err
	}
	files, err := build(root, manuals)
	if err != nil {
		return err
	}
	if err := errors.Join(check(files)...); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(out, name), b, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%s has %d files: begin with index.html\n", out, len(files))
	return nil
}

// A manual is a manual page, such as p11fs.1.
type manual struct {
	name string
	body []byte // HTML
}

// title is how people write the page: p11fs(1).
func (m manual) title() string {
	name, section, _ := cutLast(m.name, ".")
	return name + "(" + section + ")"
}

// readManuals has mandoc, which knows both kinds of manual pages, write each of a directory
// in HTML.
func readManuals(dir string) (list []manual, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.[1-8]"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s has no manual pages: make man writes them", dir)
	}
	slices.Sort(paths)
	for _, path := range paths {
		body, err := exec.Command("mandoc", "-T", "html", "-O", "fragment,man=%N.%S.html", path).Output()
		if err != nil {
			return nil, fmt.Errorf("mandoc %s: %w: install the package mandoc if it is missing", path, err)
		}
		list = append(list, manual{filepath.Base(path), body})
	}
	return list, nil
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
