package store

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/shm"
)

// TestMend has a stock process leave behind what it is known to leave behind
// (the numbers are those of the specification's defects).
func TestMend(t *testing.T) {
	all := []string{"a=1", "b=1", "x=1", "y=1"}
	tests := []struct {
		name  string
		spoil func(b *sharedToken)
		now   []string // what there is at once
		// The lists then; after a while; the lines after a while and a section.
		public, private           []int
		laterPublic, laterPrivate []int
		lines                     []int
	}{
		{"D3 lost lines", func(b *sharedToken) {
			writeFile(b.t, []byte(b.nameOf(1).String()+"\n"), b.cfg.Dir, objectsDir, indexFile)
		}, all, []int{0, 1}, []int{2, 3}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"D3 no index", func(b *sharedToken) { remove(b.t, b.cfg.Dir, objectsDir, indexFile) },
			all, []int{0, 1}, []int{2, 3}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"D4 lost entry", func(b *sharedToken) { b.seg.Remove(shm.Public, b.nameOf(0)) },
			all, []int{1}, []int{2, 3}, []int{1, 0}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"D4 lost private entry", func(b *sharedToken) { b.seg.Remove(shm.Private, b.nameOf(3)) },
			all, []int{0, 1}, []int{2}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"D5 private entry 0 cleared", func(b *sharedToken) {
			es := b.seg.Entries(shm.Private)
			es[0] = shm.Entry{}
			b.set(shm.Private, es)
		}, all, []int{0, 1}, []int{3}, []int{0, 1}, []int{3, 2}, []int{0, 1, 2, 3}},
		{"D6 duplicates", func(b *sharedToken) {
			b.set(shm.Public, append(b.seg.Entries(shm.Public), b.seg.Entries(shm.Public)...))
		}, all, []int{0, 1}, []int{2, 3}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"D7 ghost", func(b *sharedToken) { remove(b.t, b.cfg.Dir, objectsDir, b.nameOf(0).String()) },
			all[1:], []int{0, 1}, []int{2, 3}, []int{1}, []int{2, 3}, []int{1, 2, 3}},
		{"D7 ghost alone", func(b *sharedToken) {
			b.set(shm.Public, []shm.Entry{{Name: b.nameOf(0)}})
			writeFile(b.t, fmt.Appendf(nil, "%s\n%s\n", b.nameOf(2), b.nameOf(3)), b.cfg.Dir, objectsDir, indexFile)
			remove(b.t, b.cfg.Dir, objectsDir, b.nameOf(0).String())
			remove(b.t, b.cfg.Dir, objectsDir, b.nameOf(1).String())
		}, all[2:], []int{0}, []int{2, 3}, []int{0}, []int{2, 3}, []int{2, 3}},
		{"ghost without a line", func(b *sharedToken) {
			b.set(shm.Public, append(b.seg.Entries(shm.Public), shm.Entry{Name: parseName(t, "GHOST000")}))
		}, all, []int{0, 1, -1}, []int{2, 3}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"destroyed but for the entry", func(b *sharedToken) {
			writeFile(b.t, fmt.Appendf(nil, "%s\n%s\n%s\n", b.nameOf(1), b.nameOf(2), b.nameOf(3)), b.cfg.Dir, objectsDir, indexFile)
			remove(b.t, b.cfg.Dir, objectsDir, b.nameOf(0).String())
		}, all[1:], []int{0, 1}, []int{2, 3}, []int{1}, []int{2, 3}, []int{1, 2, 3}},
		{"in the other list", func(b *sharedToken) {
			es := b.seg.Entries(shm.Public)
			b.set(shm.Public, es[1:])
			b.set(shm.Private, append(b.seg.Entries(shm.Private), es[0]))
		}, all, []int{1, 0}, []int{2, 3}, []int{1, 0}, []int{2, 3}, []int{0, 1, 2, 3}},
		{"in both lists", func(b *sharedToken) {
			b.set(shm.Private, append(b.seg.Entries(shm.Private), b.seg.Entries(shm.Public)[0]))
		}, all, []int{0, 1}, []int{2, 3}, []int{0, 1}, []int{2, 3}, []int{0, 1, 2, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newShared(t)
			numbered := func(in []int) (out []int) {
				for _, n := range in {
					if n >= 0 {
						out = append(out, n)
					}
				}
				return out
			}
			tt.spoil(b)
			wantContents(t, "at once", b.s, tt.now...)
			if len(numbered(tt.public)) == len(tt.public) {
				b.wantLists("at once", tt.public, tt.private)
			}
			b.now = b.now.Add(grace)
			wantContents(t, "later", b.s, tt.now...)
			b.wantLists("later", tt.laterPublic, tt.laterPrivate)
			o := create(t, b.s, dataObject("z", "1", true))
			var lines []string
			for _, n := range tt.lines {
				lines = append(lines, b.nameOf(n).String())
			}
			lines = append(lines, o.Stored)
			slices.Sort(lines)
			got := slices.DeleteFunc(b.lines(), func(n string) bool {
				_, err := os.Stat(filepath.Join(b.cfg.Dir, objectsDir, n))
				return err != nil // a line without its file is no object
			})
			if d := cmp.Diff(lines, got); d != "" {
				t.Errorf("lines: %s", d)
			}
			if d := cmp.Diff(append(slices.Clone(tt.now), "z=1"), b.restart()); d != "" {
				t.Errorf("after a restart: %s", d)
			}
		})
	}
}

// TestMendResidue leaves a copy of a live entry beyond the count, which stock
// would take for one when it destroys an object twice.
func TestMendResidue(t *testing.T) {
	b := newShared(t)
	es := b.seg.Entries(shm.Public)
	b.set(shm.Public, append(slices.Clone(es), es[1]))
	// Stock lowers the count and leaves the entry.
	f, err := os.OpenFile(b.seg.Path(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{2}, 500); err != nil {
		t.Fatal(err)
	}
	create(t, b.s, dataObject("z", "1", true))
	raw := readFile(t, b.seg.Path())
	if n := bytes.Count(raw, []byte(b.nameOf(1).String())); n != 1 {
		t.Errorf("the name stands %d times in the segment", n)
	}
	b.wantLists("created", []int{0, 1}, []int{2, 3, 4})
}
