package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

func freshConfig(t testing.TB) Config {
	return config(t, filepath.Join(t.TempDir(), "swtok"))
}

func tryLogin(t testing.TB, s *Store, u p11.UserType, text string) error {
	t.Helper()
	l, err := s.Login(t.Context(), u, pin(t, text))
	if err == nil {
		_ = l.Close()
	}
	return err
}

func flagsOnDisk(t testing.TB, s *Store) p11.Flags {
	t.Helper()
	d := onDisk(t, readFile(t, s.cfg.Dir, dataFile))
	if d != dataOf(s) {
		t.Error("memory and NVTOK.DAT differ")
	}
	return d.Flags()
}

func TestInitToken(t *testing.T) {
	s := openStore(t, freshConfig(t))
	ctx := t.Context()
	wantRV(t, "wrong PIN", s.InitToken(ctx, pin(t, "11111111"), "x"), p11.CKR_PIN_INCORRECT)
	wantRV(t, "no PIN", s.InitToken(ctx, nil, "x"), p11.CKR_PIN_INCORRECT)
	if f := flagsOnDisk(t, s); f != 0x880045|p11.CKF_SO_PIN_FINAL_TRY {
		t.Errorf("flags %#x: wrong PINs count", uint64(f))
	}
	for _, label := range []string{"a label that is longer than 32 bytes", "\xff\xfe", "nul\x00"} {
		wantRV(t, "label", s.InitToken(ctx, pin(t, firstSOPIN), label), p11.CKR_ARGUMENTS_BAD)
	}
	if err := s.InitToken(ctx, pin(t, firstSOPIN), "grüß Gott"); err != nil {
		t.Fatal(err)
	}
	if i := info(t, s); i.Label != "grüß Gott" || i.Flags != 0x880445 {
		t.Errorf("%+v", i)
	}
	flagsOnDisk(t, s)
	if l := readFile(t, s.cfg.Dir, dataFile)[:32]; string(l) != "grüß Gott                     " {
		t.Errorf("label %q", l)
	}
}

