package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens/store/format"
)

// destroyTogether has objects be destroyed at once, and returns the error of each. If begun
// is not nil it is called when all wait.
func destroyTogether(t *testing.T, s *Store, begun func(), list ...p11.ObjectHandle) []error {
	t.Helper()
	return atOnce(t, s, &s.destroyers, begun, len(list), func(i int) error { return s.Destroy(t.Context(), list[i], allow) })
}

func createObjects(t *testing.T, s *Store, n int) (handles []p11.ObjectHandle) {
	t.Helper()
	for _, attrs := range dataObjects(n) {
		handles = append(handles, create(t, s, attrs).Handle)
	}
	return handles
}

// TestDestroyTogether: what is destroyed at once takes one sync of the index; what may not
// be destroyed, is none, comes twice, or is called off while it waits, is none of the others'
// business.
func TestDestroyTogether(t *testing.T) {
	t.Parallel()
	bothFormats(t, func(t *testing.T, cfg Config) {
		rec := &recorder{names: map[int]string{}}
		cfg.kernel = rec
		s := openStore(t, cfg)
		handles := createObjects(t, s, 8)
		rec.ops = nil
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		refused := errors.New("refused")
		calls := []func() error{
			func() error { return s.Destroy(t.Context(), handles[5], func(p11.Attributes) error { return refused }) },
			func() error { return s.Destroy(t.Context(), 1, allow) },
			func() error { return s.Destroy(t.Context(), handles[0], allow) }, // as one of the next
		}
		for _, h := range handles[:5] {
			calls = append(calls, func() error { return s.Destroy(t.Context(), h, allow) })
		}
		var gaveUp error
		errs := atOnce(t, s, &s.destroyers, func() {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				gaveUp = s.Destroy(ctx, handles[6], allow)
			}()
			waitCrew(t, &s.destroyers, len(calls)+1)
			cancel()
			<-gone
		}, len(calls), func(i int) error { return calls[i]() })
		if p11.RVOf(gaveUp) != p11.CKR_FUNCTION_CANCELED {
			t.Errorf("who gave up: %v", gaveUp)
		}
		if !errors.Is(errs[0], refused) || p11.RVOf(errs[1]) != p11.CKR_OBJECT_HANDLE_INVALID ||
			errs[2] != nil || p11.RVOf(errs[3]) != p11.CKR_OBJECT_HANDLE_INVALID {
			t.Errorf("errors %v", errs)
		}
		if err := errors.Join(errs[4:]...); err != nil {
			t.Error(err)
		}
		count := map[string]int{}
		for _, step := range rec.steps() {
			count[step]++
		}
		if count["sync TOK_OBJ/OBJ.IDX"] != 1 || count["write TOK_OBJ/OBJ.IDX"] != 5 || count["syncdir TOK_OBJ"] != 0 {
			t.Errorf("steps %v", count)
		}
		if got := labels(t, s); len(got) != 3 {
			t.Errorf("objects %v", got)
		}
		if errs := destroyTogether(t, s, nil, handles[6]); errs[0] != nil {
			t.Error(errs)
		}
	})
}

// TestDestroyTogetherShared: so it is in a token that is shared with stock processes, whose
// index is replaced once, and whose segment has none of the objects any more.
func TestDestroyTogetherShared(t *testing.T) {
	t.Parallel()
	rec := &recorder{names: map[int]string{}}
	cfg := freshConfig(t)
	cfg.kernel = rec
	cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	s := openStore(t, cfg)
	handles := createObjects(t, s, 6)
	rec.ops = nil
	if err := errors.Join(destroyTogether(t, s, nil, handles[:5]...)...); err != nil {
		t.Error(err)
	}
	renames := 0
	for _, o := range rec.ops {
		if o.kind == "rename" {
			renames++
		}
	}
	if renames != 1 {
		t.Errorf("the index was replaced %d times", renames)
	}
	if n := s.seg.Count(lists[0]); n != 1 {
		t.Errorf("%d entries in the segment", n)
	}
	if got := labels(t, s); len(got) != 1 || !got["object 5"] {
		t.Errorf("objects %v", got)
	}
}

// A failSync is a kernel that fails to sync what is written in the index.
type failSync struct {
	linux
	fails atomic.Bool
}

func (k *failSync) SyncData(fd int) error {
	if k.fails.Load() {
		return unix.EIO
	}
	return k.linux.SyncData(fd)
}

// TestDestroyTogetherFails: nobody is told that his object is gone where the disk has failed.
func TestDestroyTogetherFails(t *testing.T) {
	t.Parallel()
	cfg := freshConfig(t)
	k := &failSync{}
	cfg.kernel = k
	s := openStore(t, cfg)
	handles := createObjects(t, s, 3)
	k.fails.Store(true)
	for i, err := range destroyTogether(t, s, nil, handles...) {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%d: %v", i, err)
		}
	}
	k.fails.Store(false)
	refresh(t, s)
	kept := createObjects(t, s, 1)
	if err := s.Destroy(t.Context(), kept[0], allow); err != nil {
		t.Error("later:", err)
	}
}

