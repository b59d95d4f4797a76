package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// Who may write the directory may put any number of files of any size there, and every
// object is held in memory. So only what has room is loaded. Each name counts nameSize and
// each file its size, whether its object is in memory or, being private, is not: a login
// finds room for what had it before. What has none stays as it is on the disk, and serves
// on as it was where it was loaded before.
const (
	nameSize = 256
	// Files larger than largeFile have one part in largeShare of the room, together:
	// memory that comes in such pieces is given back late.
	largeFile  = 64 << 10
	largeShare = 8
)

// An ample has room, and what is taken of it.
type ample struct {
	room         int64 // negative: without end
	sizes, large int64 // of files that have room
	unnamed      int   // names that OBJ.IDX has and files has no room for
	passed       bool  // names of OBJ.IDX that no file has are not among files
	without      int   // objects that have no room, when they were last counted
}

// errNoRoom is the error of an object that is not loaded.
var errNoRoom = errors.New("there is no room for it in memory")

// setSizeLocked makes size, of a file, what counts for f.
func (s *Store) setSizeLocked(f *file, size int64) {
	a := &s.ample
	if size < f.size && a.without > 0 {
		s.pending.room = true
	}
	a.sizes += size - f.size
	a.large += ifLarge(size) - ifLarge(f.size)
	f.size = size
}

func ifLarge(size int64) int64 {
	if size > largeFile {
		return size
	}
	return 0
}

// fitsLocked reports whether there is room for more names, and for files of other sizes.
func (s *Store) fitsLocked(names int, was, sizes []int64) bool {
	a := s.ample
	total, large := a.sizes+int64(len(s.files)+names)*nameSize, a.large
	for i, list := range [][]int64{was, sizes} {
		for _, size := range list {
			sign := int64(2*i - 1)
			total += sign * size
			large += sign * ifLarge(size)
		}
	}
	return a.room < 0 || total <= a.room && large <= a.room/largeShare
}

// admit takes the room for a file before it is read.
func (s *Store) admit(n format.Name, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fileLocked(n)
	if size > f.size && !s.fitsLocked(0, []int64{f.size}, []int64{size}) {
		return errNoRoom
	}
	s.setSizeLocked(f, size)
	return nil
}

// roomFor returns an error if there is no room for new objects with such files, or for one
// in the place of another.
func (s *Store) roomFor(was, sizes []int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	grows := len(sizes) > len(was) || len(was) > 0 && sizes[0] > was[0]
	if grows && !s.fitsLocked(len(sizes)-len(was), was, sizes) {
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "the objects of the token have all the room that there is for them, %d MiB", s.ample.room>>20),
			"destroy some, or start p11fs mount with a larger --token-size")
	}
	return nil
}

// cut returns as many of the names that are new as there is room for, which are known from
// now on, and remembers how many there are besides. If there are any, lines of OBJ.IDX that
// name no file take nobody's place: their names are looked for again when something comes.
func (s *Store) cut(fresh []format.Name) []format.Name {
	s.mu.Lock()
	s.ample.passed = len(fresh) > s.placesLocked()
	passed := s.ample.passed
	s.mu.Unlock()
	if passed {
		fresh = slices.DeleteFunc(fresh, func(n format.Name) bool { return s.objs.absent(n.String()) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed {
		maps.DeleteFunc(s.files, func(n format.Name, f *file) bool {
			return *f == file{} && s.bad[n] == nil
		})
	}
	most := s.placesLocked()
	s.ample.unnamed = max(0, len(fresh)-most)
	fresh = fresh[:min(len(fresh), most)]
	for _, n := range fresh {
		s.fileLocked(n)
	}
	return fresh
}

// placesLocked returns how many more names there is room for.
func (s *Store) placesLocked() int {
	if s.ample.room < 0 {
		return math.MaxInt
	}
	return max(0, int(s.ample.room/2/nameSize)-len(s.files)) // the rest is for their files
}

// withoutRoom returns the names of objects that have no room, in their order.
func (s *Store) withoutRoom() (names []format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, err := range s.bad {
		if errors.Is(err, errNoRoom) {
			names = append(names, n)
		}
	}
	inOrder(s.format, names)
	return names
}

// inOrder sorts names as they were given out.
func inOrder(f format.Format, names []format.Name) {
	type placed struct {
		place uint64
		name  format.Name
	}
	all := make([]placed, len(names))
	for i, n := range names {
		all[i] = placed{f.Place(n), n}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	for i, p := range all {
		names[i] = p.name
	}
}

// countNoRoomLocked counts the objects that have no room, after files were read, of which
// some had none if short, and tells of them when they are more than before.
func (s *Store) countNoRoomLocked(short bool) {
	a := &s.ample
	if !short && a.unnamed == 0 && a.without == 0 {
		return
	}
	n := a.unnamed
	for _, err := range s.bad {
		if errors.Is(err, errNoRoom) {
			n++
		}
	}
	if n > a.without && s.saysLocked(s.cfg.Now()) {
		s.cfg.Log.Warn("objects are not loaded: there is no room for them", "dir", s.cfg.Dir, "objects", n, "room", a.room)
	}
	a.without = n
}

// noRoomLocked is what Damaged tells of n objects without room.
func (s *Store) noRoomLocked(n int) tokens.Damage {
	return tokens.Damage{File: objectsDir, Why: fmt.Sprintf("%d objects are not loaded, since all objects have %d MiB, and %d KiB in files of more than %d KiB: "+tokens.RoomAdvice,
		n, s.ample.room>>20, s.ample.room/largeShare>>10, largeFile>>10)}
}

// sizeOf is what counts for an object's file.
func (s *Store) sizeOf(n format.Name) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[n]; f != nil {
		return f.size
	}
	return 0
}
