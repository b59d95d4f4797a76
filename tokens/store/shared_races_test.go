package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"p11fs/shm"
	"p11fs/tokens/store/format"
)

// nextIn is the next name in the segment, and in NVTOK.DAT.
func (b *sharedToken) nextIn() (segment, file format.Name) {
	b.t.Helper()
	f := readFile(b.t, b.cfg.Dir, dataFile)
	parsed(b.t, f)
	return rawData(b.seg.Data()).next(), rawData(f).next()
}

// TestNextNameGoesBack starts a stock process while NVTOK.DAT is older than the
// segment: it copies the one over the other.
func TestNextNameGoesBack(t *testing.T) {
	b := newShared(t)
	o := create(t, b.s, dataObject("gone", "1", false))
	gone := parseName(t, o.Stored)
	if err := b.s.Destroy(t.Context(), o.Handle, allow); err != nil {
		t.Fatal(err)
	}
	was, _ := b.nextIn()
	d := rawData(b.seg.Data())
	d.setNext(gone)
	b.seg.SetData(d)
	writeFile(t, d, b.cfg.Dir, dataFile)
	refresh(t, b.s)
	if now, _ := b.nextIn(); place(now) < place(was) {
		t.Errorf("the next name is %s, and was %s", now, was)
	}
	again := create(t, b.s, dataObject("z", "1", false))
	if n := parseName(t, again.Stored); place(n) < place(was) {
		t.Errorf("the new object is %s, and %s may have been another one", n, n)
	}
	if segment, file := b.nextIn(); segment != file {
		t.Errorf("the next name is %s in the segment and %s in NVTOK.DAT", segment, file)
	}
}

// TestNextNameOfInitialised initialises the token as stock does, from whose first
// name on all are free again.
func TestNextNameOfInitialised(t *testing.T) {
	b := newShared(t)
	d := rawData(b.seg.Data())
	d.setNext(nth(0))
	copy(d[offUserHash:], "00000000000000000000")
	// It writes the segment first, and then MK_SO.
	b.seg.SetData(d)
	for range 2 {
		refresh(t, b.s)
		if now, _ := b.nextIn(); now != nth(0) {
			t.Errorf("the next name is %s", now)
		}
		writeFile(t, make([]byte, 48), b.cfg.Dir, soKeyFile)
	}
}

// TestNextNameInFile has two stock processes write NVTOK.DAT in the wrong order.
func TestNextNameInFile(t *testing.T) {
	b := newShared(t)
	older := rawData(b.seg.Data())
	newer := slices.Clone(older)
	newer.setNext(nth(1000))
	b.seg.SetData(newer)
	writeFile(t, newer, b.cfg.Dir, dataFile)
	refresh(t, b.s)
	writeFile(t, older, b.cfg.Dir, dataFile)
	refresh(t, b.s)
	if segment, file := b.nextIn(); segment != newer.next() || file != segment {
		t.Errorf("the next name is %s in the segment and %s in NVTOK.DAT, want %s", segment, file, newer.next())
	}
}

// TestSharedDataShort has a stock process truncate NVTOK.DAT and be killed: the
// file stays as it is as long as the process may live, and then gets its data.
func TestSharedDataShort(t *testing.T) {
	b := newShared(t)
	writeFile(t, nil, b.cfg.Dir, dataFile)
	for _, wait := range []time.Duration{0, shortWait - 1} {
		b.now = b.now.Add(wait)
		refresh(t, b.s)
		if n := len(readFile(t, b.cfg.Dir, dataFile)); n != 0 {
			t.Errorf("NVTOK.DAT has %d bytes after %v", n, wait)
		}
	}
	b.now = b.now.Add(1)
	refresh(t, b.s)
	if d := b.seg.Data(); string(readFile(t, b.cfg.Dir, dataFile)) != string(d) {
		t.Error("NVTOK.DAT has not its data again")
	}
	before := readFile(t, b.cfg.Dir, dataFile)
	writeFile(t, nil, b.cfg.Dir, dataFile)
	refresh(t, b.s)
	if n := len(readFile(t, b.cfg.Dir, dataFile)); n != 0 {
		t.Error("the second time it does not wait")
	}
	writeFile(t, before, b.cfg.Dir, dataFile)
	b.now = b.now.Add(shortWait)
	refresh(t, b.s)
}

