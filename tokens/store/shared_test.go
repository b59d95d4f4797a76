package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/shm/shmtest"
	"p11fs/tokens/store/format"
)

// A sharedToken is a store over a segment, the segment as a stock process has it
// mapped, and a clock.
type sharedToken struct {
	t   *testing.T
	cfg Config
	s   *Store
	seg *shm.TokenSegment
	now time.Time
}

// newShared opens a token with the objects a, b (public), x and y (private), which
// are listed in the segment.
func newShared(t *testing.T) *sharedToken {
	b := &sharedToken{t: t, now: testTime()}
	b.cfg = freshConfig(t)
	b.cfg.Now = func() time.Time { return b.now }
	b.cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	b.cfg.kernel = &killable{left: -1} // nobody waits for the disk
	b.s = initialised(t, b.cfg)
	login(t, b.s, p11.CKU_USER, testUser)
	for _, label := range []string{"a", "b", "x", "y"} {
		create(t, b.s, dataObject(label, "1", label >= "x"))
	}
	b.seg = b.open()
	return b
}

func (b *sharedToken) open() *shm.TokenSegment {
	b.t.Helper()
	seg, fresh, _, err := shm.OpenToken(b.cfg.Shared.Dir, b.cfg.Shared.Name, NoGroup)
	if err != nil || fresh {
		b.t.Fatalf("segment: fresh %v, %v", fresh, err)
	}
	b.t.Cleanup(func() { _ = seg.Close() })
	return seg
}

// nameOf is the name of the n-th object that newShared made.
func (b *sharedToken) nameOf(n int) format.Name {
	return nth(n)
}

func entryNames(s *shm.TokenSegment, l shm.List) []string {
	out := []string{}
	for _, e := range s.Entries(l) {
		out = append(out, string(e.Name[:]))
	}
	return out
}

// wantLists compares the lists with the numbers of objects of newShared.
func (b *sharedToken) wantLists(what string, public, private []int) {
	b.t.Helper()
	for l, numbers := range map[shm.List][]int{shm.Public: public, shm.Private: private} {
		want := []string{}
		for _, n := range numbers {
			want = append(want, b.nameOf(n).String())
		}
		if d := cmp.Diff(want, entryNames(b.seg, l)); d != "" {
			b.t.Errorf("%s: list %d: %s", what, l, d)
		}
	}
}

func (b *sharedToken) lines() []string {
	b.t.Helper()
	names := format.ParseIndex(readFile(b.t, b.cfg.Dir, objectsDir, indexFile)).Names
	var out []string
	for _, n := range names {
		out = append(out, n.String())
	}
	slices.Sort(out)
	return out
}

func (b *sharedToken) set(l shm.List, es []shm.Entry) {
	b.t.Helper()
	if err := b.seg.SetEntries(l, es); err != nil {
		b.t.Fatal(err)
	}
}

// restart opens the token as after a restart of the machine, and says what is in
// it.
func (b *sharedToken) restart() []string {
	b.t.Helper()
	cfg := b.cfg
	cfg.Dir = copyDir(b.t, b.cfg.Dir)
	cfg.Shared = &Shared{Dir: b.t.TempDir(), Name: "/segment"}
	s := openStore(b.t, cfg)
	defer login(b.t, s, p11.CKU_USER, testUser).Close()
	return contents(b.t, s)
}

