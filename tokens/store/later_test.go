package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"p11fs/p11"
)

// laterConfig is that of a token of n data objects, half of them private, which are read after
// it is open.
func laterConfig(t *testing.T, n int) Config {
	t.Helper()
	cfg := config(t, filepath.Join(t.TempDir(), "token"))
	s := initialised(t, cfg)
	l := login(t, s, p11.CKU_USER, testUser)
	for i := range n {
		create(t, s, dataObject(fmt.Sprint("object ", i), "x", i%2 == 0))
	}
	if err := errors.Join(l.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	cfg.laterSize = 1
	return cfg
}

// TestReadLater: who comes while the objects are read sees all of them, whatever it does first.
func TestReadLater(t *testing.T) {
	const n = 300
	cfg := laterConfig(t, n)
	counts := func(t *testing.T, s *Store, public, private int) {
		t.Helper()
		if a, b := s.Index.Counts(); a != public || b != private {
			t.Errorf("%d public objects and %d private ones, not %d and %d", a, b, public, private)
		}
	}
	t.Run("refresh", func(t *testing.T) {
		s := openStore(t, cfg)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				refresh(t, s)
				counts(t, s, n/2, 0)
			})
		}
		wg.Wait()
	})
	t.Run("login", func(t *testing.T) {
		s := openStore(t, cfg)
		login(t, s, p11.CKU_USER, testUser)
		counts(t, s, n/2, n/2)
	})
	t.Run("create and destroy", func(t *testing.T) {
		s := openStore(t, cfg)
		o := create(t, s, dataObject("new", "x", false))
		counts(t, s, n/2+1, 0)
		if err := s.Destroy(t.Context(), o.Handle, allow); err != nil {
			t.Error(err)
		}
		counts(t, s, n/2, 0)
	})
	t.Run("info", func(t *testing.T) {
		s := openStore(t, cfg)
		if i := info(t, s); i.Flags&p11.CKF_USER_PIN_INITIALIZED == 0 {
			t.Errorf("the token's flags are %#x", i.Flags)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Info(t.Context()); p11.RVOf(err) != p11.CKR_DEVICE_REMOVED {
			t.Errorf("a closed store tells of the token: %v", err)
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		s := openStore(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Refresh(ctx); err == nil { // all were read already
			counts(t, s, n/2, 0)
		}
		refresh(t, s)
		counts(t, s, n/2, 0)
	})
	t.Run("another process", func(t *testing.T) {
		s, other := openStore(t, cfg), openStore(t, cfg)
		o := create(t, other, dataObject("another's", "x", false))
		refresh(t, s)
		counts(t, s, n/2+1, 0)
		if err := s.Destroy(t.Context(), s.Index.ByName(o.Name).Handle, allow); err != nil {
			t.Error(err)
		}
		refresh(t, other)
		counts(t, other, n/2, 0)
	})
	t.Run("close", func(t *testing.T) {
		for range 20 { // which is somewhere in the reading
			s, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			counts(t, s, 0, 0)
		}
	})
}

// TestReadLaterFails: what cannot be read is told to whoever asks, until it can be. A damaged
// object and a file without a line are told of as ever.
func TestReadLaterFails(t *testing.T) {
	cfg := laterConfig(t, 4)
	index, aside := filepath.Join(cfg.Dir, objectsDir, indexFile), filepath.Join(t.TempDir(), indexFile)
	rename(t, index, aside)
	if err := os.Mkdir(index, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 { // a directory that is as large as an index
		if fi, err := os.Stat(index); err != nil || fi.Size() > cfg.laterSize {
			break
		}
		writeFile(t, nil, index, fmt.Sprint(i))
	}
	s := openStore(t, cfg)
	for range 2 {
		if err := s.Refresh(t.Context()); p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
			t.Errorf("an index that cannot be read: %v", err)
		}
	}
	if err := os.RemoveAll(index); err != nil {
		t.Fatal(err)
	}
	rename(t, aside, index)
	files := objectFiles(t, cfg.Dir)
	writeFile(t, []byte("no object"), cfg.Dir, objectsDir, files[0])
	refresh(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	writeFile(t, readFile(t, cfg.Dir, objectsDir, files[1]), cfg.Dir, objectsDir, nth(30000).String())
	s = openStore(t, cfg)
	refresh(t, s)
	login(t, s, p11.CKU_USER, testUser)
	if public, private := s.Index.Counts(); public+private != 3 || len(damaged(s)) != 1 || len(s.unlisted) != 1 {
		t.Errorf("%d objects, %d damaged, %d files without a line", public+private, len(damaged(s)), len(s.unlisted))
	}
}
