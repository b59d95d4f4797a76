package slotd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/shm"
)

const (
	// collectEvery is how often dead processes are looked for, as stock does.
	collectEvery = 10 * time.Second
	// lockWait bounds how long the API lock is waited for. Stock processes hold
	// it for less than a millisecond, unless they were stopped; then the next
	// ones wait for heldWait only. At the end of the daemon everything waits for endWait
	// at most.
	lockWait = 5 * time.Second
	heldWait = 50 * time.Millisecond
	endWait  = 500 * time.Millisecond
)

// ErrHeld means that another process holds the API lock and does not give it back.
var ErrHeld = errors.New("another process holds the API lock")

// locked calls f under the API lock and d.mu, or not at all after Close: our
// entry is freed then. f gets the segment.
func (d *Daemon) locked(ctx context.Context, f func(*shm.SlotManager) error) (err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.segment == nil {
		return nil
	}
	return f(d.segment)
}

// lock takes the API lock, within bounds.
func (d *Daemon) lock(ctx context.Context) (unlock func() error, err error) {
	d.mu.Lock()
	held, wait := d.held, d.conf.lockWait
	d.mu.Unlock()
	switch {
	case held:
		wait = heldWait
	case d.ending.Load():
		wait = min(wait, endWait)
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	unlock, err = d.conf.APILock.Lock(bounded)
	inVain := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
	if err == nil || inVain {
		d.mu.Lock()
		d.held, d.untold = inVain, false
		d.mu.Unlock()
	}
	switch {
	case inVain:
		pid, _ := locks.Holder(d.conf.Proc, d.conf.APILock.Path()) // 0 is said too
		if !held {
			d.conf.Log.Warn("the API lock is not given back: sessions of stock programs and of this daemon are not counted together meanwhile", "pid", pid)
		}
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%w (process %d)", ErrHeld, pid)
	case err != nil:
		return nil, fmt.Errorf("API lock: %w", err)
	case held:
		d.conf.Log.Info("the API lock is free again")
	}
	return unlock, nil
}

// takeSegment finds or makes the segment, and registers this process in it.
func (d *Daemon) takeSegment(ctx context.Context) (err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	segment, kept, err := shm.CreateSlotManager(d.key, d.conf.Group, d.anyAlive)
	if err != nil {
		return err
	}
	if kept {
		d.conf.Log.Info("kept the shared memory of the slot manager: processes use it", "processes", len(segment.Processes()))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.segment, d.segmentID = segment, segment.ID()
	segment.Unregister(d.pid) // an earlier daemon's that had the same number
	segment.Collect(d.alive)
	return segment.Register(d.pid, d.conf.Now())
}

// leaveSegment frees our entry, and removes the segment unless others use it. If
// the API lock is not to be had, the next slot daemon frees what we leave.
func (d *Daemon) leaveSegment() error {
	d.mu.Lock()
	taken := d.segment != nil
	d.mu.Unlock()
	if !taken {
		return nil
	}
	err := d.locked(context.Background(), func(m *shm.SlotManager) (err error) {
		m.Unregister(d.pid)
		m.Collect(d.alive)
		if len(m.Processes()) == 0 {
			err = m.Remove()
		}
		return errors.Join(err, d.detachLocked())
	})
	if errors.Is(err, ErrHeld) {
		d.conf.Log.Warn("the entry of this daemon is left in the shared memory of the slot manager", "err", err)
		err = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.detachLocked())
}

// detachLocked ends all use of the segment. It may be called again.
func (d *Daemon) detachLocked() error {
	if d.segment == nil {
		return nil
	}
	err := d.segment.Detach()
	d.segment = nil
	return err
}

func (d *Daemon) collectLoop(ctx context.Context) {
	t := time.NewTicker(collectEvery)
	defer t.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := d.Collect(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrHeld) {
			d.conf.Log.Error("collection of dead processes", "err", err)
		}
		d.renewRefusal()
		err := d.Lost()
		if err != nil && !lost {
			d.conf.Log.Error("the door for the stock library is lost", "err", err)
		}
		lost = err != nil
	}
}

// renewRefusal guards a configuration that was put in the place of another.
func (d *Daemon) renewRefusal() {
	if d.refusal == nil {
		return
	}
	err := d.refusal.mark()
	if err != nil && d.Unrefusable() == nil {
		d.conf.Log.Warn("a stock slot daemon that is started from now on will take this one's place", "reason", err)
	}
	d.setUnrefusable(err)
}

// Collect frees what dead processes hold in the segment, and puts our own entry
// right, which a stock process that lost its lock may have spoilt.
func (d *Daemon) Collect(ctx context.Context) error {
	return d.locked(ctx, func(m *shm.SlotManager) error {
		for _, p := range m.Collect(d.alive) {
			d.conf.Log.Info("freed the entry of a dead process", "pid", p.PID, "slots", len(p.Sessions))
		}
		return d.tellLocked(m)
	})
}

// tellLocked makes our entry say how many sessions we have. The caller has the API
// lock, and d.mu.
func (d *Daemon) tellLocked(m *shm.SlotManager) error {
	if !m.Registered(d.pid) {
		if err := m.Register(d.pid, d.conf.Now()); err != nil {
			return err
		}
		clear(d.told)
	}
	for slot, n := range d.sessions {
		if d.told[slot] == n {
			continue
		}
		if err := m.SetSessions(d.pid, slot, n); err != nil {
			return err
		}
		d.told[slot] = n
	}
	return nil
}

// Opened counts a session of this process on slot, for all processes.
func (d *Daemon) Opened(ctx context.Context, slot p11.SlotID) error {
	d.count(slot, 1)
	err := d.locked(ctx, d.tellLocked)
	if err != nil {
		d.count(slot, -1)
	}
	return err
}

// Closed takes one off. That needs next to no waiting when the API lock is not to be had:
// the others hear of it when it is, with the next collection at the latest.
func (d *Daemon) Closed(slot p11.SlotID) error {
	d.count(slot, -1)
	d.mu.Lock()
	later := d.held || d.untold
	d.mu.Unlock()
	if later {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), heldWait)
	defer cancel()
	err := d.locked(ctx, d.tellLocked)
	if err != nil && (ctx.Err() != nil || errors.Is(err, ErrHeld)) {
		d.mu.Lock()
		d.untold = true // by thousands of sessions, perhaps
		d.mu.Unlock()
		return nil
	}
	return err
}