// TestDestroyTogetherOnAFullDisk: each of them makes the room that the next index needs.
func TestDestroyTogetherOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, gives := range []bool{true, false} {
		cfg := freshConfig(t)
		cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
		k := &full{gives: gives}
		cfg.kernel = k
		s := openStore(t, cfg)
		handles := createObjects(t, s, 4)
		k.on = true
		if err := errors.Join(destroyTogether(t, s, nil, handles[:3]...)...); err != nil {
			t.Errorf("gives=%v: %v", gives, err)
		}
		refresh(t, s)
		if got := labels(t, s); len(got) != 1 || !got["object 3"] {
			t.Errorf("gives=%v: objects %v", gives, got)
		}
	}
}

// TestPowerCutDestroyTogether cuts the power after every step while objects are destroyed at
// once: each is there or not, all are gone once their calls have ended, and so are their
// files when the token was opened again.
func TestPowerCutDestroyTogether(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"alone": false, "shared": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := crashToken(t, shared)
			cfg := config(t, copyDir(t, seed))
			shareIfDir(&cfg)
			rec := &recorder{names: map[int]string{}}
			cfg.kernel = rec
			const n = 4
			s := openStore(t, cfg)
			createObjects(t, s, n)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			seed = copyDir(t, cfg.Dir)
			before := look(t, copyDir(t, seed), testSO, testUser, otherPIN)
			s = openStore(t, cfg)
			var handles []p11.ObjectHandle
			for i := range n {
				handles = append(handles, labelled(t, s, fmt.Sprint("object ", i)))
			}
			rec.ops = nil
			if err := errors.Join(destroyTogether(t, s, nil, handles...)...); err != nil {
				t.Fatal(err)
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
					left := slices.DeleteFunc(slices.Clone(got.Objects), func(o string) bool { return o == "pub=1" || o == "priv=2" })
					if got.SO != before.SO || got.User != before.User || len(got.Objects)-len(left) != 2 || len(left) > n || cut == len(rec.ops) && len(left) > 0 {
						t.Errorf("eager=%v, cut after %d of %d: %v", eager, cut, len(rec.ops), got)
					}
					if files := objectFiles(t, top); len(files) != len(got.Objects) {
						t.Errorf("eager=%v, cut after %d of %d: %d files of %d objects", eager, cut, len(rec.ops), len(files), len(got.Objects))
					}
					checkGoesOn(t, top, got)
				}
			}
		})
	}
}

func objectFiles(t *testing.T, top string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(top, objectsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := format.ParseName([]byte(e.Name())); ok {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestDestroyedByTwo: two processes that have one token open destroy its objects at once.
// Each object is destroyed by one of them, however they hear of one another.
func TestDestroyedByTwo(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			t.Parallel()
			one, two := pair(t, w)
			const n = 24
			createObjects(t, one, n)
			refresh(t, two)
			var wg sync.WaitGroup
			var gone [n]atomic.Int32
			for _, s := range []*Store{one, two} {
				var handles []p11.ObjectHandle
				for i := range n {
					handles = append(handles, labelled(t, s, fmt.Sprint("object ", i)))
				}
				for i, h := range handles {
					wg.Go(func() {
						switch err := s.Destroy(t.Context(), h, allow); {
						case err == nil:
							gone[i].Add(1)
						case p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID:
							t.Errorf("object %d: %v", i, err)
						}
					})
				}
			}
			wg.Wait()
			for i := range gone {
				if got := gone[i].Load(); got != 1 {
					t.Errorf("object %d was destroyed %d times", i, got)
				}
			}
			for _, s := range []*Store{one, two} {
				refresh(t, s)
				if got := labels(t, s); len(got) > 0 {
					t.Errorf("objects %v", got)
				}
			}
			if files := objectFiles(t, one.cfg.Dir); len(files) > 0 {
				t.Errorf("files %v", files)
			}
		})
	}
}

// BenchmarkDestroyers compares 64 calls of Destroy at a time with one, durably on the disk of
// P11FS_TEST_DISK.
func BenchmarkDestroyers(b *testing.B) {
	if os.Getenv("P11FS_TEST_DISK") == "" {
		b.Skip("a disk is named by P11FS_TEST_DISK")
	}
	rate := func(callers int) float64 {
		s := newStore(b)
		const n = 1024
		handles := make(chan p11.ObjectHandle, n)
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range n / 64 {
					o, err := s.Create(b.Context(), dataObject("x", "x", false))
					if err != nil {
						b.Error(err)
						return
					}
					handles <- o.Handle
				}
			})
		}
		wg.Wait()
		close(handles)
		begun := time.Now()
		for range callers {
			wg.Go(func() {
				for h := range handles {
					if err := s.Destroy(b.Context(), h, allow); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return n / time.Since(begun).Seconds()
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
