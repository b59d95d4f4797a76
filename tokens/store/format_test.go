package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/format"
)

// A slowFormat is as far from 3.8 as later formats are: a longer NVTOK.DAT, random
// names that no data passes, objects that are sealed onto their previous version,
// a master key that outlives C_InitToken, and PINs that take long.
type slowFormat struct {
	format.Format
	t    *testing.T
	lock *watchedLock
	wait func() // called while a PIN is looked at
	pins *atomic.Int32

	fails error // of Open
}

// A watchedLock is a token's lock that knows whether it is held.
type watchedLock struct {
	fakeLock
	held atomic.Bool
}

func (l *watchedLock) Lock(ctx context.Context) (func() error, error) {
	unlock, err := l.fakeLock.Lock(ctx)
	if err != nil {
		return nil, err
	}
	l.held.Store(true)
	return sync.OnceValue(func() error { l.held.Store(false); return unlock() }), nil
}

const slowTail = "what a later format has besides"

func newSlowFormat(t *testing.T) (slowFormat, Config) {
	cfg := freshConfig(t)
	f := slowFormat{Format: cfg.Format, t: t, lock: &watchedLock{}, wait: func() {}, pins: new(atomic.Int32)}
	cfg.Format, cfg.Lock = f, f.lock
	return f, cfg
}

func (f slowFormat) slow() {
	f.pins.Add(1)
	if f.lock.held.Load() {
		f.t.Error("a PIN is looked at under the token's lock")
	}
	f.wait()
}

func (f slowFormat) Recognize(b []byte) (format.Format, error) {
	_, err := f.ParseFile(b)
	return f, err
}

func (f slowFormat) FileSize() int64 { return f.Format.FileSize() + int64(len(slowTail)) }

func (f slowFormat) ParseFile(b []byte) (format.TokenData, error) {
	if int64(len(b)) < f.FileSize() {
		return format.TokenData{}, format.ErrShort
	}
	head, ok := bytes.CutSuffix(b, []byte(slowTail))
	if !ok {
		return format.TokenData{}, p11.CKR_TOKEN_NOT_RECOGNIZED
	}
	return f.Format.ParseFile(head)
}

func (f slowFormat) PrintFile(d format.TokenData) []byte {
	return append(f.Format.PrintFile(d), slowTail...)
}

func (f slowFormat) NewToken(ctx context.Context) (format.TokenData, []byte, error) {
	f.slow()
	return f.Format.NewToken(ctx)
}

func (f slowFormat) Open(ctx context.Context, role p11.UserType, pin *secret.Bytes, k format.Kept) (format.Opened, error) {
	f.slow()
	if f.fails != nil {
		return format.Opened{}, f.fails
	}
	return f.Format.Open(ctx, role, pin, k)
}

func (f slowFormat) Make(ctx context.Context, role p11.UserType, pin, master *secret.Bytes, old format.Kept) (format.Kept, error) {
	f.slow()
	return f.Format.Make(ctx, role, pin, master, old)
}

func (f slowFormat) Initialized(d format.TokenData) (format.TokenData, bool) {
	fresh, _ := f.Format.Initialized(d)
	return f.WithPIN(fresh, p11.CKU_SO, f.PIN(d, p11.CKU_SO)), false
}

func (f slowFormat) NewNames(d format.TokenData, count int, taken func(format.Name) (bool, error)) (names []format.Name, _ format.TokenData, err error) {
	for len(names) < count {
		n := format.Name([]byte("OB" + rand.Text()[:6]))
		used, err := taken(n)
		if err != nil {
			return nil, d, err
		}
		if !used {
			names = append(names, n)
		}
	}
	return names, d, nil
}

func (f slowFormat) KeepNames(d, _ format.TokenData) format.TokenData { return d }

func (f slowFormat) Objects(master *secret.Bytes) (format.Objects, error) {
	o, err := f.Format.Objects(master)
	return countedObjects{o}, err
}

// countedObjects have the number of their version in front.
type countedObjects struct{ format.Objects }

func (o countedObjects) Open(n format.Name, file []byte) (bool, p11.Attributes, error) {
	if len(file) == 0 {
		return false, nil, format.ErrDamaged
	}
	return o.Objects.Open(n, file[1:])
}

func (o countedObjects) Seal(n format.Name, attrs p11.Attributes, previous []byte) ([]byte, error) {
	version := byte(1)
	if len(previous) > 0 {
		version = previous[0] + 1
	}
	b, err := o.Objects.Seal(n, attrs, nil)
	return append([]byte{version}, b...), err
}

