package store

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// maxIndexFile bounds OBJ.IDX: 7 million objects.
const maxIndexFile = 64 << 20

// listed says which objects the token may have. This is the one place that decides
// it: those that the index lists in lines, and those in the segment. mend brings the
// two together. The token's lock is held.
func (s *Store) listed(lines []name) []name {
	if s.seg == nil {
		return lines
	}
	var names []name
	seen := make(map[name]struct{}, len(lines))
	add := func(n name) {
		if _, dup := seen[n]; !dup {
			seen[n] = struct{}{}
			names = append(names, n)
		}
	}
	for _, l := range lists {
		for _, e := range s.seg.Entries(l) {
			if n, ok := parseName(string(e.Name[:])); ok {
				add(n)
				s.struck.forget(n) // a stock process has given the name out again
			}
		}
	}
	for _, n := range lines {
		if !s.struck.has(n) {
			add(n)
		}
	}
	return names
}

// A graveyard has the names of objects that were destroyed here a short time ago.
// A stock process that changes an object writes its file and its line without the
// lock: it may bring both back.
type graveyard map[name]time.Time

// A stock process is between its look at an object and the end of its change for
// milliseconds; one that is stopped there for longer brings an object back.
const (
	graves    = 1 << 12
	graveTime = time.Minute
)

// add remembers n, and forgets the oldest names when there are many.
func (g graveyard) add(n name, now time.Time) {
	if len(g) >= graves {
		for o, since := range g {
			if now.Sub(since) >= graveTime {
				delete(g, o)
			}
		}
	}
	g[n] = now
}

func (g graveyard) has(n name) bool { _, ok := g[n]; return ok }

func (g graveyard) forget(n name) { delete(g, n) }

// lines reads the names in OBJ.IDX. The token's lock is held.
func (s *Store) lines() ([]name, error) {
	b, st, err := s.objs.read(indexFile, maxIndexFile)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return nil, notRecognized(s.cfg.Dir, err)
	}
	names, clean := parseIndex(b)
	s.setIndex(st, clean && !absent)
	return names, nil
}

// sameIndex says that OBJ.IDX is as it was last read or written, and that lines
// may be appended to it.
func (s *Store) sameIndex() (bool, error) {
	st, err := s.objs.stamp(indexFile)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && s.idxClean && st == s.idxStamp, err
}

func (s *Store) setIndex(st stamp, clean bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idxStamp, s.idxClean = st, clean
}

// enlist adds a name to the objects of the token, durably. The object's file is
// there already. The token's lock is held.
//
// An index of a hundred thousand names is not rewritten for each new one: a line
// is appended. If we are cut off in the middle, the piece of a line that is left
// names no object, and the next change writes the index anew.
func (s *Store) enlist(n name) error {
	same, err := s.sameIndex()
	if err != nil {
		return err
	}
	if !same {
		names, err := s.lines()
		if err != nil {
			return err
		}
		if same, err = s.sameIndex(); err != nil {
			return err
		}
		if !same || slices.Contains(names, n) {
			names = slices.DeleteFunc(names, func(o name) bool { return o == n })
			return s.writeIndex(printIndex(append(names, n)))
		}
	}
	fd, err := s.objs.k.Extend(s.objs.fd, indexFile)
	if err != nil {
		return ioError("open", indexFile, err)
	}
	s.setIndex(stamp{}, false) // until the line is there
	err = s.objs.fill(fd, append(n[:], '\n'))
	_ = unix.Close(fd)
	if err != nil {
		return ioError("append to", indexFile, err)
	}
	st, err := s.objs.stamp(indexFile)
	s.setIndex(st, err == nil)
	return err
}

// delist takes a name out, durably; its file is still there. The token's lock is
// held.
func (s *Store) delist(n name) error {
	same, err := s.sameIndex()
	if err != nil {
		return err
	}
	if !same {
		names, err := s.lines()
		if err != nil {
			return err
		}
		return s.writeIndex(printIndex(slices.DeleteFunc(names, func(o name) bool { return o == n })))
	}
	b, _, err := s.objs.read(indexFile, maxIndexFile)
	if err != nil {
		return err
	}
	for i := 0; i+indexLine <= len(b); i += indexLine {
		if name(b[i:i+len(n)]) == n {
			return s.writeIndex(slices.Delete(b, i, i+indexLine))
		}
	}
	return nil
}

// writeIndex replaces OBJ.IDX by one with the contents b.
func (s *Store) writeIndex(b []byte) error {
	st, err := s.objs.write(indexFile, tempName(indexFile), b)
	if err != nil {
		return err
	}
	s.setIndex(st, true)
	return nil
}

// A reservation is a run of names that NVTOK.DAT has passed already: no other
// process gives them out.
type reservation struct {
	next, end name
	size      int // of the run to reserve next
}

// maxReservation bounds the names that are lost when the process ends.
const maxReservation = 64

// newName returns a name for a new object that was never used, durably so. The
// token's lock is held.
func (s *Store) newName() (name, error) {
	for {
		r := &s.names
		for r.next != r.end {
			n := r.next
			r.next = n.next()
			taken, err := s.taken(n)
			if err != nil {
				return name{}, err
			}
			if !taken {
				return n, nil
			}
		}
		d := s.snapshot()
		first := d.next()
		// The next name may have gone back: a stock process that starts copies
		// an old NVTOK.DAT over the shared state.
		for {
			taken, err := s.taken(first)
			if err != nil {
				return name{}, err
			}
			if !taken {
				break
			}
			first = first.next()
		}
		size := max(r.size, 1)
		end := first
		for range size {
			end = end.next()
		}
		d.setNext(end)
		if err := s.saveData(d); err != nil {
			return name{}, err
		}
		*r = reservation{next: first, end: end, size: min(2*size, maxReservation)}
	}
}

// taken says that a name is in use, or is that of a file left behind.
func (s *Store) taken(n name) (bool, error) {
	s.mu.Lock()
	_, known := s.files[n]
	s.mu.Unlock()
	if known {
		return true, nil
	}
	st, err := s.objs.stamp(n.String())
	return st != stamp{}, err
}

// snapshot returns the token data as last read or written.
func (s *Store) snapshot() tokenData {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data
}

// saveData makes d the token's data, durably. The file comes before the segment:
// if the process is killed between the two, nobody has seen d in use, and a stock
// process that starts copies the file over the segment. The token's lock is held.
func (s *Store) saveData(d tokenData) error {
	st, err := s.top.write(dataFile, tempName(dataFile), d[:])
	if err != nil {
		return err
	}
	s.setData(d, st)
	return nil
}

// setData makes d, which was s.data with changes and is in NVTOK.DAT, the data in
// the segment and in memory.
func (s *Store) setData(d tokenData, st stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.dataStamp, s.shortSince = s.shareLocked(d), st, time.Time{}
}

// noteDamageLocked records that a file gives no object, and returns whether
// that is news.
func (s *Store) noteDamageLocked(n name, err error) bool {
	was, known := s.bad[n]
	s.bad[n] = Damage{Name: n.String(), Err: err}
	return !known || was.Err.Error() != err.Error()
}

func sortedDamage(bad map[name]Damage) []Damage {
	var names []name
	for n := range bad {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b name) int { return cmp.Compare(a.number(), b.number()) })
	ds := make([]Damage, 0, len(names))
	for _, n := range names {
		ds = append(ds, bad[n])
	}
	return ds
}

// patience is how long the old version of an object serves while its file cannot
// be read: stock rewrites object files in place and without the lock.
const patience = time.Second
