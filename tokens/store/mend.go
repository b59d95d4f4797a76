package store

import (
	"time"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens/store/format"
)

// A mismatch is what the file, the index line and the segment's entry of one object
// lack of one another.
type mismatch int

const (
	noFile   mismatch = iota + 1 // an entry without a file
	noLine                       // an entry and a file, no line
	noEntry                      // a line and a file, no entry
	revived                      // a line and a file of an object that was destroyed here
	badIndex                     // of no name: lines that are double or cut off
)

// A finding is a mismatch that may pass: a stock process destroys an object
// line first, then the file, then the entry, and only the entry under the
// lock; and it initialises a token entries first, then lines and files.
type finding struct {
	what  mismatch
	since time.Time
	left  bool // it lasted longer than grace, and stays
}

// grace is how long a mismatch may be the work of a stock process.
const grace = 2 * time.Second

// dueLocked reports whether a mismatch has lasted longer than grace.
func (s *Store) dueLocked() bool {
	if len(s.findings) == 0 {
		return false
	}
	now := s.cfg.Now()
	for _, f := range s.findings {
		if !f.left && now.Sub(f.since) >= grace {
			return true
		}
	}
	return false
}

// A mending is one call of mend.
type mending struct {
	s        *Store
	section  bool
	now      time.Time
	findings map[format.Name]finding // of this time
	lines    []format.Name
	lined    map[format.Name]bool
	listed   map[format.Name]bool // names that the lists have by now
	entries  [2][]shm.Entry
	changed  [2]bool       // the list is not what the segment has
	rewrite  bool          // the index is to be written, with lines for the names in add
	add      []format.Name // and without those of what has no file
	remove   []format.Name // files to remove
}

// mend brings the segment's lists, the index and the directory together; lines
// are the index's. The first process that comes to a list fills it. Otherwise the
// segment says which objects exist, and what differs from it is mended once it
// cannot be a change of a stock process in progress: an index line that is
// missing (stock loses them, and after a restart the object would be gone) at
// once in a section, which writes to the disk anyway. The files have been
// loaded. The token's lock is held.
func (s *Store) mend(lines []format.Name, section bool) {
	if s.seg == nil {
		return
	}
	m := &mending{
		s: s, section: section, now: s.cfg.Now(), findings: make(map[format.Name]finding),
		lines: lines, lined: make(map[format.Name]bool, len(lines)), listed: make(map[format.Name]bool),
	}
	for _, n := range lines {
		m.lined[n] = true
	}
	s.mu.Lock()
	for i, l := range lists {
		m.keepEntries(i, s.seg.Entries(l))
	}
	m.addEntries()
	if len(lines) > 0 && !s.idx.clean && (m.due(format.Name{}, badIndex) || section) {
		delete(m.findings, format.Name{})
		m.rewrite = true
	}
	s.findings = m.findings
	opened := s.logins.KeyLocked(p11.CKU_USER) != nil
	s.mu.Unlock()
	for i, l := range lists {
		if m.changed[i] {
			s.setEntries(l, m.entries[i])
		}
	}
	s.seg.SetLoaded(shm.Public, true)
	if opened {
		s.seg.SetLoaded(shm.Private, true)
	}
	for _, n := range m.remove {
		s.removeFile(n)
	}
	if m.rewrite {
		m.writeLines()
	}
}

