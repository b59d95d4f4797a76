package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens/store/format"
	"p11fs/tokens/tokentest/cuts"
)

// A killable kernel carries out some steps and then none: the process was killed. A
// write that is the last step arrives by half.
type killable struct {
	linux
	left int // steps; negative: immortal
	n    int // steps taken
	// silent says that it was killed at a change of the segment, which cannot
	// fail: what the change returned nobody heard.
	silent bool
}

func (m *killable) step() (alive, last bool) {
	m.n++
	if m.left < 0 {
		return true, false
	}
	if m.left == 0 {
		return false, false
	}
	m.left--
	return true, m.left == 0
}

func (m *killable) Create(dir int, name string, mode uint32, group int) (int, error) {
	if alive, _ := m.step(); !alive {
		return -1, cuts.ErrKilled
	}
	return m.linux.Create(dir, name, mode, group)
}

func (m *killable) Extend(dir int, name string) (int, error) {
	if alive, _ := m.step(); !alive {
		return -1, cuts.ErrKilled
	}
	return m.linux.Extend(dir, name)
}

func (m *killable) Write(fd int, b []byte) (int, error) {
	alive, last := m.step()
	if !alive {
		return 0, cuts.ErrKilled
	}
	if last {
		b = b[:len(b)/2]
	}
	return m.linux.Write(fd, b)
}

func (m *killable) Open(dir int, name string) (int, error) {
	if alive, _ := m.step(); !alive {
		return -1, cuts.ErrKilled
	}
	return m.linux.Open(dir, name)
}

func (m *killable) WriteAt(fd int, b []byte, at int64) (int, error) {
	alive, last := m.step()
	if !alive {
		return 0, cuts.ErrKilled
	}
	if last {
		b = b[:len(b)/2]
	}
	return m.linux.WriteAt(fd, b, at)
}

func (m *killable) Sync(fd int) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return nil // nobody cuts the power here
}

func (m *killable) SyncData(fd int) error { return m.Sync(fd) }

func (m *killable) Rename(dir int, from, to string) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return m.linux.Rename(dir, from, to)
}

func (m *killable) Unlink(dir int, name string) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return m.linux.Unlink(dir, name)
}

func (m *killable) Mkdir(dir int, name string, mode uint32, group int) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return m.linux.Mkdir(dir, name, mode, group)
}

