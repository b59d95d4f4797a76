package store

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"p11fs/p11"
	"p11fs/tokens"
)

// A counter gives numbers of a block, whose end was on the disk before. The file has the
// end of the last block that any process took. Where it says another one than ours, others
// have counted since, and what is left of ours is behind them.
//
// A block begins at the time or where the last one ends, whichever is more: a directory
// that was put back as it was some time ago, or whose file is lost, gives no number again
// while the clock is right, and one whose file is there gives none again whatever the clock
// says. So backups leave the file out.
type counter struct{ next, end uint64 }

const (
	countBlock   = 4096
	maxCountFile = 32 // bytes
)

var _ tokens.Counter = (*Store)(nil)

// NextCount is tokens.Counter.
func (s *Store) NextCount(ctx context.Context) (uint64, error) {
	done, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	end, err := s.countEnd()
	if err != nil {
		return 0, err
	}
	c := &s.counter
	if c.next == c.end || c.end != end {
		first := max(end, c.next, tokens.CountFrom(s.cfg.Now()))
		if countedOut(first) {
			return 0, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the counter has no number left behind %d", first),
				"somebody has written "+countFile+", since no count goes so far: remove that file from the token's directory, and the counter goes on at the time")
		}
		last := first + countBlock
		if _, err := s.top.write(countFile, []byte(strconv.FormatUint(last, 10)+"\n")); err != nil {
			return 0, err
		}
		*c = counter{first, last}
	}
	c.next++
	return c.next - 1, nil
}

// countEnd reads the end of the last block that was taken. What is no number is none. The
// token's lock is held.
func (s *Store) countEnd() (uint64, error) {
	end, err := readCount(s.top)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case errors.Is(err, errUnfit), errors.Is(err, strconv.ErrSyntax), errors.Is(err, strconv.ErrRange):
		s.cfg.Log.Warn("the counter goes on at the time, since its file is not what it must be", "dir", s.cfg.Dir, "file", countFile, "err", err)
		return 0, nil
	}
	return end, err
}

// readCount reads the file of the counter of an open token directory.
func readCount(d *folder) (uint64, error) {
	b, _, err := d.read(countFile, maxCountFile)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 10, 64)
}

// countedOut reports whether no block begins at a number.
func countedOut(end uint64) bool { return end > math.MaxUint64-countBlock }