// TestLaterFormat leads the life of a token in another format than 3.8's.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	f, cfg := newSlowFormat(t)
	s := initialised(t, cfg)
	user := login(t, s, p11.CKU_USER, testUser)
	o := create(t, s, dataObject("a", "1", true))
	create(t, s, dataObject("b", "2", false))
	for range 3 {
		if _, err := s.Update(t.Context(), o.Handle, relabel("A")); err != nil {
			t.Fatal(err)
		}
	}
	if b := readFile(t, cfg.Dir, objectsDir, o.Stored); b[0] != 4 {
		t.Errorf("the version of the object is %d", b[0])
	}
	if err := s.SetPIN(t.Context(), p11.CKU_USER, pin(t, testUser), pin(t, "1357")); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "wrong", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_PIN_INCORRECT)
	if b := readFile(t, cfg.Dir, dataFile); !bytes.HasSuffix(b, []byte(slowTail)) {
		t.Errorf("NVTOK.DAT is %q", b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	login(t, s, p11.CKU_USER, "1357")
	if got := contents(t, s); !slices.Contains(got, "A=1") || !slices.Contains(got, "b=2") || len(got) != 2 {
		t.Errorf("%q", got)
	}
	key := readFile(t, cfg.Dir, soKeyFile)
	if err := s.InitToken(t.Context(), pin(t, testSO), "again"); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "login", user.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	if len(contents(t, s)) != 0 || !bytes.Equal(key, readFile(t, cfg.Dir, soKeyFile)) || info(t, s).Label != "again" {
		t.Error("the token is not initialised as its format says")
	}
	wantRV(t, "SO", tryLogin(t, s, p11.CKU_SO, testSO), p11.CKR_OK)
	if f.pins.Load() < 10 {
		t.Errorf("%d PINs", f.pins.Load())
	}
	// Another format's directory is refused, and not written.
	plain := config(t, filepath.Join(t.TempDir(), "plain"))
	_ = openStore(t, plain).Close()
	plain.Format = f
	before := tree(t, plain.Dir)
	_, err := Open(t.Context(), plain)
	wantRV(t, "Open", err, p11.CKR_TOKEN_NOT_RECOGNIZED)
	if tree(t, plain.Dir) != before {
		t.Error("it was written")
	}
}

// TestPINChangedMeanwhile changes a PIN while it is looked at: what counts is the PIN
// at the end.
func TestPINChangedMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		try  string
		do   func(s *Store, try string) error
		want p11.RV
	}{
		{testUser, func(s *Store, try string) error { return tryLogin(t, s, p11.CKU_USER, try) }, p11.CKR_PIN_INCORRECT},
		{"1357", func(s *Store, try string) error { return tryLogin(t, s, p11.CKU_USER, try) }, p11.CKR_OK},
		{testUser, func(s *Store, try string) error {
			return s.SetPIN(t.Context(), p11.CKU_USER, pin(t, try), pin(t, "5555"))
		}, p11.CKR_PIN_INCORRECT},
	} {
		t.Run(fmt.Sprint(tt.try, " ", tt.want), func(t *testing.T) {
			f, cfg := newSlowFormat(t)
			other := initialised(t, cfg)
			once := sync.OnceFunc(func() {
				if err := other.SetPIN(t.Context(), p11.CKU_USER, pin(t, testUser), pin(t, "1357")); err != nil {
					t.Error(err)
				}
			})
			looking := false
			f.wait = func() {
				if !looking {
					looking = true
					once()
				}
			}
			cfg.Format = f
			s := openStore(t, cfg)
			wantRV(t, tt.try, tt.do(s, tt.try), tt.want)
			wantRV(t, "the new PIN", tryLogin(t, s, p11.CKU_USER, "1357"), p11.CKR_OK)
		})
	}
}

// TestPINsAreTriedOneByOne tries many wrong PINs at once: no more than three are
// looked at.
func TestPINsAreTriedOneByOne(t *testing.T) {
	f, cfg := newSlowFormat(t)
	s := initialised(t, cfg)
	f.pins.Store(0)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := tryLogin(t, s, p11.CKU_USER, fmt.Sprint("999", i)); err == nil {
				t.Error("a wrong PIN is right")
			}
		})
	}
	wg.Wait()
	if n := f.pins.Load(); n != 3 {
		t.Errorf("%d PINs were looked at", n)
	}
	wantRV(t, "the right PIN", tryLogin(t, s, p11.CKU_USER, testUser), p11.CKR_PIN_LOCKED)
}
