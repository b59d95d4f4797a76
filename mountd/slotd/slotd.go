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
	"sync/atomic"
	"time"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/shm"
)

const (
	// sendTimeout bounds how long one client may take to read its reply.
	sendTimeout = 30 * time.Second
	// rivalWait is how long a stock daemon that is seen at our start has to
	// end: one that came too late is refused by then.
	rivalWait = time.Second
	rivalPoll = 20 * time.Millisecond
	// maxClients bounds the clients whose reply does not fit the socket's buffer,
	// and who are waited for while they read. They have an eighth of the descriptors
	// at most, and one uid half of that.
	maxClients = 256
)

// ErrSocket is why the slot socket could not be made.
var ErrSocket = errors.New("slot socket")

// ErrRunning means that a stock slot daemon serves already.
var ErrRunning = errors.New("a slot daemon is running")

// ErrLost means that stock clients do not come to this daemon any more.
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
	// A stock daemon that would take our place is known by these: File and
	// Socket as it sees them below its own root directory, and the configuration
	// that it reads when it starts, as we see it.
	StockFile, StockSocket, StockConf string
	// Proc is /proc, but for tests.
	Proc string

	lockWait time.Duration // lockWait, but for tests
}

// A Daemon stands in for pkcsslotd. It is registered as a process itself.
type Daemon struct {
	conf     Config
	pid      int32
	boot     time.Time // when the machine was started, by the clock at our start
	listener *net.UnixListener
	reply    atomic.Pointer[[]byte]
	refusal  *refusal // nil if it cannot be had

	// The segment and the socket that were made: to see whether clients find them still.
	key, segmentID int
	socket         os.FileInfo

	cancel context.CancelFunc
	wg     sync.WaitGroup
	ending atomic.Bool // nothing waits for long any more

	// mu guards what follows. The API lock, where it is needed too, is taken
	// before it, and nothing is locked under it.
	mu       sync.Mutex
	segment  *shm.SlotManager // nil after Close; changed under the API lock only
	sessions map[int]uint32   // by slot: how many sessions this process has
	told     map[int]uint32   // what of them stands in the segment
	held     bool             // the last wait for the API lock was in vain
	untold   bool             // so was that of a session that closed

	refusing    sync.Mutex // guards unrefusable; nothing is locked under it
	unrefusable error      // why a stock daemon that starts is not refused
}

// Open takes the place of pkcsslotd and serves until Close.
func Open(ctx context.Context, c Config) (_ *Daemon, err error) {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.lockWait == 0 {
		c.lockWait = lockWait
	}
	key, err := shm.Key(c.File)
	if err != nil {
		return nil, err
	}
	d := &Daemon{conf: c, pid: int32(os.Getpid()), key: key, sessions: map[int]uint32{}, told: map[int]uint32{}}
	d.SetSlots(c.Slots)
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
	if err = d.takeSegment(ctx); err != nil {
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

// SetSlots has clients that come from now on get these slots. Those that have come keep what
// they got: they ask once.
func (d *Daemon) SetSlots(slots []config.Slot) {
	reply := Reply(slots)
	d.reply.Store(&reply)
}

// Close stops serving and gives everything back. The segment stays while other
// processes are registered: they go on with it, and with the next daemon.
func (d *Daemon) Close() (err error) {
	d.ending.Store(true)
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
		// Not what another daemon put in its place.
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
	return errors.Join(err, d.leaveSegment())
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

// serve answers clients. What fits the socket's buffer is sent at once; for the rest
// a client is waited for on a goroutine of its own, unless its uid, or all together,
// have too many of those: then it is closed. A slow one holds up nobody.
func (d *Daemon) serve(ctx context.Context, l *net.UnixListener) {
	waiting := newClients()
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
		rest, err := sendNow(c, *d.reply.Load())
		if len(rest) == 0 && err == nil {
			_ = c.Close() // it has its reply
			continue
		}
		uid, known := peerUID(c)
		if err != nil || !known || !waiting.enter(uid) {
			d.conf.Log.Info("slot socket: a client is not answered whole", "uid", uid, "err", err)
			_ = c.Close()
			continue
		}
		d.wg.Add(1)
		go func() {
			defer func() { waiting.leave(uid); d.wg.Done() }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			_ = c.SetWriteDeadline(d.conf.Now().Add(sendTimeout)) // without one the client's death ends it
			if _, err := c.Write(rest); err != nil {
				d.conf.Log.Info("slot socket: a client went away", "err", err)
			}
		}()
	}
}
