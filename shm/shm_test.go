package shm

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// dump reads a dump of a segment of the stock programs, as they would have made
// it on a machine of this byte order.
func dump(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		turnIntegers(b)
	}
	return b
}

// turnIntegers turns the byte order of each number in a segment.
func turnIntegers(b []byte) {
	turn := func(at, size int) { slices.Reverse(b[at : at+size]) }
	if len(b) == SlotManagerSize {
		for i := range Slots {
			turn(4*i, 4)
		}
		for p := processTable; p < len(b); p += processSize {
			turn(p+procPID, 4)
			for i := range Slots {
				turn(p+procSessions+4*i, 4)
			}
			turn(p+procTime, 8)
		}
		return
	}
	if len(b) != TokenSize { // of 3.12 and later
		for _, at := range []int{offLength, offPrivateCount312, offPublicCount312} {
			turn(at, 4)
		}
		return
	}
	for _, at := range []int{offReferences, offLength, Private.count(), Public.count()} {
		turn(at, 4)
	}
	for _, l := range []List{Public, Private} {
		for e := l.entries(); e < l.entries()+MaxObjects*entrySize; e += entrySize {
			turn(e+entryLow, 4)
			turn(e+entryHigh, 4)
		}
	}
}

func name(s string) (n [NameSize]byte) {
	copy(n[:], s)
	return n
}

func names(es []Entry) []string {
	out := []string{}
	for _, e := range es {
		out = append(out, string(e.Name[:]))
	}
	return out
}

func TestStockTokenSegment(t *testing.T) {
	tests := []struct {
		file            string
		public, private int
		loadedPrivate   bool
	}{
		{"shm-pristine.bin.gz", 0, 0, false},
		{"shm-idle.bin.gz", 12, 12, true},
		{"shm-live.bin.gz", 12, 12, true},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			b := dump(t, tt.file)
			if len(b) != TokenSize {
				t.Fatalf("dump has %d bytes, want %d", len(b), TokenSize)
			}
			s := &TokenSegment{mem: b}
			if got := s.Count(Public); got != tt.public {
				t.Errorf("public objects = %d, want %d", got, tt.public)
			}
			if got := s.Count(Private); got != tt.private {
				t.Errorf("private objects = %d, want %d", got, tt.private)
			}
			if got := s.Loaded(Private); got != tt.loadedPrivate {
				t.Errorf("private list loaded = %v", got)
			}
			if !s.Loaded(Public) {
				t.Error("public list is not loaded")
			}
			d := s.Data()
			if got := string(bytes.TrimRight(d[32:64], " ")); got != "IBM Corp." {
				t.Errorf("manufacturer in the token data = %q", got)
			}
			// Writing back what was read changes no byte but residue.
			before := bytes.Clone(b)
			for _, l := range []List{Public, Private} {
				s.ZeroTail(l)
				if err := s.SetEntries(l, s.Entries(l)); err != nil {
					t.Fatal(err)
				}
			}
			end := func(l List) int { return l.entries() + s.Count(l)*entrySize }
			if !bytes.Equal(before[:end(Public)], b[:end(Public)]) || !bytes.Equal(before[offPrivate:end(Private)], b[offPrivate:end(Private)]) {
				t.Error("entries changed when they were written back")
			}
		})
	}
}

func TestStockSlotManager(t *testing.T) {
	b := dump(t, "sysv-live.bin.gz")
	if len(b) != SlotManagerSize {
		t.Fatalf("dump has %d bytes, want %d", len(b), SlotManagerSize)
	}
	m := &SlotManager{mem: b}
	ps := m.Processes()
	if len(ps) != 2 {
		t.Fatalf("%d processes registered, want 2", len(ps))
	}
	for _, p := range ps {
		if p.PID <= 0 || p.Registered.Year() < 2020 {
			t.Errorf("process %+v is not plausible", p)
		}
	}
	t.Run("collect", func(t *testing.T) {
		dead := m.Collect(func(pid int32, _ time.Time) bool { return pid == ps[0].PID })
		if len(dead) != 1 || dead[0].PID != ps[1].PID {
			t.Fatalf("collected %+v, want process %d", dead, ps[1].PID)
		}
		m.Collect(func(int32, time.Time) bool { return false })
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Error("with no process left the segment is not all zero")
		}
	})
}

