package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
	"p11fs/tokens/store/storetest"
	"p11fs/tokens/tokentest/cuts"
)

// fakeLock is a token's lock within the test.
type fakeLock struct{ mu sync.Mutex }

func (l *fakeLock) Lock(ctx context.Context) (func() error, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	return sync.OnceValue(func() error { l.mu.Unlock(); return nil }), nil
}

// testLog writes into the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func config(t testing.TB, dir string) Config {
	return Config{
		Dir: dir, Format: testFormat(t), Lock: &fakeLock{}, Create: true, Group: NoGroup,
		Log: testLog(t), Now: time.Now,
	}
}

// openStore opens a store that is closed and checked at the end of the test.
func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if public, private := s.Index.Counts(); public != 0 || private != 0 {
			t.Errorf("a closed store knows %d public and %d private objects", public, private)
		}
	})
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return openStore(t, config(t, filepath.Join(t.TempDir(), "swtok")))
}

func pin(t testing.TB, text string) *secret.Bytes {
	t.Helper()
	b, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func login(t testing.TB, s *Store, u p11.UserType, text string) tokens.Login {
	t.Helper()
	l, err := s.Login(t.Context(), u, pin(t, text))
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	return l
}

const (
	firstSOPIN = "87654321" // of a new token
	testSO     = "76543210"
	testUser   = "2468"
)

// initialised returns a store with the PINs testSO and testUser.
func initialised(t testing.TB, cfg Config) *Store {
	t.Helper()
	s := openStore(t, cfg)
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.SetPIN(ctx, p11.CKU_SO, pin(t, firstSOPIN), pin(t, testSO)))
	check(s.InitToken(ctx, pin(t, testSO), "test token"))
	so := login(t, s, p11.CKU_SO, testSO)
	check(s.InitPIN(ctx, so, pin(t, testUser)))
	check(so.Close())
	return s
}

func wantRV(t testing.TB, what string, err error, want p11.RV) {
	t.Helper()
	if got := p11.RVOf(err); got != want {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

// dataObject is a complete data object.
func dataObject(label, value string, private bool) p11.Attributes {
	return cuts.Data(label, value, private)
}

func create(t testing.TB, s *Store, attrs p11.Attributes) *tokens.Object {
	t.Helper()
	o, err := s.Create(t.Context(), attrs)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// attributesOf copies the attributes of an object.
func attributesOf(t testing.TB, o *tokens.Object) p11.Attributes {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return a.Clone()
}

// contents lists the objects as "label=value", in their order.
func contents(t testing.TB, s *Store) []string { return cuts.Contents(t, s) }

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, b []byte, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenFresh(t *testing.T) {
	for _, kind := range []string{"swtok", "lite", "ep11tok", "ccatok"} {
		t.Run(kind, func(t *testing.T) {
			cfg := config(t, filepath.Join(t.TempDir(), "below", kind))
			cfg.Format = v38(t, kind)
			s := openStore(t, cfg)
			k, _ := format.KindOf(kind)
			i := info(t, s)
			if i.Label != k.Label || i.Model != k.Model || i.Flags != 0x880045 || i.MinPINLen != 4 || i.MaxPINLen != 8 || i.FreePublicMem != p11.Unavailable || len(i.UTCTime) != 16 {
				t.Errorf("info %+v", i)
			}
			if n := len(readFile(t, cfg.Dir, soKeyFile)); n != map[bool]int{false: 48, true: 88}[kind == "ccatok"] {
				t.Errorf("MK_SO has %d bytes", n)
			}
			so := login(t, s, p11.CKU_SO, firstSOPIN)
			if so.User() != p11.CKU_SO || so.Valid() != nil {
				t.Error("no SO login")
			}
			_, err := s.Login(t.Context(), p11.CKU_USER, pin(t, "1234"))
			wantRV(t, "user login", err, p11.CKR_USER_PIN_NOT_INITIALIZED)
			again, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			_ = again.Close()
		})
	}
}

// TestOpenRefuses opens directories that are no tokens of this format, and
// checks that not a byte in them changes.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  p11.RV
	}{
		{"larger", func(t *testing.T, dir string) {
			writeFile(t, append(readFile(t, dir, dataFile), make([]byte, 300)...), dir, dataFile)
		}, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"shorter", func(t *testing.T, dir string) { writeFile(t, make([]byte, 231), dir, dataFile) }, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"empty", func(t *testing.T, dir string) { writeFile(t, nil, dir, dataFile) }, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"next name", func(t *testing.T, dir string) {
			b := readFile(t, dir, dataFile)
			b[offNext] = 'a'
			writeFile(t, b, dir, dataFile)
		}, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"data lost", func(t *testing.T, dir string) { remove(t, dir, dataFile) }, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"data is a link", func(t *testing.T, dir string) {
			writeFile(t, readFile(t, dir, dataFile), dir, "other")
			remove(t, dir, dataFile)
			symlink(t, "other", dir, dataFile)
		}, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"data is a directory", func(t *testing.T, dir string) {
			remove(t, dir, dataFile)
			if err := os.Mkdir(filepath.Join(dir, dataFile), 0o700); err != nil {
				t.Fatal(err)
			}
		}, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"objects are a link", func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, objectsDir), filepath.Join(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			symlink(t, "elsewhere", dir, objectsDir)
		}, p11.CKR_DEVICE_ERROR},
		{"index is a link", func(t *testing.T, dir string) {
			remove(t, dir, objectsDir, indexFile)
			symlink(t, "IDX.TMP", dir, objectsDir, indexFile)
		}, p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"the directory is a link", func(t *testing.T, dir string) {
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			symlink(t, dir+".real", dir)
		}, p11.CKR_DEVICE_ERROR},
		{"the directory is a file", func(t *testing.T, dir string) {
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			writeFile(t, nil, dir)
		}, p11.CKR_DEVICE_ERROR},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // some wait for a stock process to end
			dir := storetest.Untar(t, "swtok")
			tt.spoil(t, dir)
			before := tree(t, filepath.Dir(dir))
			s, err := Open(t.Context(), config(t, dir))
			if err == nil {
				_ = s.Close()
			}
			wantRV(t, "open", err, tt.want)
			if after := tree(t, filepath.Dir(dir)); after != before {
				t.Errorf("the directory changed:\n%s\n%s", before, after)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		cfg := config(t, filepath.Join(t.TempDir(), "none"))
		cfg.Create = false
		_, err := Open(t.Context(), cfg)
		wantRV(t, "open", err, p11.CKR_TOKEN_NOT_PRESENT)
		if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), cfg)
		wantRV(t, "open empty", err, p11.CKR_TOKEN_NOT_PRESENT)
		if tree(t, cfg.Dir) != "" {
			t.Error("an empty directory was written to")
		}
	})
	t.Run("incomplete", func(t *testing.T) {
		_, err := Open(t.Context(), Config{Dir: t.TempDir(), Group: NoGroup})
		wantRV(t, "open", err, p11.CKR_ARGUMENTS_BAD)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Open(ctx, config(t, filepath.Join(t.TempDir(), "x")))
		wantRV(t, "open", err, p11.CKR_FUNCTION_CANCELED)
	})
}

