package store

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// bothFormats runs a test with a token in each format.
func bothFormats(t *testing.T, f func(t *testing.T, cfg Config)) {
	for name, of := range map[string]format.Format{"3.8": v38(t, "swtok"), "3.12": v312(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := freshConfig(t)
			cfg.Format = of
			f(t, cfg)
		})
	}
}

// TestNamesCannotBeTaken: who may write the directory takes the names that files could be
// written under with full directories, and everything is written all the same.
func TestNamesCannotBeTaken(t *testing.T) {
	t.Parallel()
	bothFormats(t, func(t *testing.T, cfg Config) {
		s := initialised(t, cfg)
		create(t, s, dataObject("old", "", false))
		for _, name := range []string{dataFile, soKeyFile, userKeyFile, nameKeyFile, countFile, objectsDir + "/" + indexFile, objectsDir + "/object"} {
			dir, file := filepath.Split(name)
			full := filepath.Join(cfg.Dir, dir, ".p11fs."+file, "full")
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, cfg)
		user := login(t, s, p11.CKU_USER, testUser)
		o := create(t, s, dataObject("new", "", true))
		if _, err := s.Update(t.Context(), o.Handle, relabel("changed")); err != nil {
			t.Error(err)
		}
		destroy(t, s, o)
		if _, err := s.NextCount(t.Context()); err != nil {
			t.Error(err)
		}
		_ = user.Close()
		for _, p := range []struct {
			user p11.UserType
			pin  string
		}{{p11.CKU_USER, testUser}, {p11.CKU_SO, testSO}} {
			r, err := tokens.RoleOf(p.user)
			if err != nil {
				t.Fatal(err)
			}
			wantRV(t, "a wrong PIN", tryLogin(t, s, p.user, "wrong"), p11.CKR_PIN_INCORRECT)
			d, err := cfg.Format.ParseFile(readFile(t, cfg.Dir, dataFile))
			if err != nil || d.Flags()&r.Counts() != r.CountLow {
				t.Errorf("%s: on the disk is %v after a wrong PIN (%v)", r.Title, d.Flags(), err)
			}
			if err := s.SetPIN(t.Context(), p.user, pin(t, p.pin), pin(t, otherPIN)); err != nil {
				t.Error(err)
			}
		}
		if err := s.InitToken(t.Context(), pin(t, otherPIN), "again"); err != nil {
			t.Error(err)
		}
	})
}

