package slotd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/shm"
)

// hold starts a process that takes the API lock and is stopped then. release lets
// it go on, and end.
func (r *rig) hold(t *testing.T) (pid int, release func()) {
	t.Helper()
	c := exec.Command("flock", r.conf.APILock.Path(), "sh", "-c", "echo held; read line")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, errIn := c.StdinPipe()
	out, errOut := c.StdoutPipe()
	if err := errors.Join(errIn, errOut, c.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	group := -c.Process.Pid
	if err := unix.Kill(group, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	done := false
	release = func() {
		if done {
			return
		}
		done = true
		_ = in.Close()
		_ = unix.Kill(group, unix.SIGCONT)
		_ = c.Wait()
	}
	t.Cleanup(release)
	return c.Process.Pid, release
}

// within fails if f takes longer than limit.
func within(t *testing.T, limit time.Duration, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- f() }()
	select {
	case err := <-done:
		if took := time.Since(begin); took > limit {
			t.Errorf("%s took %v", what, took)
		}
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
		return nil
	}
}

// TestStoppedHolder: a stock process that is stopped while it holds the API lock
// keeps nobody waiting for long, and what it missed is told once it goes on.
func TestStoppedHolder(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("needs flock(1): apt-get install util-linux")
	}
	// What waits does so for wait, and nothing does so twice.
	const wait, soon = 2 * time.Second, 1900 * time.Millisecond
	ctx := context.Background()
	r := newRig(t)
	r.conf.lockWait = wait
	r.conf.Proc = "/proc" // for who holds the lock
	// The stock daemons of other tests, which see this one's directory, are no rivals.
	r.conf.StockFile, r.conf.StockSocket = "/usr/bin/env", "/nowhere/pkcsslotd.socket"
	d := r.open(t)
	client, err := shm.AttachSlotManager(d.key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Detach() }()
	// Somebody for whom the next daemon keeps the segment.
	if err := client.Register(int32(start(t, "sleep", "60").Process.Pid), time.Now()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := d.Opened(ctx, 3); err != nil {
			t.Fatal(err)
		}
	}

	pid, release := r.hold(t)
	err = within(t, wait+soon, "the first opening", func() error { return d.Opened(ctx, 3) })
	if !errors.Is(err, ErrHeld) || !errors.Is(err, p11.CKR_FUNCTION_FAILED) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("process %d", pid)) {
		t.Errorf("a session opens: %v, want that process %d holds the lock", err, pid)
	}
	if err := within(t, soon, "another opening", func() error { return d.Opened(ctx, 3) }); !errors.Is(err, ErrHeld) {
		t.Errorf("another session opens: %v", err)
	}
	for range 2 {
		if err := within(t, soon, "a closing", func() error { return d.Closed(3) }); err != nil {
			t.Errorf("a session closes: %v", err)
		}
	}
	if n, err := d.Others(ctx, 3); err != nil || n != 0 {
		t.Errorf("%d sessions of others, %v; want none", n, err)
	}
	if st, err := d.Stats(); err != nil || st.Attached == 0 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	if err := within(t, soon, "a collection", func() error { return d.Collect(ctx) }); !errors.Is(err, ErrHeld) {
		t.Errorf("a collection: %v", err)
	}

	release()
	if err := d.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if n := client.Sessions(3); n != 1 {
		t.Errorf("once the lock is free the others see %d sessions, want 1", n)
	}

	_, release = r.hold(t)
	err = within(t, soon, "the closing of many sessions", func() (err error) {
		for range 1000 {
			err = errors.Join(err, d.Closed(3))
		}
		return err
	})
	if err != nil {
		t.Errorf("many sessions close: %v", err)
	}
	if err := within(t, soon, "the end", d.Close); err != nil {
		t.Errorf("the daemon ends: %v", err)
	}
	err = within(t, wait+soon, "a start", func() error {
		_, err := Open(ctx, r.conf)
		return err
	})
	if !errors.Is(err, ErrHeld) {
		t.Errorf("a daemon starts: %v", err)
	}
	release()
	d = r.open(t)
	if n := client.Sessions(3); n != 0 {
		t.Errorf("the next daemon leaves %d sessions of the one before", n)
	}
}