func TestSharedLists(t *testing.T) {
	b := newShared(t)
	b.wantLists("created", []int{0, 1}, []int{2, 3})
	if !b.seg.Loaded(shm.Public) || !b.seg.Loaded(shm.Private) || b.seg.References() != 1 {
		t.Errorf("loaded %v %v, %d references", b.seg.Loaded(shm.Public), b.seg.Loaded(shm.Private), b.seg.References())
	}
	if _, err := b.s.Update(t.Context(), labelled(t, b.s, "b"), relabel("B")); err != nil {
		t.Fatal(err)
	}
	if es := b.seg.Entries(shm.Public); es[0].High != 0 || es[1].High == 0 || es[1].Low == 0 {
		t.Errorf("counters %v: those of a change are ones that no stock process holds", es)
	}
	if err := b.s.Destroy(t.Context(), labelled(t, b.s, "a"), allow); err != nil {
		t.Fatal(err)
	}
	b.wantLists("destroyed", []int{1}, []int{2, 3})
	if d := b.seg.Data(); parsed(t, d) != dataOf(b.s) || !bytes.Equal(d, readFile(t, b.cfg.Dir, dataFile)) {
		t.Error("segment, NVTOK.DAT and memory differ")
	}
	if err := b.s.InitToken(t.Context(), pin(t, testSO), "again"); err != nil {
		t.Fatal(err)
	}
	b.wantLists("initialised", nil, nil)
	if d := rawData(b.seg.Data()); !bytes.HasPrefix(d, []byte("again   ")) || d.next() != nth(0) {
		t.Error("the token data of before")
	}
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := b.seg.References(); n != 0 {
		t.Errorf("%d references", n)
	}
}

// TestSharedAttach opens a token over segments in every state.
func TestSharedAttach(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(b *sharedToken)
		label string
	}{
		{"loaded: the segment is the truth", func(b *sharedToken) {
			d := rawData(b.seg.Data())
			d.setLabel("newer")
			b.seg.SetData(d)
		}, "newer"},
		{"fresh: the file is", func(b *sharedToken) {
			b.seg.SetData(make([]byte, dataSize))
			b.seg.SetLoaded(shm.Public, false)
			b.seg.SetLoaded(shm.Private, false)
			b.set(shm.Public, nil)
			b.set(shm.Private, nil)
		}, "test token"},
		{"half loaded", func(b *sharedToken) {
			b.seg.SetLoaded(shm.Public, false)
			b.seg.SetLoaded(shm.Private, false)
			b.set(shm.Private, b.seg.Entries(shm.Private)[:1])
			b.set(shm.Public, b.seg.Entries(shm.Public)[:1])
		}, "test token"},
		{"loaded, but without sense", func(b *sharedToken) { b.seg.SetData(append([]byte{7: 7}, make([]byte, dataSize-8)...)) }, "test token"},
		{"NVTOK.DAT truncated by stock", func(b *sharedToken) {
			writeFile(b.t, nil, b.cfg.Dir, dataFile)
		}, "test token"},
		{"references below zero", func(b *sharedToken) {
			f, err := os.OpenFile(b.seg.Path(), os.O_WRONLY, 0)
			if err != nil {
				b.t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
				b.t.Fatal(err)
			}
		}, "test token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newShared(t)
			if err := b.s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.spoil(b)
			s := openStore(t, b.cfg)
			if i := info(t, s); i.Label != tt.label {
				t.Errorf("label %q, want %q", i.Label, tt.label)
			}
			wantContents(t, "before login", s, "a=1", "b=1")
			login(t, s, p11.CKU_USER, testUser)
			wantContents(t, "after login", s, "a=1", "b=1", "x=1", "y=1")
			b.wantLists("attached", []int{0, 1}, []int{2, 3})
			if parsed(t, b.seg.Data()) != dataOf(s) {
				t.Error("segment and memory differ")
			}
			if b.seg.References() != 1 || !b.seg.Loaded(shm.Public) || !b.seg.Loaded(shm.Private) {
				t.Errorf("%d references", b.seg.References())
			}
			create(t, s, dataObject("z", "1", true))
			// Names are reserved in runs of 1, 2, 4, and a new process starts after.
			b.wantLists("created", []int{0, 1}, []int{2, 3, 7})
		})
	}
}

// TestSharedRefused opens a token over a segment that cannot be used.
func TestSharedRefused(t *testing.T) {
	b := newShared(t)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(b.seg.Path(), 1000); err != nil {
		t.Fatal(err)
	}
	before := tree(t, b.cfg.Dir)
	_, err := Open(t.Context(), b.cfg)
	wantRV(t, "Open", err, p11.CKR_DEVICE_ERROR)
	if tree(t, b.cfg.Dir) != before {
		t.Error("the directory has changed")
	}
}