// TestSweep: what a killed process has left of its files goes, and nothing else.
func TestSweep(t *testing.T) {
	cfg := freshConfig(t)
	s := initialised(t, cfg)
	create(t, s, dataObject("old", "", false))
	if _, err := s.NextCount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var left, kept []string
	for _, dir := range []string{"", objectsDir + "/"} {
		left = append(left, dir+tempName(dataFile), dir+".p11fs.object", dir+".p11fs."+dataFile)
		kept = append(kept, dir+".p11fs.other", dir+"other", dir+tempName("directory")+"/", dir+".p11fs.0123456789abcdef")
	}
	for _, name := range append(left, kept...) {
		path := filepath.Join(cfg.Dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, cfg)
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(cfg.Dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range append(kept, nameKeyFile, countFile, soKeyFile) {
		if _, err := os.Lstat(filepath.Join(cfg.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	// Nor does anything stay behind that works.
	create(t, s, dataObject("new", "", false))
	wantRV(t, "a wrong PIN", tryLogin(t, s, p11.CKU_SO, "wrong"), p11.CKR_PIN_INCORRECT)
	for _, dir := range []string{"", objectsDir} {
		entries, err := os.ReadDir(filepath.Join(cfg.Dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if isTemp(e.Name()) && !e.IsDir() {
				t.Errorf("%s stays behind", e.Name())
			}
		}
	}
}

// A watchedFormat counts how many PINs are looked at.
type watchedFormat struct {
	format.Format
	looks *atomic.Int32
}

func (f watchedFormat) Recognize(b []byte) (format.Format, error) {
	_, err := f.Format.Recognize(b)
	return f, err
}

func (f watchedFormat) Open(ctx context.Context, u p11.UserType, pin *secret.Bytes, k format.Kept) (format.Opened, error) {
	f.looks.Add(1)
	return f.Format.Open(ctx, u, pin, k)
}

// A stuck kernel writes nothing, with an error, if it has one.
type stuck struct {
	linux
	err error
}

func (k *stuck) Create(dir int, name string, mode uint32, group int) (int, error) {
	if k.err != nil {
		return -1, k.err
	}
	return k.linux.Create(dir, name, mode, group)
}

func (k *stuck) Open(dir int, name string) (int, error) {
	if k.err != nil {
		return -1, k.err
	}
	return k.linux.Open(dir, name)
}

// TestUncountedPINsAreNotTried: whatever keeps the count of a PIN from the disk, no PIN is
// looked at, neither a right nor a wrong one, and none is counted: when it can be again, all
// tries are left.
func TestUncountedPINsAreNotTried(t *testing.T) {
	t.Parallel()
	fails := func(err error) func(*testing.T, Config, *stuck) func() {
		return func(_ *testing.T, _ Config, k *stuck) func() {
			k.err = err
			return func() { k.err = nil }
		}
	}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(*testing.T, Config, *stuck) (mend func()){
		"nothing can be written": fails(unix.EROFS),
		"not permitted":          fails(unix.EACCES),
		"immutable":              fails(unix.EPERM),
		"over quota, on a file system that writes nothing in place": fails(unix.EDQUOT),
		"a directory in the place": func(t *testing.T, cfg Config, _ *stuck) func() {
			file, aside := filepath.Join(cfg.Dir, dataFile), filepath.Join(cfg.Dir, "aside")
			must(t, os.Rename(file, aside))
			must(t, os.MkdirAll(filepath.Join(file, "full"), 0o700))
			return func() {
				must(t, os.RemoveAll(file))
				must(t, os.Rename(aside, file))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, shared := range []bool{false, true} {
				bothFormats(t, func(t *testing.T, cfg Config) {
					if shared {
						cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
					}
					k, looks := &stuck{}, new(atomic.Int32)
					cfg.kernel, cfg.Format = k, watchedFormat{cfg.Format, looks}
					s := initialised(t, cfg)
					mend := spoil(t, cfg, k)
					looks.Store(0)
					for user, right := range map[p11.UserType]string{p11.CKU_USER: testUser, p11.CKU_SO: testSO} {
						for range 4 {
							for _, text := range []string{right, "wrong"} {
								err := tryLogin(t, s, user, text)
								if rv := p11.RVOf(err); err == nil || rv == p11.CKR_PIN_INCORRECT || rv == p11.CKR_PIN_LOCKED {
									t.Fatalf("user %v, %s: %v", user, text, err)
								}
							}
						}
						if err := s.SetPIN(t.Context(), user, pin(t, "wrong"), pin(t, otherPIN)); err == nil || p11.RVOf(err) == p11.CKR_PIN_INCORRECT {
							t.Errorf("SetPIN: %v", err)
						}
					}
					if err := s.InitToken(t.Context(), pin(t, "wrong"), "label"); err == nil || p11.RVOf(err) == p11.CKR_PIN_INCORRECT {
						t.Errorf("InitToken: %v", err)
					}
					if n := looks.Load(); n != 0 {
						t.Errorf("%d PINs were looked at", n)
					}
					mend()
					for user, right := range map[p11.UserType]string{p11.CKU_USER: testUser, p11.CKU_SO: testSO} {
						r, err := tokens.RoleOf(user)
						must(t, err)
						if got := info(t, s).Flags & r.Counts(); got != 0 {
							t.Errorf("%s: %v are counted", r.Title, got)
						}
						wantRV(t, r.Title, tryLogin(t, s, user, right), p11.CKR_OK)
					}
				})
			}
		})
	}
}

// TestOtherNamesOfFiles: what is written in place is written into no file that has a name
// elsewhere, and objects are made and destroyed all the same.
func TestOtherNamesOfFiles(t *testing.T) {
	cfg := freshConfig(t)
	s := openStore(t, cfg)
	o := create(t, s, dataObject("a", "", false))
	index := filepath.Join(cfg.Dir, objectsDir, indexFile)
	for name, change := range map[string]func(){
		"made":      func() { create(t, s, dataObject("b", "", false)) },
		"destroyed": func() { destroy(t, s, o) },
	} {
		other := filepath.Join(t.TempDir(), "other")
		if err := os.Link(index, other); err != nil {
			t.Fatal(err)
		}
		was := readFile(t, other)
		change()
		if now := readFile(t, other); string(now) != string(was) {
			t.Errorf("%s: the other name has %q, and had %q", name, now, was)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	found, err := s.Find(t.Context(), nil, true)
	if err != nil || len(found) != 1 || labelOf(t, found[0]) != "b" {
		t.Errorf("objects %v (%v)", found, err)
	}
}
