package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/storetest"
	"p11fs/tokens/tokentest/cuts"
)

// upkeepOf is the upkeep of a directory in either format.
func upkeepOf(t *testing.T, dir string, k kernel) *Upkeep {
	t.Helper()
	cfg := unsynced(t, dir)
	cfg.Format, cfg.kernel = nil, k
	if k == (linux{}) {
		cfg.kernel = &killable{left: -1}
	}
	return NewUpkeep(cfg, v38(t, "swtok"), v312(t))
}

// either opens a directory in the format that it has.
func either(t *testing.T, dir string) *Store {
	t.Helper()
	cfg := unsynced(t, dir)
	cfg.Format, cfg.Other = v38(t, "swtok"), v312(t)
	return openStore(t, cfg)
}

// A view is all of a token that a user may see, and the master keys are left out.
type view struct {
	Info    p11.TokenInfo
	Objects map[string]p11.Attributes // by the names that are shown
	Order   []string
	Dated   []time.Time
}

// wholeOf opens a token with both PINs. The clock and the longest PIN are left out.
func wholeOf(t *testing.T, dir, so, user string) (w view, newer bool) {
	t.Helper()
	s := either(t, dir)
	defer s.Close()
	_ = login(t, s, p11.CKU_SO, so).Close()
	if user != "" {
		login(t, s, p11.CKU_USER, user)
	}
	if d := damaged(s); len(d) > 0 {
		t.Errorf("damaged: %v", d)
	}
	w.Info = info(t, s)
	w.Info.UTCTime, w.Info.MaxPINLen = "", 0
	w.Objects = make(map[string]p11.Attributes)
	found, err := s.Find(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range found {
		w.Objects[o.Stored] = attributesOf(t, o)
		w.Order = append(w.Order, o.Stored)
		w.Dated = append(w.Dated, o.Dated.Truncate(time.Second)) // as an archive has it
	}
	st, err := upkeepOf(t, dir, linux{}).State()
	if err != nil || !st.Present {
		t.Fatalf("%+v, %v", st, err)
	}
	return w, st.Format == versions[1]
}

// migrated are tokens of format 3.8 and their PINs.
func migrated(t *testing.T) map[string][2]string {
	m := storetest.ReadManifest(t)
	return map[string][2]string{
		"swtok":    {m.SWTok.SOPIN, m.SWTok.UserPIN},
		"swold":    {storetest.SOPIN, storetest.UserPIN},
		"swtok-be": {storetest.SOPIN, storetest.UserPIN},
	}
}

func migration(t *testing.T, pins [2]string) tokens.Migration {
	m := tokens.Migration{SO: pin(t, pins[0])}
	if pins[1] != "" {
		m.User = pin(t, pins[1])
	}
	return m
}

// TestMigrate migrates tokens of both byte orders, and rolls them back. What a user sees is
// the same each time, and after the rollback each byte is.
func TestMigrate(t *testing.T) {
	t.Parallel()
	for name, pins := range migrated(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := storetest.Untar(t, name)
			bytesBefore := tree(t, dir)
			before, newer := wholeOf(t, dir, pins[0], pins[1])
			if newer || len(before.Objects) < 4 {
				t.Fatalf("newer %v, %d objects", newer, len(before.Objects))
			}
			u := upkeepOf(t, dir, linux{})
			m := migration(t, pins)
			last := 0
			m.Progress = func(done, total int) { last = total - done }
			got, err := u.Migrate(t.Context(), m)
			if err != nil || got.Objects != len(before.Objects) || len(got.Damaged) != 0 || last != 0 {
				t.Fatalf("%+v, %v, %d left", got, err, last)
			}
			after, newer := wholeOf(t, dir, pins[0], pins[1])
			if d := cmp.Diff(before, after); d != "" || !newer {
				t.Errorf("newer %v: %s", newer, d)
			}
			raw := readFile(t, dir, dataFile)
			if len(raw) != 592 || slices.ContainsFunc(raw[offUserHash:offUserHash+48], func(b byte) bool { return b != 0 }) {
				t.Errorf("NVTOK.DAT has %d bytes, hashes %x", len(raw), raw[offUserHash:offUserHash+48])
			}
			st, err := u.State()
			if err != nil || st.Backup == "" || st.Unfinished != "" || tree(t, st.Backup) != bytesBefore {
				t.Errorf("%+v, %v", st, err)
			}
			if _, err := u.Migrate(t.Context(), m); !errors.Is(err, tokens.ErrMigrated) {
				t.Errorf("again: %v", err)
			}
			c, err := u.Check(t.Context(), pin(t, pins[1]))
			if err != nil || len(c.Wrong) > 0 || c.Objects != len(before.Objects) {
				t.Errorf("%+v, %v", c, err)
			}
			if err := u.Rollback(t.Context(), nil); err != nil || tree(t, dir) != bytesBefore {
				t.Errorf("%v; the same bytes: %v", err, tree(t, dir) == bytesBefore)
			}
			if err := u.Rollback(t.Context(), nil); err != nil || tree(t, dir) != bytesBefore {
				t.Errorf("again: %v", err)
			}
			if st, err = u.State(); err != nil || st.Backup != "" || st.Unfinished == "" || !st.RolledBack {
				t.Errorf("%+v, %v", st, err)
			}
			// It can be migrated again, and the backup forgotten.
			if _, err := u.Migrate(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if err := u.Forget(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantRV(t, "rolled back without a backup", u.Rollback(t.Context(), nil), p11.CKR_FUNCTION_REJECTED)
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"+filepath.Base(dir)+"*")); err != nil || len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			if after, _ = wholeOf(t, dir, pins[0], pins[1]); cmp.Diff(before, after) != "" {
				t.Error(cmp.Diff(before, after))
			}
		})
	}
}

