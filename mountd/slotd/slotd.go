package slotd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/shm"
)

const (
	// collectEvery is how often dead processes are looked for, as stock does.
	collectEvery = 10 * time.Second
	// sendTimeout bounds how long one client may take to read its reply.
	sendTimeout = 30 * time.Second
	// rivalPatience is how long a stock daemon that is seen at our start has to
	// end: one that came too late is refused by then.
	rivalPatience = time.Second
	rivalPoll     = 20 * time.Millisecond
	// maxClients bounds the clients that are being answered at once.
	maxClients = 128
)

// ErrSocket says that the slot socket could not be made.
var ErrSocket = errors.New("slot socket")

// ErrRunning says that a stock slot daemon serves already.
var ErrRunning = errors.New("a slot daemon is running")

// ErrLost says that stock clients do not come to the daemon any more.
var ErrLost = errors.New("stock programs do not reach this daemon")

// Config is what a Daemon is made of.
type Config struct {
	File    string // the pkcsslotd file that clients stat, for the segment's key
	Socket  string
	PIDFile string
	APILock *locks.Lock // its maker's to close, after the Daemon
	Group   int         // owns socket and segment; locks.NoGroup for the caller's own
	Slots   []config.Slot
	Log     *slog.Logger
	Now     func() time.Time
	// What a stock daemon in our place goes by, seen from its own root
	// directory: File and Socket; and the configuration that it reads when it
	// starts, seen from ours.
	StockFile, StockSocket, StockConf string
	// Proc is /proc, but for tests.
	Proc string
}

// A Daemon stands in for pkcsslotd. It is registered as a process itself.
type Daemon struct {
	conf     Config
	pid      int32
	boot     time.Time        // when the machine was started, by the clock at our start
	segment  *shm.SlotManager // used under the API lock, as closed is
	closed   bool
	listener *net.UnixListener
	reply    []byte
	refusal  *refusal // nil if it cannot be had

	// What clients find, as it was made: to tell whether it is still ours.
	key, segmentID int
	socket         os.FileInfo

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex     // guards sessions; the API lock is taken under it, never the other way round
	sessions map[int]uint32 // by slot: this process's, as they are to be in the segment

	refusing    sync.Mutex // guards unrefusable; nothing is locked under it
	unrefusable error      // why a stock daemon that starts is not refused
}

// Open takes the place of pkcsslotd and serves until Close.
func Open(ctx context.Context, c Config) (_ *Daemon, err error) {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	key, err := shm.Key(c.File)
	if err != nil {
		return nil, err
	}
	d := &Daemon{conf: c, pid: int32(os.Getpid()), reply: Reply(c.Slots), key: key, sessions: map[int]uint32{}}
	d.boot, _ = bootTime(c.Proc) // without one the clock is taken for unchanged
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	// In this order a rival is refused, or seen, or both.
	if d.refusal, err = refuse(c); err != nil {
		c.Log.Info("one that is started beside this daemon will take its place", "reason", err)
	}
	d.setUnrefusable(err)
	if err = d.alone(ctx); err != nil {
		return nil, err
	}
	err = d.locked(ctx, func() error {
		var kept bool
		if d.segment, kept, err = shm.CreateSlotManager(key, c.Group, d.anyAlive); err != nil {
			return err
		}
		if kept {
			c.Log.Info("kept the shared memory of the slot manager: processes use it", "processes", len(d.segment.Processes()))
		}
		d.segmentID = d.segment.ID()
		d.segment.Collect(d.alive)
		return d.segment.Register(d.pid, c.Now())
	})
	if err != nil {
		return nil, err
	}
	if d.listener, err = listen(c.Socket, c.Group); err != nil {
		return nil, err
	}
	if d.socket, err = os.Lstat(c.Socket); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	if err := os.WriteFile(c.PIDFile, []byte(strconv.Itoa(int(d.pid))), 0o644); err != nil {
		return nil, fmt.Errorf("pid file: %w", err)
	}
	if err := os.Chmod(c.PIDFile, 0o644); err != nil { // whatever the umask
		return nil, fmt.Errorf("pid file: %w", err)
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	d.wg.Add(2)
	go func(l *net.UnixListener) { defer d.wg.Done(); d.serve(serving, l) }(d.listener)
	go func() { defer d.wg.Done(); d.collectLoop(serving) }()
	return d, nil
}

// Close stops serving and gives everything back. The segment stays while other
// processes are registered: they go on with it, and with the next daemon.
func (d *Daemon) Close() (err error) {
	if d.cancel != nil {
		d.cancel()
	}
	if d.refusal != nil {
		defer func() { // last: one that starts meanwhile is refused
			err = errors.Join(err, d.refusal.close())
			d.refusal = nil
		}()
	}
	if d.listener != nil {
		// Not what a thief put in their place.
		if d.socketIsOurs() {
			err = errors.Join(err, os.Remove(d.conf.Socket))
		}
		err = errors.Join(err, d.listener.Close())
		d.listener = nil
		d.wg.Wait()
		if pid, e := os.ReadFile(d.conf.PIDFile); e == nil && string(pid) == strconv.Itoa(int(d.pid)) {
			err = errors.Join(err, os.Remove(d.conf.PIDFile))
		}
	}
	if d.segment == nil {
		return err
	}
	err = errors.Join(err, d.locked(context.Background(), func() (err error) {
		d.segment.Unregister(d.pid)
		d.segment.Collect(d.alive)
		if len(d.segment.Processes()) == 0 {
			err = d.segment.Remove()
		}
		d.closed = true
		return errors.Join(err, d.segment.Detach())
	}))
	d.segment = nil
	return err
}

// locked calls f under the API lock, or not at all after Close: our entry is
// freed then.
func (d *Daemon) locked(ctx context.Context, f func() error) (err error) {
	unlock, err := d.conf.APILock.Lock(ctx)
	if err != nil {
		return fmt.Errorf("API lock: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if d.closed {
		return nil
	}
	return f()
}

// listen binds the slot socket anew. Clients check that it is root's and the
// group's, not its mode.
func listen(path string, gid int) (_ *net.UnixListener, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if gid >= 0 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSocket, err)
		}
	}
	if err := os.Chmod(path, 0o770); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	l.SetUnlinkOnClose(false) // the daemon does it, if it is ours still
	return l, nil
}