// TestSharedRemoved removes the segment under the store: it goes over to the one
// that is there at its next use, or makes one.
func TestSharedRemoved(t *testing.T) {
	for _, stock := range []bool{false, true} {
		t.Run(fmt.Sprintf("stock made another %v", stock), func(t *testing.T) {
			b := newShared(t)
			path := filepath.Join(b.cfg.Shared.Dir, b.cfg.Shared.Name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if stock { // from NVTOK.DAT, with the lists still to be loaded
				seg, _, _, err := shm.OpenToken(b.cfg.Shared.Dir, b.cfg.Shared.Name, NoGroup)
				if err != nil {
					t.Fatal(err)
				}
				seg.SetData(b.seg.Data())
				b.seg = seg
				t.Cleanup(func() { _ = seg.Close() })
			}
			create(t, b.s, dataObject("c", "1", false))
			if !stock {
				b.seg = b.open()
			}
			b.wantLists("another object", []int{0, 1, 4}, []int{2, 3})
			if parsed(t, b.seg.Data()) != dataOf(b.s) {
				t.Error("the new segment has other data")
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := b.s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.seg = b.open()
			b.wantLists("a look", []int{0, 1, 4}, []int{2, 3})
		})
	}
}

// TestSharedNew makes a token where the segment of one that is gone still is.
func TestSharedNew(t *testing.T) {
	b := newShared(t)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, b.cfg)
	b.wantLists("new", nil, nil)
	login(t, s, p11.CKU_SO, firstSOPIN)
	if parsed(t, b.seg.Data()) != dataOf(s) || info(t, s).Label != "IBM OS PKCS#11" {
		t.Error("token data of the old token")
	}
}

// TestSharedData changes the token data as stock does, in the segment first.
func TestSharedData(t *testing.T) {
	b := newShared(t)
	l := login(t, b.s, p11.CKU_USER, testUser)
	change := func(f func(d rawData)) {
		d := rawData(b.seg.Data())
		f(d)
		b.seg.SetData(d)
	}
	change(func(d rawData) { d.setLabel("by stock"); d.setNext(parseName(t, "00A00000")) })
	refresh(t, b.s)
	if i := info(t, b.s); i.Label != "by stock" {
		t.Errorf("label %q", i.Label)
	}
	if o := create(t, b.s, dataObject("z", "1", false)); o.Stored != "00A00000" {
		// What was reserved before is given out first.
		if n := parseName(t, o.Stored); place(n) < place(b.nameOf(4)) {
			t.Errorf("the new object is %s", o.Stored)
		}
	}
	change(func(d rawData) { d.setNext(nth(0)) })
	if o := create(t, b.s, dataObject("z", "1", false)); b.nameOf(0).String() == o.Stored {
		t.Errorf("the next name went back, and %s was used twice", o.Stored)
	}
	change(func(d rawData) { d.flag(p11.CKF_USER_PIN_FINAL_TRY) })
	wantRV(t, "third wrong PIN", tryLogin(t, b.s, p11.CKU_USER, "1111"), p11.CKR_PIN_INCORRECT)
	if d := rawData(b.seg.Data()); d.flags()&p11.CKF_USER_PIN_LOCKED == 0 {
		t.Error("the PIN is not locked for stock")
	}
	wantRV(t, "login after the third wrong PIN", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)

	b = newShared(t)
	l = login(t, b.s, p11.CKU_USER, testUser)
	change(func(d rawData) { d.flag(p11.CKF_USER_PIN_LOCKED) })
	wantRV(t, "login, locked by stock", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	wantContents(t, "locked by stock", b.s, "a=1", "b=1")
	wantRV(t, "a new login", tryLogin(t, b.s, p11.CKU_USER, testUser), p11.CKR_PIN_LOCKED)
}

// TestSharedFlagsMerge changes flags in the segment in the middle of a section, as
// stock does without the lock at a login.
func TestSharedFlagsMerge(t *testing.T) {
	b := newShared(t)
	end, err := b.s.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	theirs := rawData(b.seg.Data())
	theirs.flag(p11.CKF_SO_PIN_COUNT_LOW)
	b.seg.SetData(theirs)
	ours := dataOf(b.s)
	ours.SetFlags(ours.Flags() | p11.CKF_USER_PIN_COUNT_LOW)
	if err := b.s.saveData(ours); err != nil {
		t.Fatal(err)
	}
	end()
	d := rawData(b.seg.Data())
	if want := p11.CKF_SO_PIN_COUNT_LOW | p11.CKF_USER_PIN_COUNT_LOW; d.flags()&want != want || dataOf(b.s) != parsed(t, d) {
		t.Errorf("flags %v, in memory %v", d.flags(), info(t, b.s).Flags)
	}
	// One that comes after our own store is seen at the next Refresh.
	end, err = b.s.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.flag(p11.CKF_SO_PIN_FINAL_TRY)
	b.seg.SetData(d)
	end()
	refresh(t, b.s)
	if info(t, b.s).Flags&p11.CKF_SO_PIN_FINAL_TRY == 0 {
		t.Error("a change of the flags is lost")
	}
}

// TestSharedFull fills the lists to the limit and beyond, as stock does.
func TestSharedFull(t *testing.T) {
	b := newShared(t)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	next := 4
	var lines []byte
	public := b.seg.Entries(shm.Public)
	for len(public) < shm.MaxObjects {
		n := nth(next)
		file := objectFile(t, n, dataObject("many", n.String(), false))
		writeFile(t, file, b.cfg.Dir, objectsDir, n.String())
		lines = append(lines, n.String()+"\n"...)
		public = append(public, shm.Entry{Name: n})
		next++
	}
	b.set(shm.Public, public)
	writeFile(t, append(readFile(t, b.cfg.Dir, objectsDir, indexFile), lines...), b.cfg.Dir, objectsDir, indexFile)
	b.cfg.kernel = &killable{left: -1}
	b.s = openStore(t, b.cfg)
	if n := len(contents(t, b.s)); n != shm.MaxObjects {
		t.Errorf("%d objects", n)
	}
	full := func() {
		t.Helper()
		before := tree(t, b.cfg.Dir)
		_, err := b.s.Create(t.Context(), dataObject("more", "", false))
		wantRV(t, "Create", err, p11.CKR_HOST_MEMORY)
		if !errors.Is(err, unix.ENOSPC) || tree(t, b.cfg.Dir) != before {
			t.Errorf("a refused object left something behind, or %v is not ENOSPC", err)
		}
	}
	full()
	login(t, b.s, p11.CKU_USER, testUser)
	create(t, b.s, dataObject("the other list has room", "", true))
	destroy := func() {
		t.Helper()
		if err := b.s.Destroy(t.Context(), b.s.Index.ByName(ShownName(b.s.nameKey, string(public[0].Name[:]))).Handle, allow); err != nil {
			t.Fatal(err)
		}
		public = public[1:]
	}
	destroy()
	if es := b.seg.Entries(shm.Private); string(es[0].Name[:]) != b.nameOf(2).String() {
		t.Error("private entry 0 was cleared")
	}
	full() // 2047: stock may not fill the list either
	destroy()
	create(t, b.s, dataObject("more", "", false))
	full()
	// A list that is lost does not come back longer than the limit.
	b.seg.SetLoaded(shm.Public, false)
	b.set(shm.Public, nil)
	refresh(t, b.s)
	if n := b.seg.Count(shm.Public); n != shm.Limit {
		t.Errorf("%d entries", n)
	}
}

// TestSharedHostile has somebody who may write the segment write nonsense.
func TestSharedHostile(t *testing.T) {
	for name, spoil := range map[string]func(raw []byte){
		"all ones":   func(raw []byte) { fill(raw, 0xff) },
		"all zero":   func(raw []byte) { clear(raw) },
		"all slash":  func(raw []byte) { fill(raw, '/') },
		"dots":       func(raw []byte) { copy(raw[508:], "\x00../../..\x00\x00\x00") },
		"counts":     func(raw []byte) { fill(raw[496:504], 0xff) },
		"PIN length": func(raw []byte) { fill(raw[264+116:264+124], 0xff) },
		"no objects": func(raw []byte) { clear(raw[496:]) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newShared(t)
			raw := readFile(t, b.seg.Path())
			spoil(raw)
			writeInPlace(t, b.seg.Path(), raw)
			_ = b.s.Refresh(t.Context())
			_ = tryLogin(t, b.s, p11.CKU_USER, testUser)
			_, _ = b.s.Create(t.Context(), dataObject("z", "1", false))
			b.now = b.now.Add(grace)
			_ = b.s.Refresh(t.Context())
			info(t, b.s)
			if err := b.s.Close(); err != nil {
				t.Fatal(err)
			}
			// No file is lost: with a new segment all is as it was.
			remove(t, b.seg.Path())
			s := openStore(t, b.cfg)
			login(t, s, p11.CKU_SO, testSO)
			if l := info(t, s); l.Label != "test token" && name != "PIN length" {
				t.Errorf("label %q", l.Label)
			}
			if n := len(contents(t, s)); n < 2 {
				t.Errorf("%d objects", n)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		shmtest.NeedFaultAddress(t)
		b := newShared(t)
		if err := os.Truncate(b.seg.Path(), 0); err != nil {
			t.Fatal(err)
		}
		wantContents(t, "cut", b.s, "a=1", "b=1", "x=1", "y=1")
		create(t, b.s, dataObject("z", "1", false))
		wantContents(t, "cut", b.s, "a=1", "b=1", "x=1", "y=1", "z=1")
		wantRV(t, "login", tryLogin(t, b.s, p11.CKU_USER, testUser), p11.CKR_OK)
	})
	t.Run("cut short in a section", func(t *testing.T) {
		shmtest.NeedFaultAddress(t)
		b := newShared(t)
		end, err := b.s.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(b.seg.Path(), 0); err != nil {
			t.Fatal(err)
		}
		d := dataOf(b.s)
		d.SetFlags(d.Flags() | p11.CKF_USER_PIN_COUNT_LOW)
		if err := b.s.saveData(d); err != nil {
			t.Fatal(err)
		}
		b.s.shareNew(b.nameOf(9), false)
		b.s.shareChange(b.nameOf(0), false)
		b.s.shareGone(b.nameOf(1), false)
		end()
		if dataOf(b.s) != d {
			t.Error("token data is lost")
		}
		wantContents(t, "cut", b.s, "a=1", "b=1", "x=1", "y=1")
		if _, shared := b.s.References(); shared {
			t.Error("the segment is still in use")
		}
	})
}

func fill(b []byte, c byte) {
	for i := range b {
		b[i] = c
	}
}

func writeInPlace(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkRefreshShared is what each use of an object pays to hear of other processes.
func BenchmarkRefreshShared(b *testing.B) {
	for _, shared := range []bool{false, true} {
		for _, objects := range []int{20, 2000} {
			b.Run(fmt.Sprintf("shared=%v,objects=%d", shared, objects), func(b *testing.B) {
				cfg := freshConfig(b)
				cfg.kernel = &killable{left: -1}
				cfg.Log = slog.New(slog.DiscardHandler)
				if shared {
					cfg.Shared = &Shared{Dir: b.TempDir(), Name: "/segment"}
				}
				s := openStore(b, cfg)
				for range objects {
					create(b, s, dataObject("x", "1", false))
				}
				for b.Loop() {
					refresh(b, s)
				}
			})
		}
	}
}