// TestMigratePINs: wrong PINs count as at a login, and change nothing else; a token without
// a user has none after.
func TestMigratePINs(t *testing.T) {
	t.Parallel()
	m := storetest.ReadManifest(t)
	dir := storetest.Untar(t, "swtok")
	u := upkeepOf(t, dir, linux{})
	_, err := u.Migrate(t.Context(), migration(t, [2]string{"00000000", m.SWTok.UserPIN}))
	wantRV(t, "SO", err, p11.CKR_PIN_INCORRECT)
	_, err = u.Migrate(t.Context(), migration(t, [2]string{m.SWTok.SOPIN, "00000000"}))
	wantRV(t, "user", err, p11.CKR_PIN_INCORRECT)
	_, err = u.Migrate(t.Context(), migration(t, [2]string{m.SWTok.SOPIN, ""}))
	wantRV(t, "no user", err, p11.CKR_ARGUMENTS_BAD)
	if i := info(t, either(t, dir)); i.Flags&p11.CKF_USER_PIN_COUNT_LOW == 0 || i.Flags&p11.CKF_SO_PIN_COUNT_LOW != 0 {
		t.Errorf("flags %#x", uint64(i.Flags))
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), ".swtok."+migrationDir)); err == nil {
		t.Error("a directory was made")
	}

	dir = storetest.Untar(t, "swtok-pristine")
	u = upkeepOf(t, dir, linux{})
	before, _ := wholeOf(t, dir, m.Pristine.SOPIN, "")
	if _, err := u.Migrate(t.Context(), migration(t, [2]string{m.Pristine.SOPIN, ""})); err != nil {
		t.Fatal(err)
	}
	after, newer := wholeOf(t, dir, m.Pristine.SOPIN, "")
	if d := cmp.Diff(before, after); d != "" || !newer {
		t.Errorf("newer %v: %s", newer, d)
	}
	wantRV(t, "the user", tryLogin(t, either(t, dir), p11.CKU_USER, tokens.DefaultUserPIN), p11.CKR_USER_PIN_NOT_INITIALIZED)
	if _, err := os.Stat(filepath.Join(dir, userKeyFile)); err == nil {
		t.Error("there is a MK_USER")
	}
}

