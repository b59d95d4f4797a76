package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/store/format"
)

// together has objects of list be created at once, and returns the error of each. If begun
// is not nil it is called when all wait.
func together(t *testing.T, s *Store, begun func(), list ...p11.Attributes) []error {
	t.Helper()
	return atOnce(t, s, &s.creators, begun, len(list), func(i int) error {
		_, err := s.Create(t.Context(), list[i])
		return err
	})
}

// atOnce has n calls wait for the token's lock one after the other, and returns the error of
// each. If begun is not nil it is called when all wait.
func atOnce[C any](t *testing.T, s *Store, w *crew[C], begun func(), n int, call func(i int) error) []error {
	t.Helper()
	unlock, err := s.cfg.Lock.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, n)
	done := make(chan int)
	for i := range n {
		go func() {
			errs[i] = call(i)
			done <- i
		}()
		waitCrew(t, w, i+1)
	}
	if begun != nil {
		begun()
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	for range n {
		<-done
	}
	return errs
}

func waitCrew[C any](t *testing.T, w *crew[C], n int) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		waiting := len(w.waiting)
		w.mu.Unlock()
		if waiting == n {
			return
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("%d calls wait, of %d", waiting, n)
		}
	}
}

func dataObjects(n int) (list []p11.Attributes) {
	for i := range n {
		list = append(list, dataObject(fmt.Sprint("object ", i), "x", false))
	}
	return list
}

// TestTogether: what is created at once takes one sync of the index and one of the
// directory; what fails, or is called off while it waits, is none of the others' business.
func TestTogether(t *testing.T) {
	t.Parallel()
	bothFormats(t, func(t *testing.T, cfg Config) {
		rec := &recorder{names: map[int]string{}}
		cfg.kernel = rec
		s := openStore(t, cfg)
		create(t, s, dataObject("first", "x", false)) // has names reserved
		rec.ops = nil
		const n = 10
		list := append(dataObjects(n), dataObject("private", "x", true)) // nobody is logged in
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var gaveUp error
		errs := together(t, s, func() {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, gaveUp = s.Create(ctx, dataObject("called off", "x", false))
			}()
			waitCrew(t, &s.creators, len(list)+1)
			cancel()
			<-gone
		}, list...)
		if p11.RVOf(gaveUp) != p11.CKR_FUNCTION_CANCELED {
			t.Errorf("who gave up: %v", gaveUp)
		}
		for i, err := range errs {
			if want := p11.CKR_OK; i == n && p11.RVOf(err) != p11.CKR_USER_NOT_LOGGED_IN || i < n && p11.RVOf(err) != want {
				t.Errorf("%d: %v", i, err)
			}
		}
		count := map[string]int{}
		for _, step := range rec.steps() {
			count[step]++
		}
		if count["sync TOK_OBJ/OBJ.IDX"] != 1 || count["syncdir TOK_OBJ"] != 1 || count["sync TOK_OBJ/temporary"] != n {
			t.Errorf("steps %v", count)
		}
		if got := labels(t, s); len(got) != n+1 {
			t.Errorf("objects %v", got)
		}
		if errs := together(t, s, nil, dataObjects(1)...); errs[0] != nil {
			t.Error(errs)
		}
	})
}

// A failRename is a kernel that fails to give the n-th file its name.
type failRename struct {
	linux
	n atomic.Int64
}

func (k *failRename) Rename(dir int, from, to string) error {
	if _, object := format.ParseName([]byte(to)); object && k.n.Add(-1) == 0 {
		return unix.EIO
	}
	return k.linux.Rename(dir, from, to)
}

// TestTogetherOneFails: the one whose file cannot be had is no object, and the others are.
func TestTogetherOneFails(t *testing.T) {
	t.Parallel()
	cfg := freshConfig(t)
	k := &failRename{}
	cfg.kernel = k
	s := openStore(t, cfg)
	k.n.Store(3)
	errs := together(t, s, nil, dataObjects(5)...)
	for i, err := range errs {
		if errors.Is(err, unix.EIO) != (i == 2) || (err == nil) != (i != 2) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if got := labels(t, s); len(got) != 4 || got["object 2"] {
		t.Errorf("objects %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := labels(t, openStore(t, cfg)); len(got) != 4 || got["object 2"] {
		t.Errorf("after a restart: %v", got)
	}
}

// TestPowerCutTogether cuts the power after every step while objects are created at once:
// each is there or not, and all once their calls have ended.
func TestPowerCutTogether(t *testing.T) {
	t.Parallel()
	seed := crashToken(t, false)
	before := look(t, seed, testSO, testUser, otherPIN)
	cfg := config(t, copyDir(t, seed))
	rec := &recorder{names: map[int]string{}}
	cfg.kernel = rec
	s := openStore(t, cfg)
	create(t, s, dataObject("one more", "x", false)) // has names reserved
	rec.ops = nil
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seed = copyDir(t, cfg.Dir)
	before = look(t, copyDir(t, seed), testSO, testUser, otherPIN)
	s = openStore(t, cfg)
	rec.ops = nil
	const n = 4
	for i, err := range together(t, s, nil, dataObjects(n)...) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, eager := range []bool{false, true} {
		for cut := range len(rec.ops) + 1 {
			d := newDisk(t, seed, eager)
			for _, o := range rec.ops[:cut] {
				d.apply(o)
			}
			top := filepath.Join(t.TempDir(), filepath.Base(seed))
			d.restore(t, top)
			got := look(t, top, testSO, testUser, otherPIN)
			made := slices.DeleteFunc(slices.Clone(got.Objects), func(o string) bool { return slices.Contains(before.Objects, o) })
			if got.SO != before.SO || got.User != before.User || len(got.Objects)-len(made) != len(before.Objects) || len(made) > n || cut == len(rec.ops) && len(made) != n {
				t.Errorf("eager=%v, cut after %d of %d: %v", eager, cut, len(rec.ops), got)
			}
			checkGoesOn(t, top, got)
		}
	}
}

// BenchmarkCreators compares 64 calls of Create at a time with one, durably on the disk of
// P11FS_TEST_DISK.
func BenchmarkCreators(b *testing.B) {
	dir := os.Getenv("P11FS_TEST_DISK")
	if dir == "" {
		b.Skip("a disk is named by P11FS_TEST_DISK")
	}
	rate := func(callers int) float64 {
		s := newStore(b)
		const each = 16
		begun := time.Now()
		done := make(chan error)
		for c := range callers {
			go func() {
				var err error
				for i := 0; i < each && err == nil; i++ {
					_, err = s.Create(b.Context(), dataObject(fmt.Sprint(c, i), "x", false))
				}
				done <- err
			}()
		}
		for range callers {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
		return float64(callers*each) / time.Since(begun).Seconds()
	}
	var one, many float64
	for b.Loop() {
		one += rate(1)
		many += rate(64)
	}
	b.ReportMetric(one/float64(b.N), "one/s")
	b.ReportMetric(many/float64(b.N), "many/s")
	b.ReportMetric(many/one, "times-one")
}
