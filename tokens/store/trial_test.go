package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// TestCountedBeforeLooked: while a PIN is looked at it is counted on the disk, for who
// kills the daemon then, and nobody else sees of that, nor loses a login. Only a wrong
// one stays counted.
func TestCountedBeforeLooked(t *testing.T) {
	f, cfg := newSlowFormat(t)
	s := initialised(t, cfg)
	for _, user := range []p11.UserType{p11.CKU_USER, p11.CKU_SO} {
		r, err := tokens.RoleOf(user)
		if err != nil {
			t.Fatal(err)
		}
		right := map[p11.UserType]string{p11.CKU_USER: testUser, p11.CKU_SO: testSO}[user]
		there := login(t, s, user, right)
		looked := 0
		try := func(pin string, want p11.RV, seen, onDisk p11.Flags) {
			t.Helper()
			f.wait = func() {
				looked++
				if got := info(t, s).Flags & r.Counts(); got != seen {
					t.Errorf("%s %s: others see %v meanwhile, want %v", r.Title, pin, got, seen)
				}
				if got := slowFlags(t, f, s) & r.Counts(); got != onDisk {
					t.Errorf("%s %s: on the disk is %v meanwhile, want %v", r.Title, pin, got, onDisk)
				}
				wantRV(t, "a login meanwhile", there.Valid(), p11.CKR_OK)
				killed := cfg
				killed.Dir, killed.Lock, killed.Format = filepath.Join(t.TempDir(), "copy"), &fakeLock{}, slowFormat{Format: f.Format, t: t, lock: &watchedLock{}, wait: func() {}, pins: f.pins}
				if err := os.CopyFS(killed.Dir, os.DirFS(cfg.Dir)); err != nil {
					t.Fatal(err)
				}
				again := openStore(t, killed)
				if got := info(t, again).Flags & r.Counts(); got != onDisk {
					t.Errorf("%s %s: after a kill there is %v, want %v", r.Title, pin, got, onDisk)
				}
			}
			setSlow(s, f)
			wantRV(t, r.Title+" "+pin, tryLogin(t, s, user, pin), want)
			f.wait = func() {}
			setSlow(s, f)
		}
		try(right, p11.CKR_OK, 0, r.CountLow)
		try("wrong-1", p11.CKR_PIN_INCORRECT, 0, r.CountLow)
		try("wrong-2", p11.CKR_PIN_INCORRECT, r.CountLow, r.FinalTry)
		try(right, p11.CKR_OK, r.FinalTry, r.Locked) // the last try, and right
		if got := slowFlags(t, f, s) & r.Counts(); got != 0 {
			t.Errorf("%s: after a right PIN there is %v", r.Title, got)
		}
		try("wrong-1", p11.CKR_PIN_INCORRECT, 0, r.CountLow)
		try("wrong-2", p11.CKR_PIN_INCORRECT, r.CountLow, r.FinalTry)
		try("wrong-3", p11.CKR_PIN_INCORRECT, r.FinalTry, r.Locked)
		wantRV(t, "a login from before", there.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
		n := looked
		try(right, p11.CKR_PIN_LOCKED, 0, 0)
		if looked != n {
			t.Errorf("%s: a locked PIN is looked at", r.Title)
		}
		if user == p11.CKU_SO {
			break
		}
		so := login(t, s, p11.CKU_SO, testSO)
		if err := s.InitPIN(t.Context(), so, pin(t, testUser)); err != nil {
			t.Fatal(err)
		}
		_ = so.Close()
		wantRV(t, "the user's PIN, set anew", tryLogin(t, s, user, testUser), p11.CKR_OK)
	}
}

// slowFlags are the flags on the disk.
func slowFlags(t testing.TB, f slowFormat, s *Store) p11.Flags {
	t.Helper()
	d, err := f.ParseFile(readFile(t, s.cfg.Dir, dataFile))
	if err != nil {
		t.Fatal(err)
	}
	return d.Flags()
}

// setSlow has an open store use another slowFormat.
func setSlow(s *Store, f slowFormat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.format = f
}

// TestNotLookedAt: a PIN that the format could not look at is not counted.
func TestNotLookedAt(t *testing.T) {
	f, cfg := newSlowFormat(t)
	s := initialised(t, cfg)
	wantRV(t, "wrong", tryLogin(t, s, p11.CKU_USER, "wrong"), p11.CKR_PIN_INCORRECT)
	f.fails = errors.New("the chip is gone")
	setSlow(s, f)
	for range 4 {
		if err := tryLogin(t, s, p11.CKU_USER, testUser); !errors.Is(err, f.fails) {
			t.Errorf("%v", err)
		}
	}
	if got := slowFlags(t, f, s) & (p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_LOCKED); got != p11.CKF_USER_PIN_COUNT_LOW {
		t.Errorf("on the disk is %v", got)
	}
}
