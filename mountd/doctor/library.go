package doctor

import (
	"debug/elf"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"p11fs/mountd"
)

// maxNeeded bounds how many libraries one is looked for in.
const maxNeeded = 64

// libraries tells which of stock's own libraries of the tokens that p11fs serves cannot be
// loaded by stock: some distributions' lack functions that they call, and their slots are
// absent from stock's list without a word.
func (e Examination) libraries() Finding {
	f := Finding{Check: "stock libraries"}
	slots, _, err := e.Slots()
	if err != nil || e.Mode != mountd.System {
		return f.good("of no account to a daemon of your own, or not known without a configuration")
	}
	var said []string
	for _, s := range slots {
		if s.Kind == nil {
			continue
		}
		for _, path := range e.stockLibrary(s.Kind.Library) {
			if lacks := e.lacking(path); lacks != "" {
				said = append(said, fmt.Sprintf("openCryptoki's own %s cannot be loaded, as there is no %s: p11fs serves %s all the same", filepath.Base(path), lacks, s.Place.Name))
				break
			}
		}
	}
	if len(said) == 0 {
		return f.good("none is seen to lack a function")
	}
	return f.good("%s", strings.Join(said, "; "))
}

// libraryDirs are where a machine has its libraries.
func (e Examination) libraryDirs() (dirs []string) {
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib64", "lib64", "usr/lib", "lib"} {
		found, _ := filepath.Glob(e.path(pattern)) // the pattern is a good one
		dirs = append(dirs, found...)
	}
	return dirs
}

// stockLibrary is where stock has its library of a kind of token.
func (e Examination) stockLibrary(name string) (paths []string) {
	for _, dir := range e.libraryDirs() {
		found, _ := filepath.Glob(filepath.Join(dir, "opencryptoki/stdll", name+".so*")) // likewise
		paths = append(paths, found...)
	}
	return paths
}

// lacking is the first function that a library calls and that neither it nor one that it
// needs has, or the first of these that is not there; empty if it can be loaded, or cannot
// be looked into.
func (e Examination) lacking(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return ""
	}
	has := make(map[string]bool)
	needed, _ := f.ImportedLibraries() // without them it needs none
	queue := slices.Clone(needed)
	for i := 0; i < len(queue); i++ {
		if i == maxNeeded {
			return ""
		}
		more, ok := e.exports(filepath.Dir(path), queue[i], has)
		if !ok && i < len(needed) {
			return queue[i]
		}
		for _, m := range more {
			if !slices.Contains(queue, m) {
				queue = append(queue, m)
			}
		}
	}
	for _, s := range symbols {
		if s.Section == elf.SHN_UNDEF && elf.ST_BIND(s.Info) == elf.STB_GLOBAL && !has[s.Name] {
			return s.Name
		}
	}
	return ""
}

// exports adds to has what a library has, and returns what it needs itself; false if it is
// not there.
func (e Examination) exports(beside, name string, has map[string]bool) (needs []string, ok bool) {
	for _, dir := range append([]string{beside}, e.libraryDirs()...) {
		f, err := elf.Open(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			continue
		}
		symbols, err := f.DynamicSymbols()
		needs, _ = f.ImportedLibraries() // without them it needs none
		_ = f.Close()                    // it was read only
		if err != nil {
			continue
		}
		for _, s := range symbols {
			if s.Section != elf.SHN_UNDEF {
				has[s.Name] = true
			}
		}
		return needs, true
	}
	return nil, false
}
