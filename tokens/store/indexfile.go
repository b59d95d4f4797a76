package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"p11fs/tokens/store/format"
)

// maxIndexFile bounds OBJ.IDX: 7 million objects, of which more than have room.
const maxIndexFile = 64 << 20

// A destroy writes OBJ.IDX without the lines of destroyed objects when it has maxMarked of
// them, and they are one in markedShare.
const (
	maxMarked   = 1024
	markedShare = 16
)

// An indexState is what is known of OBJ.IDX. The zero value says nothing.
type indexState struct {
	stamp  stamp
	clean  bool // lines may be appended and changed in place
	marked int  // lines of destroyed objects
}

// readIndex reads OBJ.IDX. The token's lock is held.
func (s *Store) readIndex() (format.Index, error) {
	b, st, err := s.readWhole()
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return format.Index{}, notRecognized(s.cfg.Dir, err)
	}
	x := format.ParseIndex(b)
	s.setIndex(indexState{st, x.Clean && !absent, x.Marked})
	why := ""
	if len(x.Unknown) > 0 {
		why = fmt.Sprintf("%d lines are no names, the first is %.32q", len(x.Unknown), x.Unknown[0])
	}
	s.spoil(filepath.Join(objectsDir, indexFile), why)
	return x, nil
}

// indexWait bounds how long the index is waited for in all: a stock process that rewrites it
// takes less than a millisecond, unless it is killed.
const indexWait = 50 * time.Millisecond

// readWhole returns the contents of OBJ.IDX. A stock process that destroys an object
// truncates the index and writes it anew, without the token's lock: while it lacks lines
// it is read again, or what we write next would lack them for good. The token's lock is
// held.
func (s *Store) readWhole() ([]byte, stamp, error) {
	for wait, all := time.Millisecond, time.Duration(0); ; wait, all = 2*wait, all+wait {
		b, st, err := s.objs.read(indexFile, maxIndexFile)
		if err != nil || s.seg == nil || all >= indexWait || !s.lacks(b) {
			return b, st, err
		}
		time.Sleep(wait)
	}
}

// lacks reports whether an index has no line of an object that was known, that the segment
// does not list either, as it lists no private ones before a login, and whose file is there.
func (s *Store) lacks(index []byte) bool {
	x := format.ParseIndex(index)
	told := make(map[format.Name]bool, len(x.Names))
	for _, n := range slices.Concat(x.Names, x.Destroyed) {
		told[n] = true
	}
	for _, l := range lists {
		for _, e := range s.seg.Entries(l) {
			told[e.Name] = true
		}
	}
	var missing []format.Name
	s.mu.Lock()
	for n, f := range s.files {
		if f.stamp != (stamp{}) && !told[n] {
			missing = append(missing, n)
		}
	}
	s.mu.Unlock()
	return slices.ContainsFunc(missing, func(n format.Name) bool { return !s.objs.absent(n.String()) })
}

// sameIndex reports whether OBJ.IDX is as it was last read or written, and may be
// changed in place.
func (s *Store) sameIndex() (bool, error) {
	st, err := s.objs.stamp(indexFile)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && s.idx.clean && st.alone && st == s.idx.stamp, err
}

func (s *Store) setIndex(x indexState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idx = x
}

// listed returns the names of the objects that the token may have: this is the one
// place that decides it. They are those in the segment, and those that have lines
// in the index; mend brings the two together. The token's lock is held.
func (s *Store) listed(lines []format.Name) []format.Name {
	if s.seg == nil {
		return lines
	}
	var names []format.Name
	seen := make(map[format.Name]struct{}, len(lines))
	add := func(n format.Name) {
		if _, dup := seen[n]; !dup {
			seen[n] = struct{}{}
			names = append(names, n)
		}
	}
	for _, l := range lists {
		for _, e := range s.seg.Entries(l) {
			if n, ok := format.ParseName(e.Name[:]); ok {
				add(n)
				s.destroyed.forget(n) // a stock process has given the name out again
			}
		}
	}
	for _, n := range lines {
		if !s.destroyed.has(n) {
			add(n)
		}
	}
	return names
}

// addLines adds lines for names to the index, durably: of objects, or marked ones.
// The token's lock is held.
//
// An index of a hundred thousand names is not rewritten for each new one: a line
// is appended. If we are cut off in the middle, the piece of a line that is left
// names no object, and the next change writes the index anew.
func (s *Store) addLines(names []format.Name, marked bool) error {
	same, err := s.sameIndex()
	if err != nil {
		return err
	}
	if !same {
		x, err := s.readIndex()
		if err != nil {
			return err
		}
		if same, err = s.sameIndex(); err != nil {
			return err
		}
		if !same || slices.ContainsFunc(x.Names, func(n format.Name) bool { return slices.Contains(names, n) }) {
			if !marked {
				return s.rewriteIndex(nil, names...)
			}
			if err := s.rewriteIndex(nil); err != nil {
				return err
			}
		}
	}
	var lines []byte
	for _, n := range names {
		line := n[:]
		if marked {
			line = n.Marked()
		}
		lines = append(append(lines, line...), '\n')
	}
	more := 0
	if marked {
		more = len(names)
	}
	return s.changeIndex(more, func() error { return s.objs.extend(indexFile, lines) })
}

