package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// labels are the labels of the objects that are found, each once.
func labels(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	found, err := s.Find(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, o := range found {
		all[labelOf(t, o)] = true
	}
	return all
}

// checkRoom checks that what is counted is what is there.
func checkRoom(t *testing.T, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes, large int64
	for _, f := range s.files {
		sizes += f.size
		large += ifLarge(f.size)
	}
	if a := s.ample; sizes != a.sizes || large != a.large || a.sizes+int64(len(s.files))*nameSize > a.room || a.large > a.room/largeShare {
		t.Errorf("%+v, of files that have %d and %d", s.ample, sizes, large)
	}
}

// withoutRoomTold is how many objects the store tells to be without room.
func withoutRoomTold(t *testing.T, s *Store) (n int) {
	t.Helper()
	for _, d := range s.Damaged() {
		if d.File == objectsDir {
			if n != 0 {
				t.Errorf("it is told twice: %v", s.Damaged())
			}
			_, _ = fmt.Sscan(d.Why, &n)
		}
	}
	return n
}

// TestRoom: objects that have no room are not loaded, told once, and stay as they are; the
// others serve, and those without room come when there is some. Private ones count
// before the login that opens them.
func TestRoom(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(map[bool]string{true: "shared", false: "alone"}[shared], func(t *testing.T) {
			bothFormats(t, func(t *testing.T, cfg Config) { testRoom(t, cfg, shared) })
		})
	}
}

// fillBoth makes a token with so many public objects, and as many private ones.
func fillBoth(t *testing.T, cfg Config, each, value int) {
	t.Helper()
	s := initialised(t, cfg)
	user := login(t, s, p11.CKU_USER, testUser)
	for i := range each {
		for kind, private := range map[string]bool{"public": false, "private": true} {
			create(t, s, dataObject(fmt.Sprint(kind, i), strings.Repeat("x", value), private))
		}
	}
	_ = user.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// grow has an object's file be longer.
func grow(t *testing.T, cfg Config, o *tokens.Object, more int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(cfg.Dir, objectsDir, o.Stored), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, more)); err != nil {
		t.Fatal(err)
	}
}

