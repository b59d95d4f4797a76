package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens/store/storetest"
)

func fileLock(t testing.TB, path string) *locks.Lock {
	t.Helper()
	l, err := locks.Open(path, locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A way is how two processes hear of one another's changes.
type way struct{ noWatch, shared bool }

func ways() []way {
	if os.Getenv(formatEnv) != "" { // which is not shared
		return []way{{}, {noWatch: true}}
	}
	return []way{{}, {noWatch: true}, {shared: true}, {noWatch: true, shared: true}}
}

// pair opens one directory twice, as two processes would: each with its own
// description of the lock file, and its own mapping of the segment.
func pair(t *testing.T, w way) (a, b *Store) {
	t.Helper()
	dir := t.TempDir()
	open := func() *Store {
		cfg := config(t, filepath.Join(dir, "swtok"))
		cfg.Lock = fileLock(t, filepath.Join(dir, "LCK..swtok"))
		cfg.noWatch = w.noWatch
		if w.shared {
			cfg.Shared = &Shared{Dir: dir, Name: "/segment"}
		}
		if _, err := os.Stat(cfg.Dir); err == nil {
			return openStore(t, cfg)
		}
		return initialised(t, cfg)
	}
	return open(), open()
}

func refresh(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantContents(t testing.TB, what string, s *Store, want ...string) {
	t.Helper()
	refresh(t, s)
	if d := cmp.Diff(want, contents(t, s)); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

// alternate changes one object, the handles of which are inA and inB, through both
// stores in turn.
func alternate(t *testing.T, a, b *Store, inA, inB p11.ObjectHandle) {
	t.Helper()
	for i := range 5 {
		if _, err := a.Update(t.Context(), inA, relabel(fmt.Sprintf("A%d", i))); err != nil {
			t.Fatal(err)
		}
		wantContents(t, "changed by a", b, fmt.Sprintf("A%d=1", i), "priv=2", "priv=3")
		if _, err := b.Update(t.Context(), inB, relabel(fmt.Sprintf("B%d", i))); err != nil {
			t.Fatal(err)
		}
		wantContents(t, "changed by b", a, fmt.Sprintf("B%d=1", i), "priv=2", "priv=3")
	}
	// Without a Refresh in between: each starts from the newest.
	grow := func(c string) func(p11.Attributes) (p11.Attributes, error) {
		return func(x p11.Attributes) (p11.Attributes, error) {
			v, _ := x.Get(p11.CKA_VALUE)
			return x.With(p11.CKA_VALUE, append(bytes.Clone(v), c...)), nil
		}
	}
	for i := range 4 {
		s, h := a, inA
		if i%2 == 1 {
			s, h = b, inB
		}
		if _, err := s.Update(t.Context(), h, grow("abcd"[i:i+1])); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoProcesses changes a token through one store and looks through another.
func TestTwoProcesses(t *testing.T) {
	for _, w := range ways() {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			a, b := pair(t, w)
			ctx := t.Context()
			o := create(t, a, dataObject("pub", "1", false))
			wantContents(t, "created", b, "pub=1")
			la := login(t, a, p11.CKU_USER, testUser)
			create(t, a, dataObject("priv", "2", true))
			wantContents(t, "private, without login", b, "pub=1")
			lb := login(t, b, p11.CKU_USER, testUser)
			wantContents(t, "private, with login", b, "pub=1", "priv=2")
			create(t, a, dataObject("priv", "3", true))
			wantContents(t, "private, logged in", b, "pub=1", "priv=2", "priv=3")

			inB, err := b.ByName(ShownName(b.nameKey, o.Stored))
			if err != nil {
				t.Fatal(err)
			}
			alternate(t, a, b, o.Handle, inB.Handle)
			st, err := os.Stat(filepath.Join(a.cfg.Dir, objectsDir, o.Stored))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []*Store{a, b} {
				refresh(t, s)
				if now, err := s.ByName(ShownName(s.nameKey, o.Stored)); err != nil || now.Changed.Unix() != st.ModTime().Unix() { // qemu's stat knows seconds only
					t.Errorf("the object was changed at %v (%v), its file at %v", now.Changed, err, st.ModTime())
				}
			}
			wantContents(t, "grown", a, "B4=1abcd", "priv=2", "priv=3")
			if err := b.Destroy(ctx, inB.Handle, allow); err != nil {
				t.Fatal(err)
			}
			wantRV(t, "destroyed twice", a.Destroy(ctx, o.Handle, allow), p11.CKR_OBJECT_HANDLE_INVALID)
			wantContents(t, "destroyed", a, "priv=2", "priv=3")
			names := map[string]bool{}
			for i := range 20 {
				n := create(t, []*Store{a, b}[i%2], dataObject("x", "", false)).Stored
				if names[n] {
					t.Errorf("both gave out %s", n)
				}
				names[n] = true
			}

			// PINs
			if err := b.SetPIN(ctx, p11.CKU_USER, pin(t, testUser), pin(t, "97531")); err != nil {
				t.Fatal(err)
			}
			wantRV(t, "old PIN", tryLogin(t, a, p11.CKU_USER, testUser), p11.CKR_PIN_INCORRECT)
			wantRV(t, "new PIN", tryLogin(t, a, p11.CKU_USER, "97531"), p11.CKR_OK)
			refresh(t, a)
			wantRV(t, "login after a change of PIN", la.Valid(), p11.CKR_OK)
			for range 3 {
				wantRV(t, "wrong", tryLogin(t, b, p11.CKU_USER, "1111"), p11.CKR_PIN_INCORRECT)
			}
			wantRV(t, "locked", tryLogin(t, a, p11.CKU_USER, "97531"), p11.CKR_PIN_LOCKED)
			refresh(t, a)
			wantRV(t, "login after lock-out", la.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
			wantRV(t, "login after lock-out", lb.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
			if _, priv := a.Counts(); priv != 0 {
				t.Error("private objects after lock-out")
			}

			// Initialisation
			so := login(t, a, p11.CKU_SO, testSO)
			if err := b.InitToken(ctx, pin(t, testSO), "other"); err != nil {
				t.Fatal(err)
			}
			refresh(t, a)
			wantRV(t, "SO login after InitToken", so.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
			if i := info(t, a); i.Label != "other" {
				t.Errorf("label %q", i.Label)
			}
			wantContents(t, "after InitToken", a)
		})
	}
}

// TestInitTokenUnseen initialises the token and sets the old PINs again before
// the other process looks: its logins hold another master key.
func TestInitTokenUnseen(t *testing.T) {
	a, b := pair(t, way{})
	l := login(t, a, p11.CKU_USER, testUser)
	if err := b.InitToken(t.Context(), pin(t, testSO), "test token"); err != nil {
		t.Fatal(err)
	}
	so := login(t, b, p11.CKU_SO, testSO)
	if err := b.InitPIN(t.Context(), so, pin(t, testUser)); err != nil {
		t.Fatal(err)
	}
	_, err := a.Create(t.Context(), dataObject("a", "b", true))
	wantRV(t, "Create under the old key", err, p11.CKR_USER_NOT_LOGGED_IN)
	wantRV(t, "Valid", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	login(t, a, p11.CKU_USER, testUser)
	create(t, a, dataObject("a", "b", true))
	login(t, b, p11.CKU_USER, testUser)
	wantContents(t, "under the new key", b, "a=b")
}

// stockWrite rewrites a file as stock does: truncated in place, without the lock.
func stockWrite(t *testing.T, b []byte, path ...string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(path...), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestStockModifies(t *testing.T) {
	cfg := freshConfig(t)
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	s := initialised(t, cfg)
	login(t, s, p11.CKU_USER, testUser)
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("private=%v", private), func(t *testing.T) {
			o := create(t, s, dataObject("old", "1", private))
			n := parseName(t, o.Stored)
			b, err := s.seal(n, dataObject("new", "2", private), nil)
			if err != nil {
				t.Fatal(err)
			}
			stockWrite(t, b[:len(b)/2], cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "half written", s, "old=1")
			stockWrite(t, nil, cfg.Dir, objectsDir, o.Stored)
			now = now.Add(rereadTime / 2)
			wantContents(t, "empty", s, "old=1")
			stockWrite(t, b, cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "written", s, "new=2")
			if again, err := s.ByHandle(o.Handle); err != nil || again.Stored != o.Stored {
				t.Errorf("the handle changed: %v", err)
			}
			stockWrite(t, b[:len(b)-1], cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "damaged", s, "new=2")
			now = now.Add(2 * rereadTime)
			wantContents(t, "damaged for long", s)
			if len(damaged(s)) != 1 {
				t.Errorf("%v", damaged(s))
			}
			stockWrite(t, b, cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "good again", s, "new=2")
			remove(t, cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "file removed", s)
			writeFile(t, b, cfg.Dir, objectsDir, o.Stored)
			wantContents(t, "file back", s, "new=2")
			again, err := s.ByName(o.Name)
			if err != nil {
				t.Fatal(err)
			}
			destroy(t, s, again)
		})
	}
	if len(damaged(s)) != 0 {
		t.Errorf("%v", damaged(s))
	}
}

// TestStockDeletes replays stock's C_DestroyObject, which holds no lock.
func TestStockDeletes(t *testing.T) {
	s := newStore(t)
	a, b := create(t, s, dataObject("a", "", false)), create(t, s, dataObject("b", "", false))
	stockWrite(t, []byte(b.Stored+"\n"), s.cfg.Dir, objectsDir, indexFile)
	wantContents(t, "index rewritten", s, "b=")
	remove(t, s.cfg.Dir, objectsDir, a.Stored)
	wantContents(t, "file removed", s, "b=")
	_, err := a.Acquire()
	wantRV(t, "the object", err, p11.CKR_OBJECT_HANDLE_INVALID)
	stockWrite(t, nil, s.cfg.Dir, objectsDir, indexFile)
	remove(t, s.cfg.Dir, objectsDir, b.Stored)
	wantContents(t, "all removed", s)
	if n := create(t, s, dataObject("c", "", false)).Stored; n == a.Stored || n == b.Stored {
		t.Errorf("%s is used again", n)
	}
}

// TestStockTruncatesData has NVTOK.DAT empty while the token is used.
func TestStockTruncatesData(t *testing.T) {
	t.Parallel()
	s := initialised(t, freshConfig(t))
	data := readFile(t, s.cfg.Dir, dataFile)
	stockWrite(t, nil, s.cfg.Dir, dataFile)
	refresh(t, s)
	if info(t, s).Label != "test token" {
		t.Error("the data is gone")
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		d := onDisk(t, data)
		d.SetFlags(d.Flags() | p11.CKF_USER_PIN_LOCKED | p11.CKF_USER_PIN_INITIALIZED)
		_ = os.WriteFile(filepath.Join(s.cfg.Dir, dataFile), testFormat(t).PrintFile(d), 0o600)
	}()
	wantRV(t, "login waits", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_PIN_LOCKED)

	stockWrite(t, nil, s.cfg.Dir, dataFile)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Create(ctx, dataObject("a", "", false))
	wantRV(t, "cancelled", err, p11.CKR_FUNCTION_CANCELED)
	start := time.Now()
	create(t, s, dataObject("a", "b", false)) // a dead process's: ours goes
	if took := time.Since(start); took < time.Second {
		t.Errorf("waited only %v", took)
	}
	if b := readFile(t, s.cfg.Dir, dataFile); int64(len(b)) != s.format.FileSize() {
		t.Errorf("NVTOK.DAT has %d bytes", len(b))
	}
}

// TestAnotherFormat has another program migrate the token while it is open.
func TestAnotherFormat(t *testing.T) {
	s := initialised(t, freshConfig(t))
	big := make([]byte, 444)
	copy(big, readFile(t, s.cfg.Dir, dataFile))
	stockWrite(t, big, s.cfg.Dir, dataFile)
	for range 2 {
		wantRV(t, "Refresh", s.Refresh(t.Context()), p11.CKR_TOKEN_NOT_RECOGNIZED)
		_, err := s.Create(t.Context(), dataObject("a", "", false))
		wantRV(t, "Create", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
		wantRV(t, "login", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_TOKEN_NOT_RECOGNIZED)
	}
	if !bytes.Equal(big, readFile(t, s.cfg.Dir, dataFile)) {
		t.Error("it was written")
	}
}

// TestDirectoryReplaced puts a backup in place of the directory.
func TestDirectoryReplaced(t *testing.T) {
	m := storetest.ReadManifest(t)
	s := initialised(t, freshConfig(t))
	l := login(t, s, p11.CKU_USER, testUser)
	create(t, s, dataObject("a", "", true))
	if err := os.Rename(s.cfg.Dir, s.cfg.Dir+".old"); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "moved away", s.Refresh(t.Context()), p11.CKR_TOKEN_NOT_PRESENT)
	if err := os.Rename(storetest.Untar(t, "swtok"), s.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	refresh(t, s)
	wantRV(t, "Valid", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	if pub, priv := s.Counts(); pub != 12 || priv != 0 || info(t, s).Label != m.SWTok.Label {
		t.Errorf("%d public, %d private, %q", pub, priv, info(t, s).Label)
	}
	login(t, s, p11.CKU_USER, m.SWTok.UserPIN)
	create(t, s, dataObject("a", "", true))
	remove(t, s.cfg.Dir, objectsDir)
	wantContents(t, "objects removed", s)
}

// TestInterruptedLoad ends the reading of new objects in the middle: the next
// Refresh finishes it.
func TestInterruptedLoad(t *testing.T) {
	a, b := pair(t, way{})
	for i := range 300 {
		n := nth(i)
		f := objectFile(t, n, dataObject("x", "", false))
		writeFile(t, f, a.cfg.Dir, objectsDir, n.String())
	}
	var idx strings.Builder
	for i := range 300 {
		fmt.Fprintln(&idx, nth(i))
	}
	writeFile(t, []byte(idx.String()), a.cfg.Dir, objectsDir, indexFile)
	ctx := &endingContext{Context: t.Context()}
	ctx.left.Store(2)
	if err := b.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Refresh: %v", err)
	}
	refresh(t, b)
	if pub, _ := b.Counts(); pub != 300 {
		t.Errorf("%d objects", pub)
	}
}

// An endingContext ends after some looks at it.
type endingContext struct {
	context.Context
	left atomic.Int64
}

func (c *endingContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A Refresh waits for the one in progress, which reads what both have to bring in.
func TestRefreshWaits(t *testing.T) {
	cfg := freshConfig(t)
	other := openStore(t, cfg)
	reading, goOn := make(chan struct{}), make(chan struct{})
	cfg.Log = slog.New(stopping{cfg.Log.Handler(), reading, goOn})
	s := openStore(t, cfg)
	if _, err := other.Create(t.Context(), dataObject("new", "1", false)); err != nil {
		t.Fatal(err)
	}
	index, err := os.OpenFile(filepath.Join(cfg.Dir, objectsDir, indexFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := index.WriteString("no name\n"); err != nil { // which is logged
		t.Fatal(err)
	}
	if err := index.Close(); err != nil {
		t.Fatal(err)
	}
	first, second := make(chan error), make(chan error, 1)
	go func() { first <- s.Refresh(t.Context()) }()
	<-reading
	go func() { second <- s.Refresh(t.Context()) }()
	select {
	case err := <-second:
		t.Error("it returns before what it was to bring in is there")
		second <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	if public, _ := s.Counts(); public != 1 {
		t.Errorf("%d objects", public)
	}
}

// stopping stops who logs a warning.
type stopping struct {
	slog.Handler
	reading chan<- struct{}
	goOn    <-chan struct{}
}

func (h stopping) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.reading <- struct{}{}
		<-h.goOn
	}
	return h.Handler.Handle(ctx, r)
}

// TestPINStamp: it changes with the PIN, in whichever process, and with nothing else.
func TestPINStamp(t *testing.T) {
	for _, w := range ways() {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			a, b := pair(t, w)
			user, so := b.PINStamp(p11.CKU_USER), b.PINStamp(p11.CKU_SO)
			create(t, a, dataObject("pub", "1", false))
			login(t, a, p11.CKU_USER, testUser)
			if _, err := a.Login(t.Context(), p11.CKU_USER, pin(t, "wrong")); err == nil {
				t.Fatal("a wrong PIN is right")
			}
			wantContents(t, "created", b, "pub=1")
			if b.PINStamp(p11.CKU_USER) != user || b.PINStamp(p11.CKU_SO) != so {
				t.Error("it changed without the PIN")
			}
			if err := a.SetPIN(t.Context(), p11.CKU_USER, pin(t, testUser), pin(t, "56789")); err != nil {
				t.Fatal(err)
			}
			if err := b.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b.PINStamp(p11.CKU_USER) == user || b.PINStamp(p11.CKU_SO) != so {
				t.Error("it did not change with the PIN, or another's did")
			}
		})
	}
}
