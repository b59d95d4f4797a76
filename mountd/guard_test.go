package mountd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestGuard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK")
	release, err := takeGuard(t.Context(), path, "the store")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("refuses a second one, naming the first", func(t *testing.T) {
		_, err := takeGuard(t.Context(), path, "the store")
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d) serves the store", os.Getpid())) {
			t.Errorf("got %v, want ErrBusy with this process", err)
		}
	})
	t.Run("gives up when asked to", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := takeGuard(ctx, path, "the store"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was cancelled", err)
		}
	})
	t.Run("waits for one who ends", func(t *testing.T) {
		time.AfterFunc(200*time.Millisecond, func() { _ = release() })
		again, err := takeGuard(t.Context(), path, "the store")
		if err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Error(err)
		}
	})
	t.Run("takes files only", func(t *testing.T) {
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := takeGuard(t.Context(), fifo, "the store"); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("a FIFO: %v", err)
		}
	})
	t.Run("follows no link", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if _, err := takeGuard(t.Context(), link, "the store"); err == nil {
			t.Error("a symbolic link was locked")
		}
	})
}

func TestGuardDirectory(t *testing.T) {
	dir := t.TempDir()
	release, err := guardDirectory(t.Context(), dir, "serves")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guardDirectory(t.Context(), dir, "serves"); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := guardDirectory(t.Context(), file, "serves"); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// A guard that somebody removed lets no second daemon in.
func TestGuardRemoved(t *testing.T) {
	needFUSE(t)
	c := userConfig(tempDir(t))
	d, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.Paths.Guard); err != nil {
		t.Fatal(err)
	}
	again := c
	again.Paths.Mount = filepath.Join(filepath.Dir(c.Paths.Mount), "again")
	if other, err := New(t.Context(), again); !errors.Is(err, ErrBusy) {
		t.Errorf("a second daemon starts: %v", err)
		if err == nil {
			_ = other.Close()
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