// serve answers clients, each on a goroutine of its own: a slow one holds up
// nobody.
func (d *Daemon) serve(ctx context.Context, l *net.UnixListener) {
	tickets := make(chan struct{}, maxClients)
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.conf.Log.Warn("slot socket: cannot accept", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		tickets <- struct{}{}
		d.wg.Add(1)
		go func() {
			defer func() { <-tickets; d.wg.Done() }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			_ = c.SetWriteDeadline(d.conf.Now().Add(sendTimeout)) // without one the client's death ends it
			if _, err := c.Write(d.reply); err != nil {
				d.conf.Log.Info("slot socket: a client went away", "err", err)
			}
		}()
	}
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
		if err := d.Collect(ctx); err != nil && ctx.Err() == nil {
			d.conf.Log.Error("collection of dead processes", "err", err)
		}
		if d.refusal != nil {
			err := d.refusal.mark()
			if err != nil && d.Unrefusable() == nil {
				d.conf.Log.Warn("a stock slot daemon that is started from now on will take this one's place", "reason", err)
			}
			d.setUnrefusable(err)
		}
		err := d.Lost()
		if err != nil && !lost {
			d.conf.Log.Error("the door for the stock library is lost", "err", err)
		}
		lost = err != nil
	}
}

// Collect frees what dead processes hold in the segment, and puts our own entry
// right, which a stock process that lost its lock may have spoilt.
func (d *Daemon) Collect(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locked(ctx, func() error {
		for _, p := range d.segment.Collect(d.alive) {
			d.conf.Log.Info("freed the entry of a dead process", "pid", p.PID, "slots", len(p.Sessions))
		}
		return d.mendLocked()
	})
}

// mendLocked registers us again if our entry is gone, with our sessions.
func (d *Daemon) mendLocked() error {
	for _, p := range d.segment.Processes() {
		if p.PID == d.pid {
			return nil
		}
	}
	if err := d.segment.Register(d.pid, d.conf.Now()); err != nil {
		return err
	}
	for slot, n := range d.sessions {
		if err := d.segment.SetSessions(d.pid, slot, n); err != nil {
			return err
		}
	}
	return nil
}

// Opened counts a session of this process on slot.
func (d *Daemon) Opened(ctx context.Context, slot p11.SlotID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.locked(ctx, func() error { return d.segment.OpenSession(d.pid, int(slot)) })
	if err == nil {
		d.sessions[int(slot)]++
	}
	return err
}

// Closed takes one off.
func (d *Daemon) Closed(slot p11.SlotID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[int(slot)] > 0 {
		d.sessions[int(slot)]--
	}
	return d.locked(context.Background(), func() error { return d.segment.CloseSession(d.pid, int(slot)) })
}

// Others is the number of sessions of all other processes on slot.
func (d *Daemon) Others(ctx context.Context, slot p11.SlotID) (n uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.locked(ctx, func() error {
		// The collection of a process whose counters had grown too high can
		// leave less than our own.
		all := d.segment.Sessions(int(slot))
		n = uint64(max(all, d.sessions[int(slot)]) - d.sessions[int(slot)])
		return nil
	})
	return n, err
}

// SegmentSize is the size in bytes of the slot manager's segment.
const SegmentSize = shm.SlotManagerSize

// Stats is what the list of resources shows.
type Stats struct {
	Key       int
	ID        int
	Processes int
	Attached  int
	Socket    string
}

// Stats returns it as it stands now.
func (d *Daemon) Stats(ctx context.Context) (s Stats, err error) {
	key, err := shm.Key(d.conf.File)
	if err != nil {
		return s, err
	}
	err = d.locked(ctx, func() error {
		n, err := d.segment.Attached()
		s = Stats{Key: key, ID: d.segment.ID(), Processes: len(d.segment.Processes()), Attached: n, Socket: d.conf.Socket}
		return err
	})
	return s, err
}

func (d *Daemon) anyAlive(ps []shm.Process) bool {
	for _, p := range ps {
		if p.PID != d.pid && d.alive(p.PID, p.Registered) {
			return true
		}
	}
	return false
}

// alive says whether the process exists. A zombie does, as for stock: its
// entry goes when its parent has waited for it. One that began after it was
// registered is another process with the same number.
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