// TestMigrateDamaged leaves an object that cannot be read where it is, unless told.
func TestMigrateDamaged(t *testing.T) {
	t.Parallel()
	pins := migrated(t)["swtok"]
	dir := storetest.Untar(t, "swtok")
	before, _ := wholeOf(t, dir, pins[0], pins[1])
	gone := before.Order[3]
	if err := os.WriteFile(filepath.Join(dir, objectsDir, gone), []byte("no object"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := upkeepOf(t, dir, linux{})
	m := migration(t, pins)
	_, err := u.Migrate(t.Context(), m)
	var damage *tokens.DamagedError
	if !errors.As(err, &damage) || len(damage.Objects) != 1 || damage.Objects[0][:8] != gone {
		t.Fatalf("%v", err)
	}
	if c, err := u.Check(t.Context(), nil); err != nil || len(c.Wrong) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	m.SkipDamaged = true
	if got, err := u.Migrate(t.Context(), m); err != nil || len(got.Damaged) != 1 || got.Objects != len(before.Objects)-1 {
		t.Fatalf("%+v, %v", got, err)
	}
	delete(before.Objects, gone)
	before.Order, before.Dated = slices.Delete(before.Order, 3, 4), slices.Delete(before.Dated, 3, 4)
	if after, _ := wholeOf(t, dir, pins[0], pins[1]); cmp.Diff(before, after) != "" {
		t.Error(cmp.Diff(before, after))
	}
}

// noExchange is a kernel whose file system cannot exchange two names.
type noExchange struct{ killable }

func (k *noExchange) Exchange(int, string, string) error {
	if alive, _ := k.step(); !alive {
		return cuts.ErrKilled
	}
	return unix.EINVAL
}

func (m *killable) SyncAll(int) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return nil
}

func (m *killable) Exchange(dir int, a, b string) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return m.linux.Exchange(dir, a, b)
}

func (m *killable) Rmdir(dir int, name string) error {
	if alive, _ := m.step(); !alive {
		return cuts.ErrKilled
	}
	return m.linux.Rmdir(dir, name)
}

// copyAround copies a token's directory with what stands beside it.
func copyAround(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	from := filepath.Dir(dir)
	err := os.CopyFS(to, os.DirFS(from))
	if err == nil {
		err = filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			return os.Chtimes(filepath.Join(to, strings.TrimPrefix(path, from)), time.Time{}, st.ModTime())
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, filepath.Base(dir))
}

// allPoints has TestMigrateKilled kill at each of 500 points, in half a minute, not at one
// in fifteen and the ends.
const allPoints = "P11FS_ALL_POINTS"

// TestMigrateKilled kills migrations, rollbacks and the removal of backups at calls of the
// system. Each time the token opens with both PINs, with all objects, and what was cut off
// can be done again.
func TestMigrateKilled(t *testing.T) {
	t.Parallel()
	every := 15
	if os.Getenv(allPoints) != "" {
		every = 1
	}
	var points atomic.Int64
	t.Run("points", func(t *testing.T) {
		for name, pins := range migrated(t) {
			dir := storetest.Untar(t, name)
			before, _ := wholeOf(t, dir, pins[0], pins[1])
			done := copyAround(t, dir)
			if _, err := upkeepOf(t, done, linux{}).Migrate(t.Context(), migration(t, pins)); err != nil {
				t.Fatal(err)
			}
			look := func(t *testing.T, dir string) {
				after, _ := wholeOf(t, dir, pins[0], pins[1])
				if d := cmp.Diff(before, after); d != "" {
					t.Error(d)
				}
			}
			migrate := func(t *testing.T, u *Upkeep) error { _, err := u.Migrate(t.Context(), migration(t, pins)); return err }
			rollback := func(t *testing.T, u *Upkeep) error { return u.Rollback(t.Context(), nil) }
			forget := func(t *testing.T, u *Upkeep) error { return u.Forget(t.Context()) }
			for _, a := range []killed{
				{"migrate", dir, true, migrate}, {"migrate in steps", dir, false, migrate},
				{"rollback", done, true, rollback}, {"rollback in steps", done, false, rollback}, {"forget", done, true, forget},
			} {
				t.Run(name+" "+a.what, func(t *testing.T) {
					t.Parallel()
					n := a.at(t, every, look)
					points.Add(int64(n))
				})
			}
		}
	})
	if n := points.Load(); every == 1 && n < 200 {
		t.Errorf("killed at %d points only", n)
	}
	t.Logf("killed at %d points", points.Load())
}

// killed is something that is killed.
type killed struct {
	what, from string
	exchange   bool // the file system can exchange two names
	act        func(t *testing.T, u *Upkeep) error
}

