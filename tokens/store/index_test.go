package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/store/format"
	"p11fs/tokens/store/storetest"
)

// TestStockNames works on a directory of stock 3.27, whose names are random, and
// whose name of the next object is NUL, or the first one.
func TestStockNames(t *testing.T) {
	for name, next := range map[string]string{"NUL": "\x00\x00\x00\x00\x00\x00\x00\x00", "first": "00000000"} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, storetest.Untar(t, "swold"))
			data := readFile(t, cfg.Dir, dataFile)
			copy(data[offNext:], next)
			writeFile(t, data, cfg.Dir, dataFile)
			stock := format.ParseIndex(readFile(t, cfg.Dir, objectsDir, indexFile)).Names
			if len(stock) != 14 {
				t.Fatalf("the fixture has %d objects", len(stock))
			}
			check := func(what string, s *Store, more int) (order []string) {
				t.Helper()
				os, err := s.Find(t.Context(), nil, true)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range os {
					order = append(order, o.Stored)
				}
				for _, n := range stock {
					if !slices.Contains(order, n.String()) {
						t.Errorf("%s: %s is gone", what, n)
					}
					if !slices.Contains(format.ParseIndex(readFile(t, cfg.Dir, objectsDir, indexFile)).Names, n) {
						t.Errorf("%s: %s is gone from the index", what, n)
					}
				}
				if len(order) != 14+more || len(damaged(s)) > 0 {
					t.Errorf("%s: %d objects, damaged %v", what, len(order), damaged(s))
				}
				return order
			}
			s := openStore(t, cfg)
			login(t, s, p11.CKU_USER, "12345678")
			check("opened", s, 0)
			for i := range 3 {
				o := create(t, s, dataObject("ours", "1", i%2 == 0))
				if i == 0 && o.Stored != "00000000" {
					t.Errorf("the first name is %s", o.Stored)
				}
				if _, err := s.Update(t.Context(), o.Handle, relabel("still ours")); err != nil {
					t.Fatal(err)
				}
				destroy(t, s, o)
			}
			create(t, s, dataObject("ours", "1", false))
			order := check("written", s, 1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, cfg)
			login(t, s, p11.CKU_USER, "12345678")
			if d := cmp.Diff(order, check("opened again", s, 1)); d != "" {
				t.Errorf("the order changed: %s", d)
			}
		})
	}
}

// TestUnknownLines keeps lines of the index that are no names: a file that is named
// otherwise may be an object for another program.
func TestUnknownLines(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			cfg := freshConfig(t)
			if shared {
				cfg.Shared = &Shared{Dir: t.TempDir(), Name: "/segment"}
			}
			_ = openStore(t, cfg).Close()
			const strange = "\x7f\x01ab#.tx"
			writeFile(t, nil, cfg.Dir, objectsDir, strange)
			idx := strange + "\nOBJECT-0\nlonger than a name\n"
			writeFile(t, []byte(idx), cfg.Dir, objectsDir, indexFile)
			s := openStore(t, cfg)
			keep := create(t, s, dataObject("a", "1", false))
			destroy(t, s, create(t, s, dataObject("b", "1", false)))
			double := append(readFile(t, cfg.Dir, objectsDir, indexFile), keep.Stored+"\n../x\n\n"+strings.Repeat("x", 300)+"\n"...)
			writeFile(t, double, cfg.Dir, objectsDir, indexFile)
			create(t, s, dataObject("c", "1", false))
			got := format.ParseIndex(readFile(t, cfg.Dir, objectsDir, indexFile))
			if d := cmp.Diff(strings.Split(strings.TrimSpace(idx), "\n"), got.Unknown); d != "" || !got.Clean || len(got.Names) != 2 {
				t.Errorf("index %+v: %s", got, d)
			}
			// Initialising the token takes everything away.
			if err := s.InitToken(t.Context(), pin(t, firstSOPIN), "x"); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(filepath.Join(cfg.Dir, objectsDir)); err != nil || len(left) != 1 {
				t.Errorf("left: %v (%v)", left, err)
			}
		})
	}
}

// A counting kernel counts the bytes written into OBJ.IDX and what replaces it.
type counting struct {
	linux
	index map[int]bool // descriptors
	bytes int
}

func (k *counting) note(fd int, name string, err error) (int, error) {
	k.index[fd] = err == nil && strings.HasSuffix(name, indexFile)
	return fd, err
}

func (k *counting) Create(dir int, name string, mode uint32, group int) (int, error) {
	fd, err := k.linux.Create(dir, name, mode, group)
	return k.note(fd, name, err)
}

func (k *counting) Extend(dir int, name string) (int, error) {
	fd, err := k.linux.Extend(dir, name)
	return k.note(fd, name, err)
}

func (k *counting) Open(dir int, name string) (int, error) {
	fd, err := k.linux.Open(dir, name)
	return k.note(fd, name, err)
}

func (k *counting) Write(fd int, b []byte) (int, error) {
	if k.index[fd] {
		k.bytes += len(b)
	}
	return k.linux.Write(fd, b)
}

func (k *counting) WriteAt(fd int, b []byte, at int64) (int, error) {
	if k.index[fd] {
		k.bytes += len(b)
	}
	return k.linux.WriteAt(fd, b, at)
}

// TestIndexOfManyObjects makes and destroys objects of a token that has very many:
// the index is written anew rarely, and does not grow.
func TestIndexOfManyObjects(t *testing.T) {
	t.Parallel()
	cfg := freshConfig(t)
	k := &counting{index: map[int]bool{}}
	cfg.kernel = k
	_ = openStore(t, cfg).Close()
	const lines, rounds, indexLine = 20_000, 2*maxMarked + 10, 9
	var names []format.Name
	for i := range lines {
		names = append(names, nth(1<<26+i))
	}
	for _, n := range names[:2] {
		file := objectFile(t, n, dataObject("kept", "1", false))
		writeFile(t, file, cfg.Dir, objectsDir, n.String())
	}
	writeFile(t, format.EditIndex(nil, nil, names...), cfg.Dir, objectsDir, indexFile)
	s := openStore(t, cfg)
	k.bytes = 0
	for range rounds {
		destroy(t, s, create(t, s, dataObject("x", "", false)))
	}
	idx := readFile(t, cfg.Dir, objectsDir, indexFile)
	// Writing it each time would be 2000 times the whole index.
	if max := 2*rounds*indexLine + 4*(lines+maxMarked)*indexLine; k.bytes > max {
		t.Errorf("%d bytes were written, more than %d", k.bytes, max)
	}
	if len(idx) > (lines+maxMarked+1)*indexLine {
		t.Errorf("the index has %d bytes", len(idx))
	}
	x := format.ParseIndex(idx)
	if !slices.Equal(x.Names, names) || !x.Clean {
		t.Error("lines are lost")
	}
	wantContents(t, "at the end", s, "kept=1", "kept=1")
}

func TestRecentNamesAreBounded(t *testing.T) {
	var r recentNames
	for i := range 3 * maxRecent {
		r.add(nth(i))
		r.add(nth(i))
	}
	if kept := len(r.now) + len(r.before); kept > 2*maxRecent || !r.has(nth(2*maxRecent)) || r.has(nth(0)) {
		t.Errorf("%d names are kept", kept)
	}
	for _, n := range []format.Name{nth(2*maxRecent - 1), nth(3*maxRecent - 1)} {
		if r.forget(n); r.has(n) {
			t.Error("a name is not forgotten")
		}
	}
}