// TestOpenWaits opens a token while a stock process has NVTOK.DAT truncated.
func TestOpenWaits(t *testing.T) {
	dir := storetest.Untar(t, "swtok")
	data := readFile(t, dir, dataFile)
	writeFile(t, nil, dir, dataFile)
	go func() {
		time.Sleep(30 * time.Millisecond)
		_ = os.WriteFile(filepath.Join(dir, dataFile), data, 0o600)
	}()
	if s := openStore(t, config(t, dir)); info(t, s).Label != "fixture token" {
		t.Errorf("%+v", info(t, s))
	}
}

func TestModesOfFiles(t *testing.T) {
	for _, group := range []int{NoGroup, os.Getgid()} {
		t.Run(fmt.Sprint(group), func(t *testing.T) {
			cfg := config(t, filepath.Join(t.TempDir(), "swtok"))
			cfg.Group = group
			s := initialised(t, cfg)
			create(t, s, dataObject("a", "b", false))
			file, dir := os.FileMode(0o660), os.FileMode(0o770)
			if group == NoGroup {
				file, dir = 0o600, 0o700
			}
			err := filepath.Walk(cfg.Dir, func(path string, fi os.FileInfo, err error) error {
				want := file
				if fi.IsDir() {
					want = dir
				}
				if fi.Mode().Perm() != want {
					t.Errorf("%s: mode %o, want %o", path, fi.Mode().Perm(), want)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClose(t *testing.T) {
	s := initialised(t, config(t, filepath.Join(t.TempDir(), "swtok")))
	l := login(t, s, p11.CKU_USER, testUser)
	o := create(t, s, dataObject("a", "b", true))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	wantRV(t, "Valid", l.Valid(), p11.CKR_USER_NOT_LOGGED_IN)
	_, err := o.Acquire()
	wantRV(t, "Acquire", err, p11.CKR_OBJECT_HANDLE_INVALID)
	wantRV(t, "Refresh", s.Refresh(t.Context()), p11.CKR_DEVICE_REMOVED)
	_, err = s.Create(t.Context(), dataObject("a", "b", false))
	wantRV(t, "Create", err, p11.CKR_DEVICE_REMOVED)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func remove(t *testing.T, path ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(path...)); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to string, path ...string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(path...)); err != nil {
		t.Fatal(err)
	}
}

// tree describes every file below dir, with its contents.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %v", rel, fi.Mode())
		if fi.Mode().IsRegular() {
			fmt.Fprintf(&b, " %x", readFile(t, path))
		}
		fmt.Fprintln(&b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func testTime() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }
