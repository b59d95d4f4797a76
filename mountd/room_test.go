package mountd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/locks"
)

// TestRoom: who makes a token in vain leaves the directory as it was, and does so alone.
func TestRoom(t *testing.T) {
	t.Parallel()
	write := func(path ...string) {
		t.Helper()
		name := filepath.Join(path...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	names := func(dir string) (all []string) {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			all = append(all, e.Name())
		}
		return all
	}
	locked := t.TempDir()
	enter := func(dir string) *room {
		t.Helper()
		r, err := enterRoom(t.Context(), locked, dir, 0o700, locks.NoGroup)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	top := t.TempDir()
	dir, elsewhere := filepath.Join(top, "token"), filepath.Join(top, "elsewhere")
	write(elsewhere, "file")

	r := enter(dir)
	if _, err := enterRoom(t.Context(), locked, dir, 0o700, locks.NoGroup); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one comes in: %v", err)
	}
	write(dir, "card", "card.json")
	r.vain = true
	if err := r.leave(); err != nil {
		t.Fatal(err)
	}
	if got := names(top); !slices.Equal(got, []string{"elsewhere"}) {
		t.Errorf("a directory that was made in vain leaves %q", got)
	}

	write(dir, "mine")
	r = enter(dir)
	write(dir, "NVTOK.DAT")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	r.vain = true
	if err := r.leave(); err != nil {
		t.Fatal(err)
	}
	if got := names(dir); !slices.Equal(got, []string{"mine"}) || !slices.Equal(names(elsewhere), []string{"file"}) {
		t.Errorf("a directory that was there has %q, and a link's %q", got, names(elsewhere))
	}

	r = enter(dir)
	write(dir, "NVTOK.DAT")
	if err := r.leave(); err != nil || len(names(dir)) != 2 {
		t.Errorf("what is to stay: %q, %v", names(dir), err)
	}
}

// Who may write above the directory puts a link to another one in its place, before a token is
// made there or while it is: nothing is made or removed where the link leads.
func TestRoomSwapped(t *testing.T) {
	t.Parallel()
	top, locked := t.TempDir(), t.TempDir()
	dir, victim := filepath.Join(top, "token"), filepath.Join(top, "victim")
	precious := filepath.Join(victim, "precious")
	if err := errors.Join(os.Mkdir(victim, 0o700), os.WriteFile(precious, nil, 0o600), os.Symlink(victim, dir)); err != nil {
		t.Fatal(err)
	}
	if r, err := enterRoom(t.Context(), locked, dir, 0o700, locks.NoGroup); err == nil {
		t.Error("a token is made where a link leads", r.leave())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}

	r, err := enterRoom(t.Context(), locked, dir, 0o700, locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(top, "moved")
	made := filepath.Join(moved, "NVTOK.DAT")
	if err := errors.Join(os.Rename(dir, moved), os.WriteFile(made, nil, 0o600), os.Symlink(victim, dir)); err != nil {
		t.Fatal(err)
	}
	r.vain = true
	_ = r.leave() // of what is there now it may tell
	if _, err := os.Lstat(precious); err != nil {
		t.Error("what was in another directory is removed:", err)
	}
	if _, err := os.Lstat(made); !errors.Is(err, os.ErrNotExist) {
		t.Error("what was made stays:", err)
	}
}

// A pipe in the place of the directory is not waited for.
func TestRoomIsNoPipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syncBelow(pipe); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a pipe is written to the disk: %v", err)
	}
	if r, err := enterRoom(t.Context(), t.TempDir(), pipe, 0o700, locks.NoGroup); err == nil {
		t.Error("a token is made in a pipe", r.leave())
	}
}
