package store

import (
	"slices"
	"time"

	"p11fs/shm"
)

// An oddity is what object file, index line and entry in the segment of one name
// lack of one another.
type oddity int

const (
	noFile   oddity = iota + 1 // an entry without a file
	noLine                     // an entry and a file, no line
	noEntry                    // a line and a file, no entry
	revived                    // a line and a file of an object that was destroyed here
	badIndex                   // of no name: lines that are double or no names
)

// A suspicion is an oddity that may pass: a stock process destroys an object
// line first, then the file, then the entry, and only the entry under the
// lock; and it initialises a token entries first, then lines and files.
type suspicion struct {
	what  oddity
	since time.Time
	left  bool // it was looked at after grace and stays
}

// grace is how long an oddity may be the work of a stock process.
const grace = 2 * time.Second

// dueLocked says that an oddity has lasted longer than grace.
func (s *Store) dueLocked() bool {
	if len(s.odd) == 0 {
		return false
	}
	now := s.cfg.Now()
	for _, o := range s.odd {
		if !o.left && now.Sub(o.since) >= grace {
			return true
		}
	}
	return false
}

// A mending is one call of mend.
type mending struct {
	s       *Store
	section bool
	now     time.Time
	odd     map[name]suspicion // what is found odd this time
	lines   []name
	lined   map[name]bool
	rewrite bool   // the index is to be written, with lines for the names in add
	add     []name // and without those of what does not exist
	remove  []name // files to remove
}

// mend brings the segment's lists, the index and the directory together; lines
// are the index's. The first process that comes to a list fills it. Otherwise the
// segment says which objects exist, and what differs from it is mended once it
// cannot be a change of a stock process in progress: an index line that is
// missing (stock loses them, and after a restart the object would be gone) at
// once in a section, which writes to the disk anyway. The files have been
// loaded. The token's lock is held.
func (s *Store) mend(lines []name, section bool) {
	if s.seg == nil {
		return
	}
	m := &mending{
		s: s, section: section, now: s.cfg.Now(), odd: make(map[name]suspicion),
		lines: lines, lined: make(map[name]bool, len(lines)),
	}
	for _, n := range lines {
		m.lined[n] = true
	}
	s.mu.Lock()
	entries, changed := m.lists()
	if len(lines) > 0 && !s.idxClean && (m.due(name{}, badIndex) || section) {
		delete(m.odd, name{})
		m.rewrite = true
	}
	s.odd = m.odd
	opened := s.roles[roleUser].key != nil
	s.mu.Unlock()
	for i, l := range lists {
		if !changed[i] {
			continue
		}
		if err := s.seg.SetEntries(l, entries[i]); err != nil {
			s.cfg.Log.Error("the list of objects in shared memory", "dir", s.cfg.Dir, "error", err)
		}
	}
	s.seg.SetLoaded(shm.Public, true)
	if opened {
		s.seg.SetLoaded(shm.Private, true)
	}
	for _, n := range m.remove {
		if err := s.objs.remove(n.String()); err != nil {
			s.cfg.Log.Warn("the file of a destroyed object stays", "dir", s.cfg.Dir, "name", n, "error", err)
		}
	}
	if m.rewrite {
		m.writeLines()
	}
}

// lists returns what the segment's lists shall be, and whether that is new.
//
// A stock process takes an object for unchanged if the counter in its entry is
// the one that it holds, and two processes come to the same one (defect D9), or
// store it where the entry was a moment ago (D4). So no counter stays that a stock
// process may hold, once an object was changed or when we have not seen what was
// before.
func (m *mending) lists() (entries [2][]shm.Entry, changed [2]bool) {
	s := m.s
	listed := make(map[name]bool)
	for i, l := range lists {
		es := s.seg.Entries(l)
		size := len(es)
		for _, e := range es {
			n, ok := parseName(string(e.Name[:]))
			f := s.files[n]
			if f != nil && e.High == 0 && (e.Low != 0 || f.rewritten || s.seen == nil) {
				e.Low, e.High = e.Low+1, 1
				changed[i] = true
			}
			if f != nil {
				f.rewritten = false
			}
			switch {
			case !ok, listed[n]:
				// A hole, garbage, or a second entry of one object.
				changed[i] = true
				continue
			case m.exists(f) && s.bad[n].Err == nil && side(f.private) != i:
				// It belongs to the other list.
				listed[n], changed[0], changed[1] = true, true, true
				entries[side(f.private)] = append(entries[side(f.private)], e)
				continue
			case !m.exists(f):
				// Stock crashes when it finds the list empty at the end of a
				// destroy, so a last entry stays.
				if m.due(n, noFile) && size > 1 {
					size--
					changed[i] = true
					delete(m.odd, n)
					s.cfg.Log.Warn("an object without a file is taken out of shared memory", "dir", s.cfg.Dir, "name", n)
					continue
				}
			case s.bad[n].Err == nil && !m.lined[n]:
				if m.due(n, noLine) || m.section {
					delete(m.odd, n)
					m.rewrite = true
					m.add = append(m.add, n)
				}
			}
			listed[n] = true
			entries[i] = append(entries[i], e)
		}
	}
	for _, n := range m.lines {
		f := s.files[n]
		if s.struck.has(n) && !listed[n] {
			// A stock process that was about to change the object wrote its
			// file after it was destroyed.
			if m.due(n, revived) || m.section {
				delete(m.odd, n)
				m.rewrite = true
				m.remove = append(m.remove, n)
			}
			continue
		}
		if listed[n] || !m.exists(f) || f.handle == 0 {
			continue // absent, damaged, or private and not opened
		}
		i := side(f.private)
		if s.seg.Loaded(lists[i]) && !m.due(n, noEntry) {
			continue
		}
		if len(entries[i]) >= shm.Limit {
			s.cfg.Log.Error("shared memory has no room for an object: stock processes do not see it", "dir", s.cfg.Dir, "name", n)
			continue
		}
		delete(m.odd, n)
		listed[n] = true
		changed[i] = true
		e := shm.Entry{Name: n}
		if s.seg.Loaded(lists[i]) {
			// Stock processes that knew the object must read it again.
			e.High = 1
		}
		entries[i] = append(entries[i], e)
	}
	return entries, changed
}

// exists says that the object's file was there when it was last looked for.
func (m *mending) exists(f *file) bool { return f != nil && f.stamp != stamp{} }

// due notes an oddity, and says whether it has lasted.
func (m *mending) due(n name, what oddity) bool {
	o, known := m.s.odd[n]
	if !known || o.what != what {
		o = suspicion{what: what, since: m.now}
	}
	due := m.now.Sub(o.since) >= grace
	o.left = due
	m.odd[n] = o
	return due
}

// writeLines writes the index with lines for the names in add, each once, and
// without those of names that have neither file nor entry.
func (m *mending) writeLines() {
	s := m.s
	s.mu.Lock()
	lines := slices.DeleteFunc(slices.Clone(m.lines), func(n name) bool { return !m.exists(s.files[n]) })
	s.mu.Unlock()
	if len(m.add) > 0 {
		s.cfg.Log.Info("the index had lost objects: they are back", "dir", s.cfg.Dir, "objects", len(m.add))
	}
	if err := s.writeIndex(printIndex(append(lines, m.add...))); err != nil {
		s.cfg.Log.Warn("the index lacks objects", "dir", s.cfg.Dir, "objects", len(m.add), "error", err)
	}
}
