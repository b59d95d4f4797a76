package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/mountd"
	"p11fs/shm"
	"p11fs/tokens"
)

// maxSegment bounds a segment that is looked into: one of 60,000 objects of each kind.
const maxSegment = 2 << 20

// of312 looks at a segment of stock openCryptoki from 3.12 on, of a token that has the format
// of those: its programs list by it the objects of the time when one of them did so last. It
// reports whether the segment is such a one.
func (e Examination) of312(path, name string, f *Finding, all *troubles) bool {
	s, ok := e.slotOf(path)
	if !ok || !tokens.NewFormat(s.Place.Format) {
		return false
	}
	b, err := readFile(path, maxSegment)
	if err != nil {
		return false
	}
	listed, loaded, ok := shm.Lists312(b)
	if !ok {
		return false
	}
	mend := "rm " + name + " (when no program uses the token)"
	dir := filepath.Join(s.Place.Dir, "TOK_OBJ")
	index, _ := readFile(filepath.Join(dir, "OBJ.IDX"), maxSegment) // without it there is no object
	there := strings.Fields(string(index))
	hidden, gone := 0, 0
	for _, n := range there {
		if slices.Contains(listed[shm.Public], n) || slices.Contains(listed[shm.Private], n) {
			continue
		}
		if b, err := readFile(filepath.Join(dir, filepath.Base(n)), maxSegment); err == nil && len(b) > 4 && loaded[kindOf(b)] {
			hidden++
		}
	}
	for _, n := range append(listed[shm.Public], listed[shm.Private]...) {
		if !slices.Contains(there, n) {
			gone++
		}
	}
	if hidden+gone > 0 {
		all.add(mend, "stock programs list the objects of %s by %s, which is from before p11fs changed them: it hides %d, and has %d that are gone", s.Place.Name, name, hidden, gone)
	} else {
		f.Weak = append(f.Weak, fmt.Sprintf("stock programs will list the objects of %s by %s, whatever p11fs makes and destroys: %s", s.Place.Name, name, mend))
	}
	return true
}

// kindOf is the list for an object of that file.
func kindOf(file []byte) shm.List {
	if file[4] != 0 {
		return shm.Private
	}
	return shm.Public
}

// slotOf is the slot whose token's segment that is.
func (e Examination) slotOf(segment string) (mountd.Slot, bool) {
	slots, _, _ := e.Slots() // of a wrong configuration another check tells
	for _, s := range slots {
		name, err := s.SegmentName()
		if s.Kind != nil && err == nil && filepath.Base(segment) == filepath.Base(name) {
			return s, true
		}
	}
	return mountd.Slot{}, false
}

// readFile reads a regular file of at most so many bytes, where others may have put something
// else.
func readFile(path string, most int64) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > most {
		return nil, os.ErrInvalid
	}
	return io.ReadAll(io.LimitReader(file, most))
}
