package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

func relabel(label string) func(p11.Attributes) (p11.Attributes, error) {
	return func(a p11.Attributes) (p11.Attributes, error) {
		return a.With(p11.CKA_LABEL, []byte(label)), nil
	}
}

func allow(p11.Attributes) error { return nil }

func destroy(t testing.TB, s *Store, o *tokens.Object) {
	t.Helper()
	if err := s.Destroy(t.Context(), o.Handle, allow); err != nil {
		t.Fatal(err)
	}
}

// wantRefused tries what a store refuses to do with an object, which changes nothing.
func wantRefused(t *testing.T, s *Store, cfg Config, a *tokens.Object) {
	t.Helper()
	ctx := t.Context()
	refuse := errors.New("refused")
	before := tree(t, cfg.Dir)
	_, err := s.Update(ctx, a.Handle, func(p11.Attributes) (p11.Attributes, error) { return nil, refuse })
	if !errors.Is(err, refuse) {
		t.Errorf("Update: %v", err)
	}
	if err := s.Destroy(ctx, a.Handle, func(p11.Attributes) error { return refuse }); !errors.Is(err, refuse) {
		t.Errorf("Destroy: %v", err)
	}
	_, err = s.Update(ctx, a.Handle, func(x p11.Attributes) (p11.Attributes, error) {
		return x.With(p11.CKA_PRIVATE, p11.Bool(true)), nil
	})
	wantRV(t, "made private", err, p11.CKR_ATTRIBUTE_READ_ONLY)
	_, err = s.Update(ctx, 12345, relabel("x"))
	wantRV(t, "no such object", err, p11.CKR_OBJECT_HANDLE_INVALID)
	wantRV(t, "no such object", s.Destroy(ctx, 12345, allow), p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = s.ByName("nowhere")
	wantRV(t, "no such name", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if tree(t, cfg.Dir) != before {
		t.Error("what was refused changed the directory")
	}
}

func TestObjects(t *testing.T) {
	cfg := freshConfig(t)
	s := initialised(t, cfg)
	ctx := t.Context()
	_, err := s.Create(ctx, dataObject("p", "", true))
	wantRV(t, "private without login", err, p11.CKR_USER_NOT_LOGGED_IN)
	user := login(t, s, p11.CKU_USER, testUser)
	a := create(t, s, dataObject("a", "1", false))
	b := create(t, s, dataObject("b", "2", true))
	noPrivate := dataObject("c", "3", false)
	noPrivate.Delete(p11.CKA_PRIVATE)
	c := create(t, s, noPrivate)
	if a.Stored != "00000000" || b.Stored != "10000000" || c.Stored != "20000000" || c.Private || !b.Private {
		t.Errorf("names %s %s %s", a.Stored, b.Stored, c.Stored)
	}
	if pub, priv := s.Counts(); pub != 2 || priv != 1 {
		t.Errorf("%d public, %d private", pub, priv)
	}
	found, err := s.Find(ctx, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("b")}}, false)
	if err != nil || len(found) != 0 {
		t.Errorf("a private object among the public: %v %v", found, err)
	}

	a2, err := s.Update(ctx, a.Handle, relabel("A"))
	if err != nil {
		t.Fatal(err)
	}
	if a2.Handle != a.Handle || a2.Stored != a.Stored || attributesOf(t, a2).Label() != "A" {
		t.Errorf("%v %s", a2.Handle, a2.Stored)
	}
	_, err = a.Acquire()
	wantRV(t, "the old version", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if got, err := s.ByHandle(a.Handle); err != nil || got != a2 {
		t.Errorf("ByHandle: %v %v", got, err)
	}
	if _, err := s.Update(ctx, b.Handle, relabel("B")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"A=1", "B=2", "c=3"}, contents(t, s)); d != "" {
		t.Error(d)
	}

	wantRefused(t, s, cfg, a)
	destroy(t, s, a)
	wantRV(t, "destroyed", s.Destroy(ctx, a.Handle, allow), p11.CKR_OBJECT_HANDLE_INVALID)
	idx := readFile(t, cfg.Dir, objectsDir, indexFile)
	if d := cmp.Diff([]format.Name{nth(1), nth(2)}, format.ParseIndex(idx).Names); d != "" || !bytes.HasSuffix(idx, []byte("\n10000000\n20000000\n")) {
		t.Errorf("index %q: %s", idx, d)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, objectsDir, a.Stored)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	_ = user.Close()

	// Everything is there again in another life, and no name comes back.
	_ = s.Close()
	s = openStore(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	if d := cmp.Diff([]string{"B=2", "c=3"}, contents(t, s)); d != "" {
		t.Error(d)
	}
	if o := create(t, s, dataObject("d", "4", false)); o.Stored <= "20000000" {
		t.Errorf("name %s was used before", o.Stored)
	}
}

func TestCannotBeStored(t *testing.T) {
	s := newStore(t)
	big := dataObject("a", "", false)
	big.Set(p11.CKA_VALUE, make([]byte, format.MaxObjectFile))
	wide := dataObject("a", "", false)
	wide.SetUlong(p11.CKA_CLASS, 1<<32)
	short := dataObject("a", "", false)
	short.Set(p11.CKA_VALUE_LEN, []byte{1})
	strange := dataObject("a", "", false)
	strange.Set(1<<32, nil)
	var many p11.Attributes
	for i := range 1025 {
		many = append(many, p11.Attribute{Type: p11.AttributeType(0x80001000 + i)})
	}
	before := readFile(t, s.cfg.Dir, dataFile)
	for name, tt := range map[string]struct {
		attrs p11.Attributes
		want  p11.RV
	}{
		"size":   {big, p11.CKR_DEVICE_MEMORY},
		"number": {many, p11.CKR_DEVICE_MEMORY},
		"wide":   {wide, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"short":  {short, p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"type":   {strange, p11.CKR_ATTRIBUTE_TYPE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(t.Context(), tt.attrs)
			wantRV(t, "Create", err, tt.want)
		})
	}
	if o := create(t, s, dataObject("a", "", false)); o.Stored != "00000000" {
		t.Errorf("what could not be stored cost names up to %s", o.Stored)
	}
	if string(before) == string(readFile(t, s.cfg.Dir, dataFile)) {
		t.Error("no name was reserved")
	}
}

// TestNamesSkip has files in the way, and the next name gone back, as after a
// stock process copied an old NVTOK.DAT.
func TestNamesSkip(t *testing.T) {
	cfg := freshConfig(t)
	s := openStore(t, cfg)
	old := readFile(t, cfg.Dir, dataFile)
	var names []string
	for range 9 {
		names = append(names, create(t, s, dataObject("x", "", false)).Stored)
	}
	writeFile(t, []byte("left behind"), cfg.Dir, objectsDir, "90000000")
	symlink(t, "nowhere", cfg.Dir, objectsDir, "A0000000")
	writeFile(t, old, cfg.Dir, dataFile)
	names = append(names, create(t, s, dataObject("x", "", false)).Stored)
	destroyed, _ := s.ByName(ShownName(s.nameKey, "80000000"))
	destroy(t, s, destroyed)
	for range 100 {
		names = append(names, create(t, s, dataObject("x", "", false)).Stored)
	}
	seen := map[string]bool{"90000000": true, "A0000000": true}
	for _, n := range names {
		if seen[n] {
			t.Errorf("%s twice", n)
		}
		seen[n] = true
	}
	if names[8] != "80000000" || names[9] != "B0000000" {
		t.Errorf("%v", names[:12])
	}
}

// TestHostileFiles lists files that are no objects: each is reported, and the
// rest of the token works.
func TestHostileFiles(t *testing.T) {
	cfg := freshConfig(t)
	s := initialised(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	create(t, s, dataObject("good", "public", false))
	create(t, s, dataObject("good", "private", true))
	pub := readFile(t, cfg.Dir, objectsDir, "00000000")
	priv := readFile(t, cfg.Dir, objectsDir, "10000000")
	change := func(b []byte, at int, v ...byte) []byte {
		c := append([]byte(nil), b...)
		copy(c[at:], v)
		return c
	}
	named := func(n string) []byte { return change(pub, 5+8, []byte(n)...) }
	files := map[string][]byte{
		"A0000000": nil,
		"B0000000": []byte("\x05\x00\x00"),
		"C0000000": change(named("C0000000"), 0, 0xff, 0xff, 0xff, 0xff), // longer than it is
		"D0000000": change(named("D0000000"), 4, 2),                      // neither public nor private
		"E0000000": change(named("E0000000"), 4, 1),                      // not encrypted
		"F0000000": pub,                                                  // another's name
		"G0000000": change(named("G0000000"), 5+4, 0xff, 0xff, 0xff, 15), // too many attributes
		"H0000000": change(named("H0000000"), 5+16+8, 0xff, 0xff, 0xff, 0x7f),
		"I0000000": change(named("I0000000"), 5+4, 6),              // bytes are left
		"J0000000": change(priv, len(priv)-1, priv[len(priv)-1]^1), // damaged ciphertext
		"K0000000": priv[:len(priv)-1],                             // cut off
		"L0000000": twice(t),
		"M0000000": make([]byte, 64),
	}
	for n, b := range files {
		writeFile(t, b, cfg.Dir, objectsDir, n)
	}
	// A CKA_PRIVATE that disagrees with the header.
	b := objectFile(t, parseName(t, "N0000000"), dataObject("liar", "", false))
	at := bytes.Index(b, append(binary.NativeEndian.AppendUint32(nil, uint32(p11.CKA_PRIVATE)), 0, 0, 0, 0))
	b[at+12] = p11.CK_TRUE
	files["N0000000"] = b
	writeFile(t, b, cfg.Dir, objectsDir, "N0000000")
	symlink(t, "00000000", cfg.Dir, objectsDir, "O0000000")
	if err := unix.Mkfifo(filepath.Join(cfg.Dir, objectsDir, "P0000000"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(cfg.Dir, objectsDir, "Q0000000"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(mustCreate(t, cfg.Dir, objectsDir, "R0000000"), format.MaxObjectFile+1); err != nil {
		t.Fatal(err)
	}
	files["O0000000"], files["P0000000"], files["Q0000000"], files["R0000000"] = nil, nil, nil, nil

	idx := "S0000000\n../../../x\n\n00000000\n" // S: no file
	for n := range files {
		idx += n + "\n"
	}
	idx += "10000000\n00000000\nT000" // twice, and cut off
	writeFile(t, []byte(idx), cfg.Dir, objectsDir, indexFile)

	check := func(t *testing.T, s *Store) {
		t.Helper()
		if d := cmp.Diff([]string{"good=public", "good=private"}, contents(t, s)); d != "" {
			t.Error(d)
		}
		var got []string
		for _, d := range damaged(s) {
			if _, known := files[d.name.String()]; !known || d.err == nil {
				t.Errorf("damaged %v", d)
			}
			got = append(got, d.name.String())
		}
		if len(got) != len(files) {
			t.Errorf("damaged %v", got)
		}
	}
	t.Run("seen live", func(t *testing.T) {
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, s)
	})
	_ = s.Close()
	s = openStore(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	t.Run("opened", func(t *testing.T) { check(t, s) })
	t.Run("written", func(t *testing.T) {
		o := create(t, s, dataObject("new", "object", false))
		idx := string(readFile(t, cfg.Dir, objectsDir, indexFile))
		if len(idx)%9 != 0 || strings.Contains(idx, "..") || !strings.HasSuffix(idx, "\n"+o.Stored+"\n") || strings.Count(idx, "00000000\n") != 1 || !strings.Contains(idx, "A0000000\n") {
			t.Errorf("index %q", idx)
		}
		destroy(t, s, o)
		check(t, s)
	})
	t.Run("repaired", func(t *testing.T) {
		writeFile(t, named("A0000000"), cfg.Dir, objectsDir, "A0000000")
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o, err := s.ByName(ShownName(s.nameKey, "A0000000")); err != nil || attributesOf(t, o).Label() != "good" {
			t.Errorf("%v", err)
		}
		if len(damaged(s)) != len(files)-1 {
			t.Error("it still counts as damaged")
		}
	})
}

// twice is an object file in which one attribute stands twice.
func twice(t *testing.T) []byte {
	n := parseName(t, "L0000000")
	a := dataObject("l", "", false)
	b := objectFile(t, n, append(a, a[0]))
	return b
}

func mustCreate(t *testing.T, path ...string) string {
	writeFile(t, nil, path...)
	return filepath.Join(path...)
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, filepath.Join(dir, "swtok"))
	lock, err := locks.Open(filepath.Join(dir, "lock", "LCK..swtok"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cfg.Lock = lock
	s := initialised(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 15 {
				o, err := s.Create(t.Context(), dataObject(fmt.Sprintf("g%d", g), fmt.Sprint(i), i%2 == 0))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Update(t.Context(), o.Handle, relabel(fmt.Sprintf("G%d", g))); err != nil {
					t.Error(err)
				}
				if i%3 == 0 {
					if err := s.Destroy(t.Context(), o.Handle, allow); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				if err := s.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := s.Find(t.Context(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte("G1")}}, true); err != nil {
					t.Error(err)
				}
				info(t, s)
				l, err := s.Login(t.Context(), p11.CKU_USER, pin(t, testUser))
				if err != nil {
					t.Error(err)
					return
				}
				_ = l.Valid()
				_ = l.Close()
			}
		})
	}
	wg.Wait()
	if n := len(contents(t, s)); n != 40 {
		t.Errorf("%d objects", n)
	}
	again := openStore(t, cfg)
	login(t, again, p11.CKU_USER, testUser)
	if d := cmp.Diff(contents(t, s), contents(t, again)); d != "" {
		t.Error(d)
	}
}

// TestManyObjects bounds memory for very many objects, and tells the times.
func TestManyObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("writes many files")
	}
	const n = manyObjects
	cfg := freshConfig(t)
	_ = openStore(t, cfg).Close()
	var idx []format.Name
	for i := range n {
		next := nth(i)
		a := dataObject(fmt.Sprintf("object %d", i), "some value of some length", false)
		b := objectFile(t, next, a)
		writeFile(t, b, cfg.Dir, objectsDir, next.String())
		idx = append(idx, next)
	}
	writeFile(t, format.EditIndex(nil, nil, idx...), cfg.Dir, objectsDir, indexFile)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	s := openStore(t, cfg)
	refresh(t, s) // which waits for all of them
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("opened in %v, %d bytes an object", took, each)
	if pub, _ := s.Counts(); pub != n {
		t.Fatalf("%d objects", pub)
	}
	if each > 1536 {
		t.Errorf("%d bytes an object", each)
	}
	start = time.Now()
	o := create(t, s, dataObject("one more", "", false))
	created := time.Since(start)
	start = time.Now()
	destroy(t, s, o)
	t.Logf("created in %v, destroyed in %v", created, time.Since(start))
	start = time.Now()
	if err := s.Refresh(context.Background()); err != nil {
		t.Error(err)
	}
	t.Logf("refreshed in %v", time.Since(start))
}

func BenchmarkRefresh(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		if err := s.Refresh(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateDestroy(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		destroy(b, s, create(b, s, dataObject("a", "b", false)))
	}
}

// TestNamesTellNothing: what shows of the names is no count of what was made between
// two objects, and lasts.
func TestNamesTellNothing(t *testing.T) {
	cfg := config(t, filepath.Join(t.TempDir(), "swtok"))
	s := initialised(t, cfg)
	l := login(t, s, p11.CKU_USER, testUser)
	seen := make(map[string]string)
	for i := range 40 {
		o := create(t, s, dataObject(fmt.Sprint(i), "", i%20 != 0))
		if b, err := hex.DecodeString(o.Name); err != nil || len(b) != 8 || strings.Contains(o.Name, o.Stored) || seen[o.Name] != "" {
			t.Errorf("the name of file %s is %s", o.Stored, o.Name)
		}
		seen[o.Name] = attributesOf(t, o).Label()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	for name, label := range seen {
		if o, err := s.ByName(name); err != nil || attributesOf(t, o).Label() != label {
			t.Errorf("after a restart %s is not %s: %v", name, label, err)
		}
	}
	other := newStore(t)
	if o := create(t, other, dataObject("0", "", false)); seen[o.Name] != "" || ShownName(s.nameKey, o.Stored) == o.Name {
		t.Error("two tokens name alike")
	}
}

// TestDamageIsToldBriefly: the log has some lines of damaged files and their number, not
// a line for each of as many as somebody puts there.
func TestDamageIsToldBriefly(t *testing.T) {
	var log bytes.Buffer
	now := time.Now()
	cfg := freshConfig(t)
	cfg.Log, cfg.Now = slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now }
	s := initialised(t, cfg)
	list := func(files int, text string) {
		t.Helper()
		var idx string
		for n := range files {
			name := fmt.Sprintf("A%07d", n)
			writeFile(t, []byte(text), cfg.Dir, objectsDir, name)
			idx += name + "\n"
		}
		writeFile(t, []byte(idx), cfg.Dir, objectsDir, indexFile)
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	lines := func() int { return bytes.Count(log.Bytes(), []byte("level=WARN")) }
	list(500, "\x05")
	if n := lines(); n < 2 || n > saidLines+1 || !bytes.Contains(log.Bytes(), []byte("files=480")) {
		t.Errorf("500 damaged files make %d lines", n)
	}
	before := lines()
	for n := range 10 {
		list(500, "\x05\x00\x00"[:2+n%2])
	}
	if n := lines() - before; n > 0 {
		t.Errorf("the same files, changed again and again, make %d lines more", n)
	}
	if len(damaged(s)) != 500 {
		t.Errorf("%d of 500 are known", len(damaged(s)))
	}
	now = now.Add(saidTime)
	list(1, "\x05\x00\x00\x00")
	if n := lines() - before; n < 2 {
		t.Errorf("a minute later %d lines say what is new, and what was left out", n)
	}
}
