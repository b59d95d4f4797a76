package slotd

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/shm"
)

func gunzip(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReplyIsStock compares with what the stock daemon sent, every byte. It ran on
// a little-endian machine.
func TestReplyIsStock(t *testing.T) {
	multi, err := os.ReadFile("testdata/socket-multi-slot.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, conf := range map[string]string{
		"socket-one-slot.bin.gz":   "version opencryptoki-3.1\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n",
		"socket-multi-slot.bin.gz": string(multi),
	} {
		t.Run(name, func(t *testing.T) {
			file, _, err := config.Parse(name, conf)
			if err != nil {
				t.Fatal(err)
			}
			got, want := Reply(file.Slots), gunzip(t, name)
			if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
				for at := replySlots; at < len(want); at += slotSize {
					slices.Reverse(want[at : at+8])
					slices.Reverse(want[at+slotFlags : at+slotFlags+8])
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d bytes, want %d", len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("byte %d (slot %d, offset %d): %#x, want %#x", i, (i-replySlots)/slotSize, (i-replySlots)%slotSize, got[i], want[i])
				}
			}
		})
	}
}

type rig struct {
	conf Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	lock, err := locks.Open(filepath.Join(dir, "lock", "LCK..APIlock"), locks.NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "pkcsslotd")
	if err := os.WriteFile(file, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	// Also what a test that fails leaves with a process in it.
	t.Cleanup(func() { removeSegment(t, file) })
	proc := t.TempDir()
	if err := os.Symlink("/proc/stat", filepath.Join(proc, "stat")); err != nil {
		t.Fatal(err)
	}
	socket, conf := filepath.Join(dir, "run", "pkcsslotd.socket"), filepath.Join(dir, "etc", "opencryptoki.conf")
	for _, path := range []string{socket, conf} {
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(conf, []byte("slots\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return &rig{Config{
		File: file, Socket: socket, PIDFile: filepath.Join(dir, "pkcsslotd.pid"),
		StockFile: file, StockSocket: socket, StockConf: conf, Proc: proc,
		APILock: lock, Group: locks.NoGroup, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Slots: []config.Slot{{ID: 3, Library: "libpkcs11_sw.so", Description: "Linux", Manufacturer: "IBM"}},
	}}
}

// removeSegment removes the slot manager's segment, if there is one.
func removeSegment(t *testing.T, file string) {
	t.Helper()
	key, err := shm.Key(file)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := shm.SlotManagerID(key); err == nil {
		if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
			t.Error(err)
		}
	}
}

func (r *rig) open(t *testing.T) *Daemon {
	t.Helper()
	d, err := Open(context.Background(), r.conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestServe(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	// Those that go away at once, and one that does not read, harm nobody.
	for range 20 {
		c, err := net.Dial("unix", r.conf.Socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stuck, err := net.Dial("unix", r.conf.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	c, err := net.Dial("unix", r.conf.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, Reply(r.conf.Slots)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	pid, err := os.ReadFile(r.conf.PIDFile)
	if err != nil || string(pid) != strconv.Itoa(os.Getpid()) {
		t.Errorf("pid file %q, %v", pid, err)
	}
	if fi, err := os.Stat(r.conf.Socket); err != nil || fi.Mode().Perm() != 0o770 {
		t.Errorf("socket: %v, %v", fi.Mode(), err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{r.conf.PIDFile, r.conf.Socket} {
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", p, err)
		}
	}
	key, err := shm.Key(r.conf.File)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := shm.AttachSlotManager(key); err == nil {
		t.Errorf("the segment is left")
		_ = m.Detach()
	}
}

func TestSessions(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	d := r.open(t)
	key, err := shm.Key(r.conf.File)
	if err != nil {
		t.Fatal(err)
	}
	client, err := shm.AttachSlotManager(key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Detach() }()
	sleep := start(t, "sleep", "60")
	other := int32(sleep.Process.Pid)
	r.see(t, sleep.Process.Pid)
	if err := errors.Join(client.Register(other, time.Now()), client.SetSessions(other, 3, 1), d.Opened(ctx, 3), d.Opened(ctx, 3), d.Closed(3)); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Others(ctx, 3); err != nil || n != 1 || client.Sessions(3) != 2 {
		t.Errorf("%d sessions of others, %d in all, %v; want 1 of 2", n, client.Sessions(3), err)
	}
	if err := d.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(client.Processes()); n != 2 {
		t.Errorf("%d processes, want 2: a live one was collected", n)
	}
	outer := t
	t.Run("stop and start beside a live client", func(t *testing.T) {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if ps := client.Processes(); len(ps) != 1 || ps[0].PID != other || client.Sessions(3) != 1 {
			t.Errorf("after our end: %+v, %d sessions", ps, client.Sessions(3))
		}
		d = r.open(outer)
		if n, err := d.Others(ctx, 3); err != nil || n != 1 {
			t.Errorf("%d sessions, %v; want the client's", n, err)
		}
	})
	t.Run("our entry is lost", func(t *testing.T) {
		if err := d.Opened(ctx, 3); err != nil {
			t.Fatal(err)
		}
		client.Unregister(int32(os.Getpid()))
		if err := d.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		if n := client.Sessions(3); n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}
	})
	t.Run("the client dies", func(t *testing.T) {
		if err := sleep.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = sleep.Wait()
		if err := d.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		if ps := client.Processes(); len(ps) != 1 || client.Sessions(3) != 1 {
			t.Errorf("%+v, %d sessions", ps, client.Sessions(3))
		}
	})
}

func TestProcessStart(t *testing.T) {
	began, err := processStart("/proc", os.Getpid(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(began); age < -2*time.Second || age > time.Hour {
		t.Errorf("this process is %v old", age)
	}
}

// TestClockIsSet has somebody set the clock, with which the boot time in /proc goes:
// a client from before still lives, and a number given out again is still found out.
func TestClockIsSet(t *testing.T) {
	r := newRig(t)
	pid := start(t, program(t, "sleep", "client"), "60").Process.Pid
	r.see(t, pid)
	d := r.open(t)
	now := time.Now()
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		stat := fmt.Sprintf("btime %d\n", d.boot.Add(ahead).Unix())
		path := filepath.Join(r.conf.Proc, "stat")
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
		if !d.alive(int32(pid), now) {
			t.Errorf("%v ahead: a client that lives is taken for another process", ahead)
		}
		if ahead >= 0 && d.alive(int32(pid), now.Add(-time.Minute)) {
			t.Errorf("%v ahead: a process that began after the registration is taken for the client", ahead)
		}
	}
}