func testRoom(t *testing.T, cfg Config, shared bool) {
	if shared {
		cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	}
	const each, value = 8, 4000
	fillBoth(t, cfg, each, value)
	index := readFile(t, cfg.Dir, objectsDir, indexFile)

	var log bytes.Buffer
	small := cfg
	const has = each // of 2*each
	small.Room, small.Log = has*(value+300)+2*each*nameSize, slog.New(slog.NewTextHandler(&log, nil))
	s := openStore(t, small)
	user := login(t, s, p11.CKU_USER, testUser)
	defer user.Close()
	checkRoom(t, s)
	if got := labels(t, s); len(got) != has {
		t.Errorf("objects %v", got)
	}
	if n := withoutRoomTold(t, s); n != 2*each-has || strings.Count(log.String(), "no room") != 1 {
		t.Errorf("%d objects are told, and the log is %s", n, log.String())
	}
	if _, err := s.Create(t.Context(), dataObject("more", strings.Repeat("x", value), false)); p11.RVOf(err) != p11.CKR_DEVICE_MEMORY {
		t.Errorf("one more: %v", err)
	}
	var one *tokens.Object
	for label := range labels(t, s) {
		found, err := s.Find(t.Context(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		one = found[0]
	}
	larger := func(attrs p11.Attributes) (p11.Attributes, error) {
		attrs = attrs.Clone()
		attrs.Set(p11.CKA_VALUE, make([]byte, 2*value))
		return attrs, nil
	}
	if _, err := s.Update(t.Context(), one.Handle, larger); p11.RVOf(err) != p11.CKR_DEVICE_MEMORY {
		t.Errorf("a larger one: %v", err)
	}
	if _, err := s.Update(t.Context(), one.Handle, relabel("one")); err != nil {
		t.Errorf("one as large: %v", err)
	}
	// A file that grows has no room; its object serves on, as others do.
	grow(t, cfg, one, 4*value)
	refresh(t, s)
	if got := labels(t, s); len(got) != has || !got["one"] {
		t.Errorf("after a file has grown: %v", got)
	}
	checkRoom(t, s)
	// Room that comes is used.
	destroy(t, s, one)
	refresh(t, s)
	checkRoom(t, s)
	if got := labels(t, s); len(got) != has || got["one"] {
		t.Errorf("after one was destroyed: %v", got)
	}
	if err := s.InitToken(t.Context(), pin(t, "wrong"), "x"); err == nil {
		t.Error("a wrong PIN is right")
	}
	_ = user.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Nothing is lost but what was destroyed.
	if after := readFile(t, cfg.Dir, objectsDir, indexFile); bytes.Count(after, []byte("\n")) > bytes.Count(index, []byte("\n")) {
		t.Errorf("%q has more lines than %q", after, index)
	}
	s = openStore(t, cfg)
	defer login(t, s, p11.CKU_USER, testUser).Close()
	if got := labels(t, s); len(got) != 2*each-1 {
		t.Errorf("with more room there are %v", got)
	}
}

// TestRoomForLarge: large files have a part of the room only.
func TestRoomForLarge(t *testing.T) {
	t.Parallel()
	bothFormats(t, func(t *testing.T, cfg Config) {
		s := openStore(t, cfg)
		for i := range 6 {
			create(t, s, dataObject(fmt.Sprint("large", i), strings.Repeat("x", 100<<10), false))
		}
		for i := range 4 {
			create(t, s, dataObject(fmt.Sprint("small", i), "x", false))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Room = largeShare * 220 << 10
		s = openStore(t, cfg)
		checkRoom(t, s)
		got := labels(t, s)
		if len(got) != 2+4 || withoutRoomTold(t, s) != 4 {
			t.Errorf("objects %v; %v", got, s.Damaged())
		}
		if _, err := s.Create(t.Context(), dataObject("large", strings.Repeat("x", 100<<10), false)); p11.RVOf(err) != p11.CKR_DEVICE_MEMORY {
			t.Errorf("one more: %v", err)
		}
		create(t, s, dataObject("small", "x", false))
	})
}

// TestRoomForNames: names of an index that has more than there is room for are not
// remembered, and their lines stay. Those that no file has take no place.
func TestRoomForNames(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		for _, files := range []bool{false, true} {
			t.Run(fmt.Sprintf("shared=%v,files=%v", shared, files), func(t *testing.T) {
				t.Parallel()
				testRoomForNames(t, shared, files)
			})
		}
	}
}

func testRoomForNames(t *testing.T, shared, files bool) {
	cfg := freshConfig(t)
	if shared {
		cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
	}
	s := openStore(t, cfg)
	create(t, s, dataObject("first", "x", false))
	last := create(t, s, dataObject("last", "x", false))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var lines []byte
	const planted, room = 5000, 1000
	lines = append(lines, nth(0).String()+"\n"...)
	for i := range planted {
		lines = append(lines, nth(100+i).String()+"\n"...)
		if files {
			writeFile(t, []byte("bad"), cfg.Dir, objectsDir, nth(100+i).String())
		}
	}
	lines = append(lines, last.Stored+"\n"...)
	writeFile(t, lines, cfg.Dir, objectsDir, indexFile)
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(cfg.Dir, from), filepath.Join(cfg.Dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(objectsDir, nth(0).String())
	if !files {
		move(first, "aside")
	}
	if shared {
		cfg.Shared.Dir = t.TempDir() // as after a restart of the machine
	}
	cfg.Room = room * nameSize
	s = openStore(t, cfg)
	refresh(t, s)
	if n := len(s.files); n > room {
		t.Errorf("%d names are remembered", n)
	}
	checkRoom(t, s)
	if got := labels(t, s); got["first"] != files || got["last"] == files {
		t.Errorf("objects %v", got)
	}
	if n := withoutRoomTold(t, s); (n >= planted-room) != files {
		t.Errorf("%d are told", n)
	}
	if !files {
		move("aside", first)
		refresh(t, s)
		if got := labels(t, s); !got["first"] || !got["last"] {
			t.Errorf("after the file of a line has come: %v", got)
		}
		return
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Room = 0
	s = openStore(t, cfg)
	refresh(t, s)
	if got := labels(t, s); !got["first"] || !got["last"] {
		t.Errorf("with more room there are %v", got)
	}
}

// TestManyDamaged: what is told of damaged files has a bound.
func TestManyDamaged(t *testing.T) {
	t.Parallel()
	cfg := freshConfig(t)
	cfg.Shared = nil
	if err := openStore(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	const planted = 3 * maxTold
	var lines []byte
	for i := range planted {
		n := nth(i)
		if i%3 > 0 { // others have no line
			lines = append(lines, n.String()+"\n"...)
		}
		writeFile(t, []byte("bad"), cfg.Dir, objectsDir, n.String())
	}
	writeFile(t, lines, cfg.Dir, objectsDir, indexFile)
	s := openStore(t, cfg)
	if n := len(s.Damaged()); n < maxTold || n > 2*maxTold+2 {
		t.Errorf("%d files are told", n)
	}
	if !strings.Contains(fmt.Sprint(s.Damaged()), fmt.Sprint(planted*2/3-maxTold, " object files more")) {
		t.Error("how many more there are is not told")
	}
}
