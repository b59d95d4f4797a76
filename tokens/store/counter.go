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
		if first > math.MaxUint64-countBlock {
			return 0, p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "%s has no numbers left", countFile), "look at what the file says")
		}
		last := first + countBlock
		if _, err := s.top.write(countFile, tempName(countFile), []byte(strconv.FormatUint(last, 10)+"\n")); err != nil {
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
	b, _, err := s.top.read(countFile, maxCountFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil && !errors.Is(err, errUnfit) {
		return 0, err
	}
	end, nerr := strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 10, 64)
	if err = errors.Join(err, nerr); err != nil {
		s.cfg.Log.Warn("the counter goes on at the time, since its file is not what it must be", "dir", s.cfg.Dir, "file", countFile, "err", err)
		return 0, nil
	}
	return end, nil
}