func TestSlotManagerCounters(t *testing.T) {
	m := &SlotManager{mem: make([]byte, SlotManagerSize)}
	now := time.Unix(1_700_000_000, 0)
	for _, pid := range []int32{10, 20} {
		if err := m.Register(pid, now); err != nil {
			t.Fatal(err)
		}
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(m.SetSessions(10, 3, 2))
	step(m.SetSessions(20, 3, 1))
	step(m.SetSessions(20, 1023, 1))
	step(m.SetSessions(10, 3, 1))
	if got := m.Sessions(3); got != 2 {
		t.Errorf("sessions on slot 3 = %d, want 2", got)
	}
	step(m.SetSessions(20, 3, 5))
	if got := m.Sessions(3); got != 6 {
		t.Errorf("sessions on slot 3 after SetSessions = %d, want 6", got)
	}
	m.Unregister(20)
	if got := m.Sessions(3); got != 1 {
		t.Errorf("sessions on slot 3 after Unregister = %d, want 1", got)
	}
	putU32(m.mem, 4*3, 0) // lowered by a stock collection
	step(m.SetSessions(10, 3, 0))
	if got := m.Sessions(3); got != 0 {
		t.Errorf("a counter fell below 0: %d", got)
	}
	for _, slot := range []int{-1, 1024} {
		if m.SetSessions(10, slot, 1) == nil {
			t.Errorf("slot %d was accepted", slot)
		}
	}
	t.Run("register again", func(t *testing.T) {
		step(m.SetSessions(10, 7, 1))
		step(m.Register(10, now.Add(time.Second)))
		ps := m.Processes()
		if len(ps) != 1 || len(ps[0].Sessions) != 0 || ps[0].Registered.Unix() != now.Unix()+1 {
			t.Errorf("processes = %+v, want one fresh entry", ps)
		}
	})
	t.Run("full", func(t *testing.T) {
		for pid := int32(1000); ; pid++ {
			err := m.Register(pid, now)
			if errors.Is(err, ErrTableFull) {
				break
			}
			step(err)
			if pid > 1000+MaxProcesses {
				t.Fatal("more than 1000 processes fit")
			}
		}
		if n := len(m.Processes()); n != MaxProcesses {
			t.Errorf("%d processes, want %d", n, MaxProcesses)
		}
	})
	t.Run("hostile pid", func(t *testing.T) {
		m := &SlotManager{mem: make([]byte, SlotManagerSize)}
		e := m.entry(5)
		e[procInUse] = 0xff
		putU32(e, procPID, 0xffffffff)
		if dead := m.Collect(func(int32, time.Time) bool { return true }); len(dead) != 1 {
			t.Errorf("collected %+v, want the entry of pid -1", dead)
		}
	})
}

func TestTokenSegmentLists(t *testing.T) {
	s := &TokenSegment{mem: make([]byte, TokenSize)}
	for _, n := range []string{"00000000", "10000000", "20000000"} {
		if err := s.Append(Public, Entry{Name: name(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Append(Private, Entry{Name: name("30000000")}); err != nil {
		t.Fatal(err)
	}
	e, ok := s.Touch(Public, name("10000000"))
	if !ok || e.Low != 1 || e.High != 1 {
		t.Errorf("Touch = %+v, %v; want 1, 1", e, ok)
	}
	if _, ok := s.Touch(Public, name("30000000")); ok {
		t.Error("Touch found a private object in the public list")
	}
	if !s.Remove(Public, name("00000000")) || s.Remove(Public, name("00000000")) {
		t.Error("Remove does not report what it removed")
	}
	if diff := cmp.Diff([]string{"10000000", "20000000"}, names(s.Entries(Public))); diff != "" {
		t.Error(diff)
	}
	if tail := s.mem[offPublic+2*entrySize : offPrivate]; !bytes.Equal(tail, make([]byte, len(tail))) {
		t.Error("there is residue behind the public list")
	}
	t.Run("counts that lie", func(t *testing.T) {
		putU32(s.mem, offPublicCount, 0xffffffff)
		if got := s.Count(Public); got != MaxObjects {
			t.Errorf("Count = %d, want %d", got, MaxObjects)
		}
		if got := names(s.Entries(Private)); len(got) != 1 {
			t.Errorf("private list = %v", got)
		}
		s.ZeroTail(Public)
		if s.Append(Public, Entry{}) == nil {
			t.Error("a full list took another entry")
		}
		if s.SetEntries(Public, make([]Entry, MaxObjects+1)) == nil {
			t.Error("a list of 2049 was accepted")
		}
	})
	t.Run("references", func(t *testing.T) {
		neg := int32(-7)
		putU32(s.mem, offReferences, uint32(neg))
		s.Detach()
		if got := s.References(); got != 0 {
			t.Errorf("references = %d, want 0", got)
		}
		s.Attach()
		if got := s.References(); got != 1 {
			t.Errorf("references = %d, want 1", got)
		}
	})
}

func TestOpenToken(t *testing.T) {
	dir := t.TempDir()
	n, err := TokenName("/var/lib/opencryptoki/swtok/")
	if err != nil || n != "/var.lib.opencryptoki.swtok" {
		t.Fatalf("TokenName = %q, %v", n, err)
	}
	open := func(t *testing.T) (*TokenSegment, bool, bool) {
		t.Helper()
		s, fresh, repaired, err := OpenToken(dir, n, -1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s, fresh, repaired
	}
	a, fresh, _ := open(t)
	if !fresh {
		t.Error("the first opening found a segment")
	}
	want := dump(t, "shm-pristine.bin.gz")[offName:offData]
	if !bytes.Equal(a.mem[offName:offData], want) {
		t.Error("the header differs from the stock one")
	}
	if err := os.Chmod(a.Path(), 0o666); err != nil {
		t.Fatal(err)
	}
	a.SetLoaded(Public, true)
	b, fresh, repaired := open(t)
	if fresh || !repaired || !b.Loaded(Public) {
		t.Errorf("second opening: fresh %v, repaired %v, loaded %v", fresh, repaired, b.Loaded(Public))
	}
	if fi, err := os.Stat(a.Path()); err != nil || fi.Mode().Perm() != Mode {
		t.Errorf("mode = %v, %v", fi.Mode(), err)
	}
	t.Run("refused", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "short"), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(a.Path(), filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"/short", "/link", "/folder", "", "/", "x", "/../x", "/a/b"} {
			if s, _, _, err := OpenToken(dir, bad, -1); err == nil {
				t.Errorf("%q was opened", bad)
				_ = s.Close()
			}
		}
		if fi, err := os.Stat(filepath.Join(dir, "short")); err != nil || fi.Size() != 100 {
			t.Errorf("a refused segment was changed: %v, %v", fi, err)
		}
	})
}

// TestSlotManagerSystemV makes a real segment under the key of a file of its own.
func TestSlotManagerSystemV(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pkcsslotd")
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	key, err := Key(file)
	if err != nil {
		t.Fatal(err)
	}
	never := func([]Process) bool { return false }
	m, kept, err := CreateSlotManager(key, -1, never)
	if err != nil || kept {
		t.Fatalf("create: kept %v, %v", kept, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Remove(), m.Detach()); err != nil {
			t.Error(err)
		}
	})
	if err := m.Register(int32(os.Getpid()), time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := AttachSlotManager(key)
	if err != nil {
		t.Fatal(err)
	}
	if ps := c.Processes(); len(ps) != 1 || ps[0].PID != int32(os.Getpid()) {
		t.Errorf("the client sees %+v", ps)
	}
	if n, err := c.Attached(); err != nil || n != 2 {
		t.Errorf("attached = %d, %v; want 2", n, err)
	}
	if err := c.Detach(); err != nil {
		t.Error(err)
	}
	again, kept, err := CreateSlotManager(key, -1, func(ps []Process) bool { return len(ps) == 1 })
	if err != nil || !kept || again.ID() != m.ID() {
		t.Errorf("create beside live clients: kept %v, %v", kept, err)
	}
	if err := again.Detach(); err != nil {
		t.Error(err)
	}
}