func (d *Daemon) count(slot p11.SlotID, more int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions[int(slot)] = uint32(max(0, int(d.sessions[int(slot)])+more))
}

// Others is the number of sessions of all other processes on slot. It reads one
// number, and so needs no API lock.
func (d *Daemon) Others(_ context.Context, slot p11.SlotID) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.segment == nil {
		return 0, nil
	}
	// The collection of a process whose counters had grown too high can leave
	// less than our own.
	all, own := d.segment.Sessions(int(slot)), d.told[int(slot)]
	return uint64(max(all, own) - own), nil
}

// Stats is what the list of resources shows.
type Stats struct {
	Key      int // of the segment
	ID       int
	Attached int // processes that have it mapped
}

// Stats returns it as it stands now.
func (d *Daemon) Stats() (Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.segment == nil {
		return Stats{}, ErrLost
	}
	n, err := d.segment.Attached()
	return Stats{Key: d.key, ID: d.segmentID, Attached: n}, err
}

func (d *Daemon) anyAlive(ps []shm.Process) bool {
	for _, p := range ps {
		if p.PID != d.pid && d.alive(p.PID, p.Registered) {
			return true
		}
	}
	return false
}

// alive reports whether the process exists. A zombie does, as for stock: its entry
// goes when its parent has waited for it. A process that began after the
// registration is another one with the same number.
func (d *Daemon) alive(pid int32, registered time.Time) bool {
	if pid <= 0 || errors.Is(unix.Kill(int(pid), 0), unix.ESRCH) {
		return false
	}
	if pid == d.pid {
		return true
	}
	started, err := processStart(d.conf.Proc, int(pid), d.boot)
	// A second either way: the start is known in clock ticks since boot, the
	// registration in whole seconds.
	return err != nil || !started.After(registered.Add(2*time.Second))
}