// TestMendedEntryIsNew has a stock process lose an entry that another one knows
// from before the object's last change.
func TestMendedEntryIsNew(t *testing.T) {
	b := newShared(t)
	b.seg.Remove(shm.Public, b.nameOf(0))
	refresh(t, b.s)
	b.now = b.now.Add(grace)
	refresh(t, b.s)
	es := b.seg.Entries(shm.Public)
	if len(es) != 2 || es[1].Name != b.nameOf(0) || es[1].High == 0 {
		t.Errorf("the list is %v: a stock process would take what it knows for new", es)
	}
}

// TestDestroyedStays has a stock process write an object's file and line after the
// object was destroyed, which it was about to change.
func TestDestroyedStays(t *testing.T) {
	for name, then := range map[string]func(b *sharedToken){
		"in a section": func(b *sharedToken) { create(t, b.s, dataObject("z", "1", false)) },
		"later": func(b *sharedToken) {
			b.now = b.now.Add(grace)
			refresh(t, b.s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newShared(t)
			n := b.nameOf(0)
			file := readFile(t, b.cfg.Dir, objectsDir, n.String())
			if err := b.s.Destroy(t.Context(), b.s.Index.ByName(ShownName(b.s.nameKey, n.String())).Handle, allow); err != nil {
				t.Fatal(err)
			}
			writeFile(t, file, b.cfg.Dir, objectsDir, n.String())
			writeFile(t, append(readFile(t, b.cfg.Dir, objectsDir, indexFile), n.String()+"\n"...), b.cfg.Dir, objectsDir, indexFile)
			for range 2 {
				wantContents(t, "destroyed", b.s, "b=1", "x=1", "y=1")
			}
			then(b)
			if slices.Contains(b.lines(), n.String()) {
				t.Error("the line is still there")
			}
			if _, err := os.Stat(filepath.Join(b.cfg.Dir, objectsDir, n.String())); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
			// A name that stock gives out again is another object's.
			writeFile(t, file, b.cfg.Dir, objectsDir, n.String())
			b.set(shm.Public, append(b.seg.Entries(shm.Public), shm.Entry{Name: n}))
			refresh(t, b.s)
			if got := contents(t, b.s); !slices.Contains(got, "a=1") {
				t.Errorf("there is %q", got)
			}
		})
	}
}

// TestDoubleLine has a stock process add a line that was just put back.
func TestDoubleLine(t *testing.T) {
	for name, then := range map[string]func(b *sharedToken){
		"later":  func(b *sharedToken) { b.now = b.now.Add(grace); refresh(t, b.s) },
		"change": func(b *sharedToken) { create(t, b.s, dataObject("z", "1", false)) },
		"end": func(b *sharedToken) {
			if err := b.s.Close(); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newShared(t)
			double := append(readFile(t, b.cfg.Dir, objectsDir, indexFile), b.nameOf(0).String()+"\n"...)
			writeFile(t, double, b.cfg.Dir, objectsDir, indexFile)
			refresh(t, b.s)
			then(b)
			if !format.ParseIndex(readFile(t, b.cfg.Dir, objectsDir, indexFile)).Clean {
				t.Error("a line is still double")
			}
			if n := len(b.lines()); n < 4 {
				t.Errorf("%d lines", n)
			}
		})
	}
}

// TestForeignChangeIsTold has a stock process change an object, and its counter in
// the segment be one that another process may hold.
func TestForeignChangeIsTold(t *testing.T) {
	b := newShared(t)
	entry := func() shm.Entry { return b.seg.Entries(shm.Public)[0] }
	rewrite := func(value string) {
		t.Helper()
		file := objectFile(t, b.nameOf(0), dataObject("a", value, false))
		writeFile(t, file, b.cfg.Dir, objectsDir, b.nameOf(0).String())
	}
	store := func(low uint32) {
		es := b.seg.Entries(shm.Public)
		es[0].Low, es[0].High = low, 0
		b.set(shm.Public, es)
	}
	told := func(what string) {
		t.Helper()
		refresh(t, b.s)
		if e := entry(); e.High == 0 {
			t.Errorf("%s: the counter is %d, %d", what, e.High, e.Low)
		}
	}
	if e := entry(); e.High != 0 {
		t.Fatalf("a new object has the counter %d, %d", e.High, e.Low)
	}
	rewrite("2")
	told("the file is changed and the counter is not")
	rewrite("3")
	store(1)
	told("both are changed")
	store(1)
	told("the counter is stored late")
	store(0)
	if err := b.s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = openStore(t, b.cfg)
	told("nobody knows what was before")
	wantContents(t, "in the end", b.s, "a=3", "b=1")
}