// changeIndex runs change, which adds to the marked lines of the clean index.
func (s *Store) changeIndex(marked int, change func() error) error {
	was := s.idx
	s.setIndex(indexState{}) // until it is done
	if err := change(); err != nil {
		return err
	}
	st, err := s.objs.stamp(indexFile)
	s.setIndex(indexState{st, err == nil, was.marked + marked})
	return err
}

// markLines makes the objects of names ones that were destroyed, durably. Their files are
// still there. The token's lock is held.
//
// In a token that is not shared the lines are marked in place, so that one destroy
// writes 9 bytes, not the 900 KB of a token of 100,000 objects; wherever a write
// is cut off, a line is either that of the object or marked. A stock process
// rewrites the index in place and without the lock, and so our write could hit the
// line of another object. Therefore a token that is shared with stock processes,
// which has not more than 4096 objects, has its index replaced.
func (s *Store) markLines(names []format.Name) error {
	same, err := s.sameIndex()
	if err != nil {
		return err
	}
	if !same || s.seg != nil || s.idx.marked >= max(maxMarked, int(s.idx.stamp.size/format.IndexLine/markedShare)) {
		doomed := make(map[format.Name]bool)
		for _, n := range names {
			doomed[n] = true
		}
		return s.rewriteIndex(func(n format.Name, marked bool) format.LineEdit {
			if doomed[n] && !marked {
				return format.MarkLine
			}
			return format.KeepLine
		})
	}
	lines, err := s.findLines(names)
	if err != nil || len(lines) == 0 {
		return err
	}
	return s.changeIndex(len(lines), func() error { return s.objs.overwrite(indexFile, lines...) })
}

// findLines returns the marked lines that are to take the places of those of names in the
// clean index. A name may have none.
func (s *Store) findLines(names []format.Name) (lines []piece, err error) {
	var elsewhere []format.Name
	err = s.objs.look(indexFile, func(read func([]byte, int64) error) error {
		for _, n := range names {
			at, err := format.SearchLine(s.idx.stamp.size, read, n, s.format.Place)
			if err != nil {
				return err
			}
			if at < 0 {
				elsewhere = append(elsewhere, n)
			} else {
				lines = append(lines, piece{n.Marked(), at})
			}
		}
		return nil
	})
	if err != nil || len(elsewhere) == 0 {
		return lines, err
	}
	b, _, err := s.objs.read(indexFile, maxIndexFile)
	for _, n := range elsewhere {
		if at := format.FindLine(b, n); at >= 0 {
			lines = append(lines, piece{n.Marked(), int64(at)})
		}
	}
	return lines, err
}

// rewriteIndex replaces OBJ.IDX by one that is edited (format.EditIndex), and in
// which no marked lines are but those whose files are still there. Those that are gone are
// so durably before: a file without a line would stay.
func (s *Store) rewriteIndex(edit func(n format.Name, marked bool) format.LineEdit, add ...format.Name) error {
	b, _, err := s.readWhole()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	left, dropped := 0, 0
	b = format.EditIndex(b, func(n format.Name, marked bool) format.LineEdit {
		do := format.KeepLine
		if marked && s.objs.absent(n.String()) {
			do = format.DropLine
		} else if edit != nil {
			do = edit(n, marked)
		}
		switch {
		case do == format.DropLine:
			dropped++
		case do == format.MarkLine || marked:
			left++
		}
		return do
	}, add...)
	if dropped > 0 {
		if err := s.objs.sync(); err != nil {
			return err
		}
	}
	return s.writeIndex(b, left)
}

// writeIndex replaces OBJ.IDX by one with the contents b, which is clean and has that
// many marked lines.
func (s *Store) writeIndex(b []byte, marked int) error {
	st, err := s.objs.write(indexFile, b)
	if err != nil {
		return err
	}
	s.setIndex(indexState{st, true, marked})
	return nil
}

// removeLeftovers removes the files of objects that were destroyed by a process
// that was killed before it came to that. The names of the token's objects are
// known; a stock process may have given out one of the names again. The token's
// lock is held.
func (s *Store) removeLeftovers(destroyed []format.Name) {
	for _, n := range destroyed {
		s.mu.Lock()
		_, known := s.files[n]
		s.mu.Unlock()
		if st, err := s.objs.stamp(n.String()); !known && err == nil && st != (stamp{}) {
			s.removeFile(n)
		}
	}
}

// removeFile removes the file of an object that was destroyed. If that fails, or the power
// does before the disk knows of it, the marked line stays, and it is tried again when the
// index is next read.
func (s *Store) removeFile(n format.Name) {
	if err := s.objs.remove(n.String()); err != nil {
		s.cfg.Log.Warn("the file of a destroyed object stays for now", "dir", s.cfg.Dir, "name", n, "err", err)
	}
}

// recentNames has the names of the objects that were destroyed here last. A stock
// process that changes an object writes its file and its line without the lock,
// and may so bring both back after the object was destroyed. Between its look at the
// object and the end of its change pass milliseconds.
type recentNames struct {
	now, before map[format.Name]bool // before: those of an earlier time, when now was full
}

// maxRecent bounds each of the two.
const maxRecent = 4096

func (r *recentNames) add(n format.Name) {
	if r.now == nil || len(r.now) == maxRecent {
		r.now, r.before = make(map[format.Name]bool), r.now
	}
	r.now[n] = true
}

func (r *recentNames) has(n format.Name) bool { return r.now[n] || r.before[n] }

func (r *recentNames) forget(n format.Name) {
	delete(r.now, n)
	delete(r.before, n)
}

func (r *recentNames) clear() { *r = recentNames{} }