// at does it with copies of a token, killed at the first steps and the last and at each so
// many of those between, and then again. It returns at how many.
func (a killed) at(t *testing.T, every int, look func(t *testing.T, dir string)) (points int) {
	upkeep := func(dir string, left int) (*Upkeep, *killable) {
		if a.exchange {
			k := &killable{left: left}
			return upkeepOf(t, dir, k), k
		}
		k := &noExchange{killable{left: left}}
		return upkeepOf(t, dir, k), &k.killable
	}
	u, k := upkeep(copyAround(t, a.from), -1)
	if err := a.act(t, u); err != nil {
		t.Fatal(err)
	}
	all := k.n
	for steps := range all {
		if steps%every != 0 && steps > 2 && steps < all-5 {
			continue
		}
		dir := copyAround(t, a.from)
		u, k := upkeep(dir, steps)
		if err := a.act(t, u); k.left > 0 {
			t.Fatalf("not killed after %d steps: %v", steps, err)
		}
		look(t, dir)
		if err := a.act(t, upkeepOf(t, dir, linux{})); err != nil && !errors.Is(err, tokens.ErrMigrated) {
			t.Fatalf("again after %d steps: %v", steps, err)
		}
		look(t, dir)
		if t.Failed() {
			t.Fatalf("after %d steps", steps)
		}
		points++
	}
	return points
}

// TestMigrateServed migrates a token that a store serves, and rolls it back: logins end each
// time, and changes that were made during the migration are in the new directory.
func TestMigrateServed(t *testing.T) {
	t.Parallel()
	for _, watch := range []bool{true, false} {
		pins := migrated(t)["swtok"]
		dir := storetest.Untar(t, "swtok")
		cfg := config(t, dir)
		cfg.Format, cfg.Other, cfg.noWatch = v38(t, "swtok"), v312(t), !watch
		s := openStore(t, cfg)
		l := login(t, s, p11.CKU_USER, pins[1])
		create(t, s, dataObject("before", "1", true))
		u := upkeepOf(t, dir, linux{})
		m := migration(t, pins)
		made := false
		m.Progress = func(done, _ int) {
			if done == 10 && !made { // between the rounds nothing is locked
				made = true
				create(t, s, dataObject("during", "2", true))
				if err := s.Destroy(context.Background(), labelled(t, s, "before"), allow); err != nil {
					t.Error(err)
				}
			}
		}
		got, err := u.Migrate(t.Context(), m)
		if err != nil || got.Objects != 25 {
			t.Fatalf("%+v, %v", got, err)
		}
		if i := info(t, s); i.MaxPINLen != 1024 {
			t.Errorf("the store has not noticed: %+v", i)
		}
		if err := l.Valid(); err == nil {
			t.Error("the login goes on")
		}
		login(t, s, p11.CKU_USER, pins[1])
		if public, private := s.Counts(); public != 12 || private != 13 {
			t.Errorf("%d public and %d private objects", public, private)
		}
		create(t, s, dataObject("after", "3", true))
		if err := u.Rollback(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if i := info(t, s); i.MaxPINLen != 8 {
			t.Errorf("the store has not noticed: %+v", i)
		}
		login(t, s, p11.CKU_USER, pins[1])
		if public, private := s.Counts(); public != 12 || private != 13 {
			t.Errorf("%d public and %d private objects after the rollback", public, private)
		}
		if d := damaged(s); len(d) != 0 {
			t.Error(d)
		}
	}
}

// TestMigrateAlone: two migrations at once do not work in one directory, and one that finds
// another master key begins anew.
func TestMigrateAlone(t *testing.T) {
	t.Parallel()
	pins := migrated(t)["swtok"]
	dir := storetest.Untar(t, "swtok")
	before, _ := wholeOf(t, dir, pins[0], pins[1])
	u := upkeepOf(t, dir, linux{})
	m := migration(t, pins)
	m.Progress = func(done, _ int) {
		if done == 5 {
			_, err := upkeepOf(t, dir, linux{}).Migrate(t.Context(), migration(t, pins))
			wantRV(t, "a second migration", err, p11.CKR_FUNCTION_REJECTED)
		}
	}
	if _, err := u.Migrate(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := u.Rollback(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	other, err := secret.New([]byte("99887766"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s := either(t, dir)
	if err := s.SetPIN(t.Context(), p11.CKU_USER, pin(t, pins[1]), other); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	m = tokens.Migration{SO: pin(t, pins[0]), User: other}
	if _, err := u.Migrate(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if after, newer := wholeOf(t, dir, pins[0], "99887766"); cmp.Diff(before.Objects, after.Objects) != "" || !newer {
		t.Errorf("newer %v: %s", newer, cmp.Diff(before.Objects, after.Objects))
	}
}