// look opens the token in dir as a new process would and says what is there. Each
// PIN that works must open its master key, and no object may be damaged.
func look(t *testing.T, dir string, pins ...string) cuts.State {
	t.Helper()
	s, err := Open(t.Context(), unsynced(t, dir))
	if err != nil {
		t.Fatalf("the store does not open: %v", err)
	}
	defer s.Close()
	// A copy to try PINs on: three wrong ones lock it.
	try, err := Open(t.Context(), unsynced(t, copyDir(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	defer try.Close()
	st := cuts.Look(t, s, try, pins...)
	if d := damaged(s); len(d) > 0 {
		t.Errorf("damaged: %v", d)
	}
	return st
}

// unsynced opens a directory without waiting for the disk, nor for the end of a
// watch, which the kernel takes its time for.
func unsynced(t *testing.T, dir string) Config {
	cfg := config(t, dir)
	cfg.kernel = &killable{left: -1}
	cfg.noWatch = true
	shareIfDir(&cfg)
	return cfg
}

func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(segmentDir(dir)); err == nil {
		if err := os.CopyFS(segmentDir(to), os.DirFS(segmentDir(dir))); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

const otherPIN = cuts.OtherPIN

func labelled(t *testing.T, s *Store, label string) p11.ObjectHandle {
	t.Helper()
	found, err := s.Find(t.Context(), p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}, true)
	if err != nil || len(found) != 1 {
		t.Fatalf("%q: %v %v", label, found, err)
	}
	return found[0].Handle
}

func crashChanges(t *testing.T) []cuts.Change {
	return cuts.Changes(t, cuts.PINs{SO: testSO, User: testUser})
}

func crashToken(t *testing.T, shared bool) (dir string) {
	t.Helper()
	cfg := freshConfig(t)
	if shared {
		if err := os.Mkdir(segmentDir(cfg.Dir), 0o700); err != nil {
			t.Fatal(err)
		}
		shareIfDir(&cfg)
	}
	s := initialised(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	cuts.Fill(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg.Dir
}

// TestKilled kills the process at every step of every change.
func TestKilled(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) { testKilled(t, false) })
	t.Run("shared", func(t *testing.T) { testKilled(t, true) })
}

func testKilled(t *testing.T, shared bool) {
	seed := crashToken(t, shared)
	before := look(t, seed, testSO, testUser, otherPIN)
	for _, c := range crashChanges(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			allowed := append([]cuts.State{before}, c.After(before)...)
			var seen []string
			for steps := 0; ; steps++ {
				if steps > 100 {
					t.Fatal("no end")
				}
				k := &killable{left: -1}
				cfg := config(t, copyDir(t, seed))
				cfg.kernel = k
				shareIfDir(&cfg)
				cfg.segment = k.segment
				s, err := Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				l := login(t, s, p11.CKU_USER, testUser)
				k.left = steps
				err = c.Do(t.Context(), s)
				done := k.left != 0
				if done && err != nil {
					t.Fatal(err)
				}
				if !done && steps > 0 && err == nil && !errors.Is(err, cuts.ErrKilled) && k.n == 0 {
					t.Fatal("nothing was killed")
				}
				k.left = 0
				_ = l.Close()
				_ = s.Close()
				if shared {
					// The machine restarts: the segment is gone.
					reboot := copyDir(t, cfg.Dir)
					if err := os.RemoveAll(segmentDir(reboot)); err != nil {
						t.Fatal(err)
					}
					got := look(t, reboot, testSO, testUser, otherPIN)
					if !slices.ContainsFunc(allowed, func(a cuts.State) bool { return a.String() == got.String() }) {
						t.Errorf("killed after %d steps, and restarted: %v", steps, got)
					}
				}
				got := look(t, cfg.Dir, testSO, testUser, otherPIN)
				i := slices.IndexFunc(allowed, func(a cuts.State) bool { return a.String() == got.String() })
				if i < 0 {
					t.Errorf("killed after %d steps: %v", steps, got)
				}
				// What was reported done is done.
				if err == nil && !k.silent && got.String() != allowed[len(allowed)-1].String() {
					t.Errorf("done after %d steps, but %v", steps, got)
				}
				if len(seen) == 0 || seen[len(seen)-1] != got.String() {
					seen = append(seen, got.String())
				}
				checkGoesOn(t, cfg.Dir, got)
				if done {
					break
				}
			}
			if want := 1 + len(slices.CompactFunc(allowed, func(a, b cuts.State) bool { return a.String() == b.String() })) - 1; len(seen) != want {
				t.Errorf("%d states were seen, %d are possible:\n%s", len(seen), want, strings.Join(seen, "\n"))
			}
		})
	}
}

// checkGoesOn uses a token after a crash: a new object has a name of its own and
// nothing else changes.
func checkGoesOn(t *testing.T, dir string, st cuts.State) {
	t.Helper()
	s, err := Open(t.Context(), unsynced(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if st.User != "" {
		defer login(t, s, p11.CKU_USER, st.User).Close()
	}
	files := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(dir, objectsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
		files[e.Name()] = true
	}
	for _, f := range leftFiles(t, s) {
		t.Errorf("the file of %s is left, and it is no object", f)
	}
	for range 3 {
		o := create(t, s, dataObject("after", "crash", false))
		if files[o.Stored] {
			t.Errorf("%s was used twice", o.Stored)
		}
		files[o.Stored] = true
	}
	if n := len(contents(t, s)); n != len(st.Objects)+3 {
		t.Errorf("%d objects, there were %d", n, len(st.Objects))
	}
	if s.seg == nil {
		return
	}
	// Once stock had time to end what looks like its work, it sees the same.
	now := time.Now().Add(grace)
	s.cfg.Now = func() time.Time { return now }
	refresh(t, s)
	if n := s.seg.Count(shm.Public) + s.seg.Count(shm.Private); st.User != "" && n != len(st.Objects)+3 {
		t.Errorf("%d entries, there were %d objects", n, len(st.Objects))
	}
}

// leftFiles returns the names of object files that are no objects.
func leftFiles(t *testing.T, s *Store) (left []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, objectsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n, ok := format.ParseName(e.Name()); ok && s.files[n] == nil {
			left = append(left, e.Name())
		}
	}
	return left
}

// TestKilledFormat kills the process while it makes a new token.
func TestKilledFormat(t *testing.T) {
	for steps := 0; ; steps++ {
		cfg := freshConfig(t)
		k := &killable{left: steps}
		cfg.kernel = k
		s, err := Open(t.Context(), cfg)
		if err == nil {
			_ = s.Close()
		}
		cfg.kernel = nil
		s, oerr := Open(t.Context(), cfg)
		if oerr != nil {
			t.Fatalf("after %d steps: %v", steps, oerr)
		}
		login(t, s, p11.CKU_SO, firstSOPIN)
		_ = s.Close()
		if err == nil {
			if steps < 8 {
				t.Errorf("done after %d steps", steps)
			}
			return
		}
	}
}

// TestFailing has one step of a change fail while the process lives on: the
// change reports it, and memory and directory agree afterwards.
func TestFailing(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) { testFailing(t, false) })
	t.Run("shared", func(t *testing.T) { testFailing(t, true) })
}

