package store

import (
	"time"

	"p11fs/tokens/store/format"
)

// A reservation is names that the token's data has passed already: no other process
// gives them out.
type reservation struct {
	free []format.Name
	size int // how many to reserve next
}

// maxReservation bounds the names that are lost when the process ends.
const maxReservation = 64

// newName returns a name for a new object that was never used, durably so. The
// token's lock is held.
func (s *Store) newName() (format.Name, error) {
	for {
		r := &s.names
		for len(r.free) > 0 {
			n := r.free[0]
			r.free = r.free[1:]
			if taken, err := s.taken(n); err != nil || !taken {
				return n, err
			}
		}
		f, was := s.snapshot()
		names, d, err := f.NewNames(was, max(r.size, 1), s.taken)
		if err != nil {
			return format.Name{}, err
		}
		if d != was {
			if err := s.saveData(d); err != nil {
				return format.Name{}, err
			}
		}
		*r = reservation{free: names, size: min(2*max(r.size, 1), maxReservation)}
	}
}

// giveBack makes n, which was not used, the name that is given out next.
func (r *reservation) giveBack(n format.Name) { r.free = append([]format.Name{n}, r.free...) }

// taken reports whether a name is in use, or is that of a file left behind.
func (s *Store) taken(n format.Name) (bool, error) {
	s.mu.Lock()
	_, known := s.files[n]
	s.mu.Unlock()
	if known {
		return true, nil
	}
	st, err := s.objs.stamp(n.String())
	return st != stamp{}, err
}

// snapshot returns the directory's format, and the token's data as last read or
// written.
func (s *Store) snapshot() (format.Format, format.TokenData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.format, s.data
}

// saveData makes d the token's data, durably. The file comes before the segment:
// if the process is killed between the two, nobody has seen d in use, and a stock
// process that starts copies the file over the segment. The token's lock is held.
func (s *Store) saveData(d format.TokenData) error {
	st, err := s.top.write(dataFile, s.format.PrintFile(d))
	if err != nil {
		return err
	}
	s.setData(d, st)
	return nil
}

// setData makes d, which was s.data with changes and is in NVTOK.DAT, the data in
// the segment and in memory.
func (s *Store) setData(d format.TokenData, st stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.dataStamp, s.shortSince = s.shareLocked(d), st, time.Time{}
}
