package store

import "time"

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
