package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"p11fs/p11"
)

// unloggedIn opens the token anew as after a restart of the machine: only the lines in the
// index tell of its private objects.
func (b *sharedToken) unloggedIn() {
	b.t.Helper()
	if err := b.s.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.cfg.Shared = &Shared{Dir: b.t.TempDir(), Name: "/segment"}
	b.s = openStore(b.t, b.cfg)
	b.seg = b.open()
}

// rewrite has a stock process write the index in place, as when it destroys an object,
// and pause after the first part of it.
func (b *sharedToken) rewrite(lines []byte, first int, pause time.Duration) (end func()) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.cfg.Dir, objectsDir, indexFile), os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.Write(lines[:first])
	}
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		time.Sleep(pause)
		_, err := f.Write(lines[first:])
		done <- err
	}()
	return func() {
		b.t.Helper()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		_ = f.Close()
	}
}

// TestIndexHalfWritten changes and reads the token while a stock process rewrites the
// index, without the lock: no object is lost, of those neither that only it tells of.
func TestIndexHalfWritten(t *testing.T) {
	for name, do := range map[string]func(b *sharedToken) (left []string){
		"refresh": func(b *sharedToken) []string {
			refresh(b.t, b.s)
			return []string{"a=1", "b=1", "x=1", "y=1"}
		},
		"create": func(b *sharedToken) []string {
			create(b.t, b.s, dataObject("c", "1", false))
			return []string{"a=1", "b=1", "x=1", "y=1", "c=1"}
		},
		"destroy": func(b *sharedToken) []string {
			if err := b.s.Destroy(b.t.Context(), labelled(b.t, b.s, "a"), allow); err != nil {
				b.t.Error(err)
			}
			return []string{"b=1", "x=1", "y=1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, first := range []int{0, 9, 13, 27} {
				b := newShared(t)
				b.unloggedIn()
				refresh(t, b.s)
				end := b.rewrite(readFile(t, b.cfg.Dir, objectsDir, indexFile), first, 5*time.Millisecond)
				want := do(b)
				end()
				b.now = b.now.Add(grace)
				refresh(t, b.s)
				l := login(t, b.s, p11.CKU_USER, testUser)
				if got := contents(t, b.s); !slices.Equal(got, want) {
					t.Errorf("after %d bytes there is %q, want %q", first, got, want)
				}
				_ = l.Close()
				if got := b.restart(); !slices.Equal(got, want) {
					t.Errorf("after %d bytes and a restart there is %q, want %q", first, got, want)
				}
			}
		})
	}
}