// TestInitTokenAgain initialises a token that is in use.
func TestInitTokenAgain(t *testing.T) {
	s := initialised(t, freshConfig(t))
	ctx := t.Context()
	user := login(t, s, p11.CKU_USER, testUser)
	so := login(t, s, p11.CKU_SO, testSO)
	pub := create(t, s, dataObject("pub", "1", false))
	priv := create(t, s, dataObject("priv", "2", true))
	held, err := priv.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, nil, s.cfg.Dir, objectsDir, "IDX.TMP")
	writeFile(t, nil, s.cfg.Dir, objectsDir, "ZZ000000")
	oldKey := readFile(t, s.cfg.Dir, soKeyFile)
	if err := s.InitToken(ctx, pin(t, testSO), "new"); err != nil {
		t.Fatal(err)
	}
	for _, l := range []interface{ Valid() error }{user, so} {
		wantRV(t, "Valid", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	}
	if v, _ := held.Get(p11.CKA_VALUE); string(v) != "2" {
		t.Errorf("an object in use was wiped: %q", v)
	}
	priv.Release()
	if v, _ := held.Get(p11.CKA_VALUE); string(v) == "2" {
		t.Error("an object no longer in use was not wiped")
	}
	_, err = pub.Acquire()
	wantRV(t, "Acquire", err, p11.CKR_OBJECT_HANDLE_INVALID)
	wantRV(t, "user", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_USER_PIN_NOT_INITIALIZED)
	wantRV(t, "SO", tryLogin(t, s, p11.CKU_SO, testSO), p11.CKR_OK)
	if bytes.Equal(oldKey, readFile(t, s.cfg.Dir, soKeyFile)) {
		t.Error("the old master key is still there")
	}
	if _, err := os.Stat(filepath.Join(s.cfg.Dir, userKeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("MK_USER: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, objectsDir))
	if err != nil || len(entries) != 1 || entries[0].Name() != indexFile {
		t.Errorf("objects left: %v (%v)", entries, err)
	}
	if n := rawData(readFile(t, s.cfg.Dir, dataFile)).next(); n != nth(0) {
		t.Errorf("next name %s", n)
	}
	_ = user.Close()
	_ = so.Close()
	if o := create(t, s, dataObject("a", "b", false)); o.Stored != "00000000" {
		t.Errorf("name %s", o.Stored)
	}
}

func TestInitPIN(t *testing.T) {
	s := openStore(t, freshConfig(t))
	ctx := t.Context()
	other := openStore(t, freshConfig(t))
	so := login(t, s, p11.CKU_SO, firstSOPIN)
	wantRV(t, "no login", s.InitPIN(ctx, nil, pin(t, "1234")), p11.CKR_USER_NOT_LOGGED_IN)
	wantRV(t, "another token's login", other.InitPIN(ctx, so, pin(t, "1234")), p11.CKR_USER_NOT_LOGGED_IN)
	for _, text := range []string{"", "123", "123456789"} {
		wantRV(t, "length", s.InitPIN(ctx, so, pin(t, text)), p11.CKR_PIN_LEN_RANGE)
	}
	wantRV(t, "nil", s.InitPIN(ctx, so, nil), p11.CKR_PIN_LEN_RANGE)
	for _, text := range []string{"12345678", "1234", "ä€x"} { // the default PIN is fine here
		if err := s.InitPIN(ctx, so, pin(t, text)); err != nil {
			t.Fatal(err)
		}
		wantRV(t, "login", tryLogin(t, s, p11.CKU_USER, text), p11.CKR_OK)
	}
	if f := flagsOnDisk(t, s); f != 0x80004d {
		t.Errorf("flags %#x", uint64(f))
	}
	user := login(t, s, p11.CKU_USER, "ä€x")
	wantRV(t, "by the user", s.InitPIN(ctx, user, pin(t, "1234")), p11.CKR_USER_NOT_LOGGED_IN)
	if err := so.Close(); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "after logout", s.InitPIN(ctx, so, pin(t, "1234")), p11.CKR_USER_NOT_LOGGED_IN)
}

func TestSetPIN(t *testing.T) {
	s := initialised(t, freshConfig(t))
	ctx := t.Context()
	user := login(t, s, p11.CKU_USER, testUser)
	create(t, s, dataObject("private", "kept", true))
	tests := []struct {
		name     string
		user     p11.UserType
		old, new string
		want     p11.RV
		count    p11.Flags // how many wrong PINs stand in the flags then
	}{
		{"wrong", p11.CKU_USER, "9999", "1357", p11.CKR_PIN_INCORRECT, p11.CKF_USER_PIN_COUNT_LOW},
		{"wrong, and short", p11.CKU_USER, "9999", "1", p11.CKR_PIN_INCORRECT, p11.CKF_USER_PIN_FINAL_TRY},
		{"right, but short", p11.CKU_USER, testUser, "123", p11.CKR_PIN_LEN_RANGE, 0},
		{"too long an old one", p11.CKU_USER, "123456789", "1357", p11.CKR_PIN_INCORRECT, p11.CKF_USER_PIN_COUNT_LOW},
		{"long", p11.CKU_USER, testUser, "123456789", p11.CKR_PIN_LEN_RANGE, 0},
		{"same", p11.CKU_USER, testUser, testUser, p11.CKR_PIN_INVALID, 0},
		{"default user", p11.CKU_USER, testUser, "12345678", p11.CKR_PIN_INVALID, 0},
		{"default SO", p11.CKU_SO, testSO, firstSOPIN, p11.CKR_PIN_INVALID, 0},
		{"role", p11.CKU_CONTEXT_SPECIFIC, testSO, "1357", p11.CKR_USER_TYPE_INVALID, 0},
		{"wrong SO", p11.CKU_SO, "9999", "1357", p11.CKR_PIN_INCORRECT, p11.CKF_SO_PIN_COUNT_LOW},
		{"SO", p11.CKU_SO, testSO, "1357", p11.CKR_OK, 0},
		{"user", p11.CKU_USER, testUser, firstSOPIN, p11.CKR_OK, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const counts = p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_LOCKED |
				p11.CKF_SO_PIN_COUNT_LOW | p11.CKF_SO_PIN_FINAL_TRY | p11.CKF_SO_PIN_LOCKED
			before := flagsOnDisk(t, s) &^ counts
			wantRV(t, "SetPIN", s.SetPIN(ctx, tt.user, pin(t, tt.old), pin(t, tt.new)), tt.want)
			after := flagsOnDisk(t, s)
			if after&counts != tt.count {
				t.Errorf("flags %#x", uint64(after))
			}
			if tt.want != p11.CKR_OK && after&^counts != before {
				t.Errorf("flags %#x", uint64(after))
			}
		})
	}
	wantRV(t, "the login still holds", user.Valid(), p11.CKR_OK)
	_ = user.Close()
	wantRV(t, "old PIN", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_PIN_INCORRECT)
	wantRV(t, "new SO PIN", tryLogin(t, s, p11.CKU_SO, "1357"), p11.CKR_OK)
	login(t, s, p11.CKU_USER, firstSOPIN)
	if c := contents(t, s); len(c) != 1 || c[0] != "private=kept" {
		t.Errorf("%v", c)
	}
	wantRV(t, "not yet set", openStore(t, freshConfig(t)).SetPIN(ctx, p11.CKU_USER, pin(t, "1234"), pin(t, "5678")), p11.CKR_USER_PIN_NOT_INITIALIZED)
}

func TestLockout(t *testing.T) {
	for _, tt := range []struct {
		name               string
		user               p11.UserType
		pin                string
		low, final, locked p11.Flags
	}{
		{"user", p11.CKU_USER, testUser, 0x10000, 0x20000, 0x40000},
		{"SO", p11.CKU_SO, testSO, 0x100000, 0x200000, 0x400000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := initialised(t, freshConfig(t))
			live := login(t, s, tt.user, tt.pin)
			all := tt.low | tt.final | tt.locked
			for _, wrong := range [][]string{{"1111"}, {"", "1111"}} {
				for i, w := range wrong {
					wantRV(t, "wrong", tryLogin(t, s, tt.user, w), p11.CKR_PIN_INCORRECT)
					if f := flagsOnDisk(t, s) & all; f != []p11.Flags{tt.low, tt.final}[i] {
						t.Errorf("flags %#x after %d tries", uint64(f), i+1)
					}
				}
				wantRV(t, "right", tryLogin(t, s, tt.user, tt.pin), p11.CKR_OK)
				if f := flagsOnDisk(t, s) & all; f != 0 {
					t.Errorf("flags %#x after success", uint64(f))
				}
			}
			for range 3 {
				wantRV(t, "valid", live.Valid(), p11.CKR_OK)
				wantRV(t, "wrong", tryLogin(t, s, tt.user, "1111"), p11.CKR_PIN_INCORRECT)
			}
			if f := flagsOnDisk(t, s) & all; f != tt.locked {
				t.Errorf("flags %#x", uint64(f))
			}
			wantRV(t, "valid", live.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
			wantRV(t, "right", tryLogin(t, s, tt.user, tt.pin), p11.CKR_PIN_LOCKED)
			wantRV(t, "SetPIN", s.SetPIN(t.Context(), tt.user, pin(t, tt.pin), pin(t, "5555")), p11.CKR_PIN_LOCKED)
			if tt.user == p11.CKU_SO {
				wantRV(t, "InitToken", s.InitToken(t.Context(), pin(t, tt.pin), "x"), p11.CKR_PIN_LOCKED)
			}
			if s.logins.KeyLocked(tt.user) != nil {
				t.Error("the master key is still there")
			}
		})
	}
}

func TestLoginShares(t *testing.T) {
	s := initialised(t, freshConfig(t))
	a, b := login(t, s, p11.CKU_USER, testUser), login(t, s, p11.CKU_USER, testUser)
	o := create(t, s, dataObject("a", "b", true))
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantRV(t, "the other", b.Valid(), p11.CKR_OK)
	if attributesOf(t, o).Label() != "a" {
		t.Error("the object is gone")
	}
	key := s.logins.KeyLocked(p11.CKU_USER)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if key.Len() != 0 || s.logins.KeyLocked(p11.CKU_USER) != nil {
		t.Error("the master key is still there")
	}
	wantRV(t, "closed", b.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	_, err := o.Acquire()
	wantRV(t, "Acquire", err, p11.CKR_OBJECT_HANDLE_INVALID)
	_, err = s.ByName(o.Name)
	wantRV(t, "ByName", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if _, priv := s.Counts(); priv != 0 || len(contents(t, s)) != 0 {
		t.Error("private objects are known")
	}
	c := login(t, s, p11.CKU_USER, testUser)
	wantRV(t, "old login", a.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	if got := contents(t, s); len(got) != 1 {
		t.Errorf("%v", got)
	}
	_ = a.Close()
	wantRV(t, "new login", c.Valid(), p11.CKR_OK)
}

func TestLoginRefused(t *testing.T) {
	s := initialised(t, freshConfig(t))
	_, err := s.Login(t.Context(), p11.CKU_CONTEXT_SPECIFIC, pin(t, testUser))
	wantRV(t, "role", err, p11.CKR_USER_TYPE_INVALID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Login(ctx, p11.CKU_USER, pin(t, "wrong"))
	wantRV(t, "cancelled", err, p11.CKR_FUNCTION_CANCELED)
	if f := flagsOnDisk(t, s); f&p11.CKF_USER_PIN_COUNT_LOW != 0 {
		t.Error("a cancelled login was counted")
	}
	writeFile(t, make([]byte, 48), s.cfg.Dir, userKeyFile)
	wantRV(t, "damaged MK_USER", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_FUNCTION_FAILED)
	remove(t, s.cfg.Dir, userKeyFile)
	wantRV(t, "no MK_USER", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_FUNCTION_FAILED)
	symlink(t, soKeyFile, s.cfg.Dir, userKeyFile)
	wantRV(t, "MK_USER is a link", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_FUNCTION_FAILED)
	so := login(t, s, p11.CKU_SO, testSO)
	if err := s.InitPIN(t.Context(), so, pin(t, testUser)); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "repaired", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_OK)
	writeFile(t, make([]byte, 48), s.cfg.Dir, soKeyFile)
	wantRV(t, "damaged MK_SO", tryLogin(t, s, p11.CKU_SO, testSO), p11.CKR_FUNCTION_FAILED)
}

// wrapUnder wraps the store's master key into file under a PIN.
func wrapUnder(t *testing.T, s *Store, master *secret.Bytes, file, text string) {
	t.Helper()
	writeFile(t, made(t, s, master, userOf(file), text).File, s.cfg.Dir, file)
}

// made is what a change to another PIN brings into the directory.
func made(t *testing.T, s *Store, master *secret.Bytes, u p11.UserType, text string) format.Kept {
	t.Helper()
	f, d := s.snapshot()
	kept, err := f.Make(t.Context(), u, pin(t, text), master, format.Kept{Record: f.PIN(d, u)})
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func masterKey(t *testing.T, s *Store, file, text string) *secret.Bytes {
	t.Helper()
	f, d := s.snapshot()
	o, err := f.Open(t.Context(), userOf(file), pin(t, text), format.Kept{Record: f.PIN(d, userOf(file)), File: readFile(t, s.cfg.Dir, file)})
	if err != nil || o.Key == nil || o.Why != "" {
		t.Fatalf("%s does not open: %v %s", file, err, o.Why)
	}
	t.Cleanup(func() { _ = o.Key.Close() })
	return o.Key
}

func userOf(file string) p11.UserType {
	if file == soKeyFile {
		return p11.CKU_SO
	}
	return p11.CKU_USER
}

// TestStockInitToken opens what stock C_InitToken leaves: MK_SO under the default
// PIN, whatever the SO's is.
func TestStockInitToken(t *testing.T) {
	s := initialised(t, freshConfig(t))
	master := masterKey(t, s, soKeyFile, testSO)
	wrapUnder(t, s, master, soKeyFile, firstSOPIN)
	wantRV(t, "default PIN", tryLogin(t, s, p11.CKU_SO, firstSOPIN), p11.CKR_PIN_INCORRECT)
	wantRV(t, "the SO's PIN", tryLogin(t, s, p11.CKU_SO, testSO), p11.CKR_OK)
	if !masterKey(t, s, soKeyFile, testSO).Equal(master) {
		t.Error("another master key")
	}
	wrapUnder(t, s, master, soKeyFile, firstSOPIN)
	if err := s.SetPIN(t.Context(), p11.CKU_SO, pin(t, testSO), pin(t, "4711")); err != nil {
		t.Fatal(err)
	}
	if !masterKey(t, s, soKeyFile, "4711").Equal(master) {
		t.Error("another master key")
	}
}

// TestStockZeroKey has stock C_SetPIN, in a public session, replace the user's
// master key by zeros, and objects written under it.
func TestStockZeroKey(t *testing.T) {
	s := initialised(t, freshConfig(t))
	l := login(t, s, p11.CKU_USER, testUser)
	create(t, s, dataObject("before", "1", true))
	_ = l.Close()
	zero, err := secret.New(make([]byte, 24))
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	wrapUnder(t, s, zero, userKeyFile, testUser)
	l = login(t, s, p11.CKU_USER, testUser)
	create(t, s, dataObject("zero", "2", true))
	if got := contents(t, s); len(got) != 1 || got[0] != "zero=2" {
		t.Errorf("under the zero key: %v", got)
	}
	if d := damaged(s); len(d) != 1 || d[0].name.String() != "00000000" || !errors.Is(d[0].err, format.ErrDamaged) {
		t.Errorf("damaged: %v", d)
	}
	so := login(t, s, p11.CKU_SO, testSO)
	if err := s.InitPIN(t.Context(), so, pin(t, testUser)); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	login(t, s, p11.CKU_USER, testUser)
	if got := contents(t, s); len(got) != 2 || got[0] != "before=1" || got[1] != "zero=2" {
		t.Errorf("under the right key: %v", got)
	}
	if d := damaged(s); len(d) != 0 {
		t.Errorf("damaged: %v", d)
	}
}

// TestHalfChangedPIN logs in after a change of PIN that was cut off between its
// two files, whichever was replaced first.
func TestHalfChangedPIN(t *testing.T) {
	for _, u := range []p11.UserType{p11.CKU_USER, p11.CKU_SO} {
		p, err := tokens.RoleOf(u)
		if err != nil {
			t.Fatal(err)
		}
		old := map[p11.UserType]string{p11.CKU_USER: testUser, p11.CKU_SO: testSO}[u]
		t.Run(p.Title+" key first", func(t *testing.T) {
			s := initialised(t, freshConfig(t))
			wrapUnder(t, s, masterKey(t, s, keyFileFor(u), old), keyFileFor(u), "newpin")
			wantRV(t, "old", tryLogin(t, s, u, old), p11.CKR_FUNCTION_FAILED)
			wantRV(t, "new", tryLogin(t, s, u, "newpin"), p11.CKR_OK)
			flagsOnDisk(t, s)
			masterKey(t, s, keyFileFor(u), "newpin") // which finds all in order
			wantRV(t, "old", tryLogin(t, s, u, old), p11.CKR_PIN_INCORRECT)
		})
		t.Run(p.Title+" hash first", func(t *testing.T) {
			s := initialised(t, freshConfig(t))
			f, d := s.snapshot()
			record := made(t, s, masterKey(t, s, keyFileFor(u), old), u, "newpin").Record
			writeFile(t, f.PrintFile(f.WithPIN(d, u, record)), s.cfg.Dir, dataFile)
			wantRV(t, "new", tryLogin(t, s, u, "newpin"), p11.CKR_FUNCTION_FAILED)
			wantRV(t, "old", tryLogin(t, s, u, old), p11.CKR_OK)
			wantRV(t, "new", tryLogin(t, s, u, "newpin"), p11.CKR_PIN_INCORRECT)
		})
	}
	t.Run("InitToken", func(t *testing.T) {
		s := initialised(t, freshConfig(t))
		wrapUnder(t, s, masterKey(t, s, soKeyFile, testSO), soKeyFile, "newpin")
		wantRV(t, "InitToken", s.InitToken(t.Context(), pin(t, "newpin"), "x"), p11.CKR_OK)
	})
}

// A directory that has the name of an object does not keep a token from being
// initialised.
func TestInitTokenBesideADirectory(t *testing.T) {
	cfg := freshConfig(t)
	s := initialised(t, cfg)
	if err := os.Mkdir(filepath.Join(cfg.Dir, objectsDir, "oldfiles"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.InitToken(t.Context(), pin(t, testSO), "new"); err != nil {
		t.Fatal(err)
	}
	if label := info(t, s).Label; label != "new" {
		t.Errorf("the label is %q", label)
	}
}
