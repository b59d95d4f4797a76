package locks

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openTest(t *testing.T, path string, group int) *Lock {
	t.Helper()
	l, err := Open(path, group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func mustLock(t *testing.T, l *Lock) func() error {
	t.Helper()
	unlock, err := l.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func TestModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	tests := []struct {
		name      string
		group     int
		file, dir fs.FileMode
	}{
		{"group", os.Getgid(), 0o440, 0o770},
		{"no group", NoGroup, 0o400, 0o700},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "opencryptoki", "swtok", "LCK..swtok")
			openTest(t, path, tt.group)
			for p, want := range map[string]fs.FileMode{path: tt.file, filepath.Dir(path): tt.dir, filepath.Dir(filepath.Dir(path)): tt.dir} {
				fi, err := os.Stat(p)
				if err != nil {
					t.Fatal(err)
				}
				if got := fi.Mode().Perm(); got != want {
					t.Errorf("%s: mode %o, want %o", p, got, want)
				}
			}
			openTest(t, path, tt.group) // as it is
		})
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo, dir, filepath.Join(target, "below a file")} {
		if l, err := Open(path, NoGroup); err == nil {
			_ = l.Close()
			t.Errorf("Open(%s) succeeded", path)
		}
	}
}

func TestExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK..x")
	a := openTest(t, path, NoGroup)
	b := openTest(t, path, NoGroup)
	for name, other := range map[string]*Lock{"goroutine": a, "descriptor": b} {
		t.Run(name, func(t *testing.T) {
			unlock := mustLock(t, a)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
			defer cancel()
			if _, err := other.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("second Lock: %v", err)
			}
			if err := unlock(); err != nil {
				t.Fatal(err)
			}
			if err := mustLock(t, other)(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestOtherProcess has flock(1) hold the lock, as stock processes do.
func TestOtherProcess(t *testing.T) {
	flock, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("no flock(1)")
	}
	path := filepath.Join(t.TempDir(), "LCK..x")
	l := openTest(t, path, NoGroup)
	cmd := exec.Command(flock, path, "sh", "-c", "echo held; read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock while another process holds it: %v", err)
	}
	_ = in.Close()
	_ = cmd.Wait()
	if err := mustLock(t, l)(); err != nil {
		t.Error(err)
	}
}

func TestCounter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK..x")
	ls := []*Lock{openTest(t, path, NoGroup), openTest(t, path, NoGroup)}
	var wg sync.WaitGroup
	var n atomic.Int64 // atomic for the race detector only, which knows no flock
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				unlock, err := ls[i%2].Lock(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				n.Store(n.Load() + 1)
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n.Load() != 400 {
		t.Errorf("counted %d", n.Load())
	}
}

func TestRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK..x")
	l := openTest(t, path, NoGroup)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	unlock := mustLock(t, l)
	other := openTest(t, path, NoGroup)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := other.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the new file is not locked: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestEnded(t *testing.T) {
	t.Run("context", func(t *testing.T) {
		l := openTest(t, filepath.Join(t.TempDir(), "x"), NoGroup)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.Lock(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Lock: %v", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		l := openTest(t, filepath.Join(t.TempDir(), "x"), NoGroup)
		unlock := mustLock(t, l)
		waiting := make(chan error, 1)
		go func() {
			_, err := l.Lock(context.Background())
			waiting <- err
		}()
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }()
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("waiting Lock: %v", err)
		}
		select {
		case err := <-closed:
			t.Errorf("Close did not wait for the holder: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if err := unlock(); err != nil {
			t.Error(err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := unlock(); err != nil {
			t.Errorf("second unlock: %v", err)
		}
		if _, err := l.Lock(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("Lock after Close: %v", err)
		}
	})
}

// Callers that give up leave one thread, which gives back what it gets, or to
// the next caller.
func TestAbandonedWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LCK..x")
	l, other := openTest(t, path, NoGroup), openTest(t, path, NoGroup)
	giveUp := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		if _, err := l.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock: %v", err)
		}
	}
	before := runtime.NumGoroutine()
	for range 20 {
		unlock := mustLock(t, other)
		for range 10 {
			giveUp()
		}
		if n := runtime.NumGoroutine(); n > before+5 { // some of the runtime's come and go
			t.Errorf("%d goroutines wait", n-before)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		if err := mustLock(t, other)(); err != nil {
			t.Fatal(err)
		}
		if err := mustLock(t, l)(); err != nil {
			t.Fatal(err)
		}
	}
	unlock := mustLock(t, other)
	giveUp()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := mustLock(t, other)(); err != nil {
		t.Fatal(err)
	}
}

// TestPatience has a lock that another process does not give back waited for no longer than
// was said, and for as long as the caller says once nothing is said.
func TestPatience(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "x", "LCK..x")
	unlock := mustLock(t, openTest(t, path, NoGroup))
	l := openTest(t, path, NoGroup)
	l.SetPatience(10 * time.Millisecond)
	for range 2 {
		if _, err := l.Lock(t.Context()); !errors.Is(err, ErrHeld) {
			t.Fatalf("got %v", err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lock(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("of a caller who has gone: %v", err)
	}
	l.SetPatience(0)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = unlock()
	}()
	free, err := l.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := free(); err != nil {
		t.Error(err)
	}
}
