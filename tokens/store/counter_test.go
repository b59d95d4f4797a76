package store

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// counterEnv makes this program a process that counts.
const counterEnv = "P11FS_TEST_COUNTER"

// epoch is a clock that stands still where it tells a counter nothing.
func epoch() time.Time { return time.Unix(0, 0) }

func countConfig(t testing.TB) Config {
	cfg := freshConfig(t)
	cfg.Now = epoch
	return cfg
}

// A tally sees that a counter goes up only.
type tally struct {
	t    testing.TB
	last uint64
}

func (c *tally) next(s *Store) uint64 {
	c.t.Helper()
	n, err := s.NextCount(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if n <= c.last && c.last != 0 {
		c.t.Errorf("%d comes after %d", n, c.last)
	}
	c.last = n
	return n
}

// TestCounter has a counter go on whoever counts, and whatever becomes of the token.
func TestCounter(t *testing.T) {
	t.Parallel()
	cfg := countConfig(t)
	c := &tally{t: t}
	a, b := initialised(t, cfg), openStore(t, cfg)
	for range 3 * countBlock / 2 {
		c.next(a)
	}
	for i := range 8 {
		c.next([]*Store{a, b}[i%2])
		c.next(b)
	}
	if err := a.InitToken(t.Context(), pin(t, testSO), "again"); err != nil {
		t.Fatal(err)
	}
	c.next(b)
	c.next(a)
	for range 3 {
		s := openStore(t, cfg)
		c.next(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.next(a)
}

// TestCounterFile has the file be another than it must be: the counter goes on from the
// time, or from what this process knows, and mends the file.
func TestCounterFile(t *testing.T) {
	t.Parallel()
	cfg := countConfig(t)
	now := epoch()
	cfg.Now = func() time.Time { return now }
	s := initialised(t, cfg)
	c := &tally{t: t}
	c.next(s)
	path := filepath.Join(cfg.Dir, countFile)
	for name, spoil := range map[string]func() error{
		"lost":     func() error { return nil },
		"empty":    func() error { return os.WriteFile(path, nil, 0o600) },
		"text":     func() error { return os.WriteFile(path, []byte("12x"), 0o600) },
		"negative": func() error { return os.WriteFile(path, []byte("-1\n"), 0o600) },
		"long":     func() error { return os.WriteFile(path, []byte(strings.Repeat("1", 40)), 0o600) },
		"old":      func() error { return os.WriteFile(path, []byte("7\n"), 0o600) },
		"a link":   func() error { return os.Symlink("/etc/hostname", path) },
		"a pipe":   func() error { return exec.Command("mkfifo", path).Run() },
	} {
		for _, again := range []bool{false, true} {
			_ = os.Remove(path)
			if err := spoil(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			user := s
			if now = now.Add(time.Millisecond); again {
				user = openStore(t, cfg)
			}
			c.next(user)
			if b := readFile(t, path); string(b) != strconv.FormatUint(c.last+countBlock, 10)+"\n" {
				t.Errorf("%s: the file says %q after %d", name, b, c.last)
			}
		}
	}
	if want := tokens.CountFrom(now); c.last < want {
		t.Errorf("%d, and the time is %d", c.last, want)
	}
	if err := os.WriteFile(path, []byte(strconv.FormatUint(math.MaxUint64-1, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.NextCount(t.Context())
	wantRV(t, "past the last number", err, p11.CKR_DEVICE_ERROR)
	if advice := p11.AdviceOf(err); !strings.Contains(advice, countFile) {
		t.Errorf("past the last number the advice is %q", advice)
	}
	u := NewUpkeep(cfg, cfg.Format, cfg.Format)
	if st, err := u.State(); err != nil || st.CountedOut != path {
		t.Errorf("past the last number: %+v, %v", st, err)
	}
	// The advice helps, and nothing else is told then.
	now = now.Add(time.Millisecond)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	c.next(s)
	if st, err := u.State(); err != nil || st.CountedOut != "" {
		t.Errorf("with numbers left: %+v, %v", st, err)
	}
}

// TestCounterFailing has each step of a new block fail, and the power cut after each: what
// was given does not come again.
func TestCounterFailing(t *testing.T) {
	t.Parallel()
	for fail := 1; ; fail++ {
		cfg := countConfig(t)
		c := &tally{t: t}
		k := &failOnce{}
		cfg.kernel = k
		s := openStore(t, cfg)
		c.next(s)
		c.next(openStore(t, cfg)) // so that s takes another block
		k.at = k.n + fail
		n, err := s.NextCount(t.Context())
		if err == nil && n <= c.last {
			t.Errorf("%d comes after %d", n, c.last)
		}
		k.at = 0 // where nothing has failed yet
		c.last = max(c.last, n)
		c.next(s)
		c.next(openStore(t, cfg))
		if err == nil {
			if fail < 4 {
				t.Errorf("a block takes %d steps", fail-1)
			}
			break
		}
	}
	cfg := countConfig(t)
	c := &tally{t: t}
	c.next(openStore(t, cfg))
	seed := copyDir(t, cfg.Dir)
	rec := &recorder{names: map[int]string{}}
	cfg.kernel = rec
	s := openStore(t, cfg)
	rec.ops = nil
	c.next(s)
	for _, eager := range []bool{false, true} {
		for cut := range len(rec.ops) + 1 {
			d := newDisk(t, seed, eager)
			for _, o := range rec.ops[:cut] {
				d.apply(o)
			}
			after := cfg
			after.Dir = filepath.Join(t.TempDir(), filepath.Base(cfg.Dir))
			after.kernel = nil
			d.restore(t, after.Dir)
			given := c.last
			if cut < len(rec.ops) {
				given = countBlock - 1 // the number of the block that was being taken is nobody's yet
			}
			if n := (&tally{t: t}).next(openStore(t, after)); n <= given {
				t.Errorf("eager=%v, cut after %d of %d: %d comes after %d", eager, cut, len(rec.ops), n, given)
			}
		}
	}
}

// countUntilKilled counts, and prints each number.
func countUntilKilled(dir string) error {
	lock, err := locks.Open(filepath.Join(dir+".lock", "LCK"), locks.NoGroup)
	if err != nil {
		return err
	}
	k, _ := format.KindOf312("swtok")
	s, err := Open(context.Background(), Config{
		Dir: dir, Format: format.V312(k, nil, 100), Lock: lock, Group: NoGroup,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Now: epoch,
	})
	if err != nil {
		return err
	}
	for {
		n, err := s.NextCount(context.Background())
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestCounterKill9 has two processes count at once, and kills them; again and again. What
// one of them printed never comes again, and each of them counts up.
func TestCounterKill9(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	cfg := freshConfig(t)
	cfg.Format = v312(t)
	_ = initialised(t, cfg).Close()
	given, before := map[uint64]bool{}, uint64(0)
	for range rounds {
		const processes, numbers = 2, 50
		var lines [processes]chan []string
		for i := range lines {
			cmd, out, said := startSelf(t, counterEnv, cfg.Dir)
			lines[i] = make(chan []string, 1)
			go func() {
				var all []string
				for {
					line, err := out.ReadString('\n')
					if err != nil {
						break // half a line is a number that was cut off
					}
					if all = append(all, line); len(all) == numbers {
						_ = cmd.Process.Kill()
					}
				}
				if _ = cmd.Wait(); len(all) < numbers {
					all = append(all, "ended: "+said.String())
				}
				lines[i] <- all
			}()
		}
		highest := before
		for i := range lines {
			last := before
			for _, line := range <-lines[i] {
				n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
				switch {
				case err != nil:
					t.Fatalf("a process says %q", line)
				case given[n]:
					t.Errorf("%d comes twice", n)
				case n <= last && last != 0:
					t.Errorf("%d comes after %d", n, last)
				}
				given[n], last = true, n
			}
			highest = max(highest, last)
		}
		before = highest
	}
	t.Logf("%d numbers, the last %d", len(given), before)
}