func testFailing(t *testing.T, shared bool) {
	seed := crashToken(t, shared)
	before := look(t, seed, testSO, testUser, otherPIN)
	for _, c := range crashChanges(t) {
		if c.Name == "InitToken" {
			continue // not one step: see there
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			for fail := 1; ; fail++ {
				cfg := config(t, copyDir(t, seed))
				k := &failOnce{}
				cfg.kernel = k
				shareIfDir(&cfg)
				s := openStore(t, cfg)
				l := login(t, s, p11.CKU_USER, testUser)
				k.at = k.n + fail
				err := c.Do(t.Context(), s)
				if k.n < k.at {
					return // every step had its turn
				}
				refresh(t, s)
				objects := contents(t, s)
				slices.Sort(objects)
				valid := l.Valid() == nil
				_ = l.Close()
				got := look(t, cfg.Dir, testSO, testUser, otherPIN)
				if valid && !slices.Equal(objects, got.Objects) {
					t.Errorf("step %d: memory has %v, the directory %v", fail, objects, got.Objects)
				}
				if got.SO == "" || got.User == "" {
					t.Errorf("step %d: %v (%v)", fail, got, err)
				}
				if err != nil && got.String() != before.String() && got.String() != c.After(before)[0].String() {
					t.Errorf("step %d failed with %v and left %v", fail, err, got)
				}
				_ = s.Close()
			}
		})
	}
}

// A failOnce is a kernel whose one step fails for want of room.
type failOnce struct {
	linux
	n, at int
}

func (h *failOnce) fail() error {
	h.n++
	if h.n == h.at {
		return unix.ENOSPC
	}
	return nil
}

func (h *failOnce) Create(dir int, name string, mode uint32, group int) (int, error) {
	if err := h.fail(); err != nil {
		return -1, err
	}
	return h.linux.Create(dir, name, mode, group)
}

func (h *failOnce) Write(fd int, b []byte) (int, error) {
	if err := h.fail(); err != nil {
		n, _ := h.linux.Write(fd, b[:len(b)/2])
		_ = n
		return 0, err
	}
	return h.linux.Write(fd, b)
}

func (h *failOnce) Open(dir int, name string) (int, error) {
	if err := h.fail(); err != nil {
		return -1, err
	}
	return h.linux.Open(dir, name)
}

func (h *failOnce) WriteAt(fd int, b []byte, at int64) (int, error) {
	if err := h.fail(); err != nil {
		return 0, err
	}
	return h.linux.WriteAt(fd, b, at)
}

func (h *failOnce) Unlink(dir int, name string) error {
	if err := h.fail(); err != nil {
		return err
	}
	return h.linux.Unlink(dir, name)
}

func (h *failOnce) Sync(fd int) error {
	if err := h.fail(); err != nil {
		return err
	}
	return nil
}

func (h *failOnce) SyncData(fd int) error { return h.Sync(fd) }

func (h *failOnce) Rename(dir int, from, to string) error {
	if err := h.fail(); err != nil {
		return err
	}
	return h.linux.Rename(dir, from, to)
}

func (h *failOnce) Extend(dir int, name string) (int, error) {
	if err := h.fail(); err != nil {
		return -1, err
	}
	return h.linux.Extend(dir, name)
}