// keepEntries takes over the entries of the list i that are those of objects.
//
// A stock process takes an object for unchanged if the counter in its entry is
// the one that it holds, and two processes come to the same one (defect D9), or
// store it where the entry was a moment ago (D4). So no counter stays that a stock
// process may hold, once an object was changed or when we have not seen what was
// before.
func (m *mending) keepEntries(i int, es []shm.Entry) {
	s := m.s
	size := len(es)
	for _, e := range es {
		n, ok := format.ParseName(e.Name[:])
		f := s.files[n]
		if f != nil && e.High == 0 && (e.Low != 0 || f.rewritten || s.seen == nil) {
			e.Low, e.High = e.Low+1, 1
			m.changed[i] = true
		}
		if f != nil {
			f.rewritten = false
		}
		good := m.exists(f) && s.bad[n] == nil
		switch {
		case !ok, m.listed[n]:
			// A hole, garbage, or a second entry of one object.
			m.changed[i] = true
			continue
		case good && side(f.private) != i:
			// It belongs to the other list.
			m.listed[n], m.changed[0], m.changed[1] = true, true, true
			m.entries[side(f.private)] = append(m.entries[side(f.private)], e)
			continue
		case !m.exists(f):
			// Stock crashes when it finds the list empty at the end of a
			// destroy, so a last entry stays.
			if m.due(n, noFile) && size > 1 {
				size--
				m.changed[i] = true
				delete(m.findings, n)
				if s.saysLocked(m.now) {
					s.cfg.Log.Warn("an object without a file is taken out of shared memory", "dir", s.cfg.Dir, "name", n)
				}
				continue
			}
		case good && !m.lined[n]:
			if m.due(n, noLine) || m.section {
				delete(m.findings, n)
				m.rewrite = true
				m.add = append(m.add, n)
			}
		}
		m.listed[n] = true
		m.entries[i] = append(m.entries[i], e)
	}
}

// addEntries adds entries for the objects that have lines and no entries.
func (m *mending) addEntries() {
	s := m.s
	for _, n := range m.lines {
		f := s.files[n]
		if s.destroyed.has(n) && !m.listed[n] {
			// A stock process that was about to change the object wrote its
			// file after it was destroyed.
			if m.due(n, revived) || m.section {
				delete(m.findings, n)
				m.rewrite = true
				m.remove = append(m.remove, n)
			}
			continue
		}
		if m.listed[n] || !m.exists(f) || f.handle == 0 {
			continue // absent, damaged, or private and not opened
		}
		i := side(f.private)
		loaded := s.seg.Loaded(lists[i])
		if loaded && !m.due(n, noEntry) {
			continue
		}
		if len(m.entries[i]) >= shm.Limit {
			if s.saysLocked(m.now) {
				s.cfg.Log.Error("shared memory has no room for an object: stock processes do not see it", "dir", s.cfg.Dir, "name", n)
			}
			continue
		}
		delete(m.findings, n)
		m.listed[n] = true
		m.changed[i] = true
		e := shm.Entry{Name: n}
		if loaded {
			// Stock processes that knew the object must read it again.
			e.High = 1
		}
		m.entries[i] = append(m.entries[i], e)
	}
}

// exists reports whether the object's file was there when it was last looked for.
func (m *mending) exists(f *file) bool { return f != nil && f.stamp != stamp{} }

// due notes a mismatch, and reports whether it has lasted.
func (m *mending) due(n format.Name, what mismatch) bool {
	f, known := m.s.findings[n]
	if !known || f.what != what {
		f = finding{what: what, since: m.now}
	}
	due := m.now.Sub(f.since) >= grace
	f.left = due
	m.findings[n] = f
	return due
}

// writeLines writes the index with lines for the names in add, each once, and
// without those of names that have no file.
func (m *mending) writeLines() {
	s := m.s
	s.mu.Lock()
	gone := make(map[format.Name]bool)
	var unknown []format.Name // what was destroyed, or has no room
	for _, n := range m.lines {
		f := s.files[n]
		if gone[n] = !m.exists(f); f == nil {
			unknown = append(unknown, n)
		}
	}
	s.mu.Unlock()
	for _, n := range unknown {
		gone[n] = s.objs.absent(n.String())
	}
	if len(m.add) > 0 {
		s.cfg.Log.Info("the index had lost objects: they are back", "dir", s.cfg.Dir, "objects", len(m.add))
	}
	err := s.rewriteIndex(func(n format.Name, marked bool) format.LineEdit {
		if !marked && gone[n] {
			return format.DropLine
		}
		return format.KeepLine
	}, m.add...)
	if err != nil {
		s.cfg.Log.Warn("the index lacks objects", "dir", s.cfg.Dir, "objects", len(m.add), "err", err)
	}
}
