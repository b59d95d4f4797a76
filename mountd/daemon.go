package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"

	"p11fs/engine"
	"p11fs/engine/grants"
	"p11fs/engine/policy"
	"p11fs/fs"
	"p11fs/locks"
	"p11fs/mountd/mountpoint"
	"p11fs/mountd/profile"
	"p11fs/p11"
	"p11fs/tokens"
)

// ErrBusy is why a daemon does not start where another one serves.
var ErrBusy = errors.New("in use")

// Config says what a Daemon serves, and where.
type Config struct {
	Mode  Mode
	Paths Paths
	// ConfigRequired: Paths.Config must exist also in user mode.
	ConfigRequired bool
	// AllowOther lets users other than the owner reach the mount. A system
	// daemon always does.
	AllowOther bool
	// OpenToken lets who comes through the mount make, change and destroy public
	// token objects without a login.
	OpenToken bool
	// SeparateWrapping: see engine.Config.
	SeparateWrapping bool
	// TokenSize bounds the object files of a token that are loaded: tokens.Place's Room.
	TokenSize int64
	// Processors are how many the process has; 0 is one.
	Processors int
	// Hold are files of PINs, by the names of the tokens to which the daemon logs in when it
	// starts. It does so too to those of which the directory Credentials has one (systemd's
	// $CREDENTIALS_DIRECTORY; empty for none).
	Hold        map[string]string
	Credentials string
	// Reload has the daemon read the grants again each time that something comes. It may be
	// nil.
	Reload <-chan os.Signal
	// ProfileSocket is where profiles of the process can be had; empty for nowhere.
	ProfileSocket string
	// SlotDaemon has a system daemon be pkcsslotd before all: without the door
	// for the stock library it does not start. The tree is mounted only if the
	// mount point is a directory already, and whether that succeeds, and how
	// long the mount lasts, is no condition.
	SlotDaemon bool
	// TraceLevel is the value of OPENCRYPTOKI_TRACE_LEVEL: see openTrace. A
	// user's daemon has no trace.
	TraceLevel string
	// Kinds are the kinds of token that slots can have. The first is that of a
	// user's own token directories, but for those that are called as another.
	Kinds []tokens.Kind
	// Provider is what status and metrics say of the cryptographic library.
	Provider string

	Log *slog.Logger     // nil discards
	Now func() time.Time // nil is time.Now
	// Ready is called once, when the tree can be used. It may be nil.
	Ready func(Ready)

	startWait time.Duration // of tests; 0: startWait
}

// Ready is what a daemon says when it is ready.
type Ready struct {
	Mount  string   // absolute; empty: not mounted
	Tokens []string // names of the token folders
	Fresh  string   // of these the first that was never initialised; empty if there is none
	// The System V segment that stock processes use; 0 without the stock door.
	SegmentKey, SegmentID int
}

// Check finds what is wrong with c itself, before anything is touched.
func (c Config) Check() error {
	if len(c.Kinds) == 0 {
		return errors.New("there is no kind of token: this program was built wrongly")
	}
	if c.Paths.Mount == "" || c.Paths.Data == "" {
		return errors.New("no mount point, or no directory of tokens")
	}
	return nil
}

// A Daemon serves tokens until it is closed.
type Daemon struct {
	conf    Config
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	selfTested     atomic.Int64 // nanoseconds that the self-tests took that were passed
	selfTestFailed []string     // the tokens that did not pass theirs at the start

	lockWait  time.Duration // how long the start waits for the locks of all tokens
	lockUntil time.Time     // and when that is over

	slots  atomic.Pointer[[]*slot] // a list that never changes: see all
	policy *policy.Policy          // nil for none
	grants atomic.Pointer[grants.Set]
	fleets fleetMemory
	engine *engine.Engine
	tree   *fs.FS
	server *fs.Server
	watch  *mountpoint.Watch // of the mount; nil if it cannot be watched
	rpc    *rpcDoor
	stock  *stockDoor
	trace  *trace

	pid      int
	changing sync.Mutex // held while a token comes or goes; guards ended
	ended    bool       // none comes or goes any more

	closeOnce sync.Once
	closeErr  error
	undo      []func() error // gives back what was taken, last first
}

// Run serves until ctx ends, or the tree is unmounted by another. A signal to
// end is not an error.
func Run(ctx context.Context, c Config) error {
	d, err := New(ctx, c)
	if err != nil {
		return err
	}
	d.wait(ctx)
	notify(d.log, sddaemon.SdNotifyStopping)
	return d.Close()
}

// wait returns when ctx ends, or the tree is unmounted; a slot daemon goes on without
// the tree.
func (d *Daemon) wait(ctx context.Context) {
	var unmounted, gone <-chan struct{}
	if d.server != nil && !d.conf.SlotDaemon {
		unmounted, gone = d.server.Done(), d.watch.Gone()
	}
	for {
		select {
		case <-ctx.Done():
			d.log.Info("stopping")
		case <-unmounted:
			d.log.Info("unmounted; stopping")
		case <-gone:
			d.log.Info("unmounted; stopping, with a copy in another mount namespace or open files left")
		case <-d.conf.Reload:
			_ = d.takeGrants(ctx) // which says in the log what is wrong
			continue
		}
		return
	}
}

// New starts a daemon. When it returns, the tree can be used. ctx bounds the
// start only.
func New(ctx context.Context, c Config) (_ *Daemon, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	d := &Daemon{conf: c, log: c.Log, now: c.Now, pid: os.Getpid()}
	d.slots.Store(new([]*slot))
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.log = slog.New(newQuietHandler(d.log.Handler()))
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.openTrace(); err != nil {
		d.log.Error("no trace", "err", err)
	}
	d.started = d.now()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	uncollect := collectLarge() // from here on: what is loaded is large
	d.later(func() error { uncollect(); return nil })
	if d.conf.Paths.Mount, err = mountpoint.Resolve(c.Paths.Mount); err != nil {
		return nil, fmt.Errorf("the mount point: %w", err)
	}
	for _, step := range []func(context.Context) error{
		d.loadSlots, d.loadPolicy, d.prepareDirectories, d.guardStore, d.openProfiles, d.ifMounting(d.guardMount),
		d.openStock, d.openTokens, d.takeGrants, d.holdLogins, d.openRPC, d.ifMounting(d.mount), d.comeLater,
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	d.returnMemory()
	d.ready(ctx)
	return d, nil
}

// Close ends the daemon: see the package comment. It may be called again.
func (d *Daemon) Close() error {
	d.closeOnce.Do(func() {
		var errs []error
		for i := len(d.undo) - 1; i >= 0; i-- {
			errs = append(errs, d.undo[i]())
		}
		d.closeErr = errors.Join(errs...)
	})
	return d.closeErr
}

// later has f called by Close, before what was given earlier.
func (d *Daemon) later(f func() error) { d.undo = append(d.undo, f) }

// prepareDirectories makes what is absent.
func (d *Daemon) prepareDirectories(context.Context) error {
	p := d.conf.Paths
	group := d.group()
	mode := dirMode(d.conf.Mode)
	for _, dir := range []string{p.Data, p.Locks, p.Trace} { // stock processes put traces there
		if dir == "" {
			continue
		}
		if err := locks.MakeDirectory(dir, mode, group); err != nil {
			return err
		}
	}
	return nil
}

// dirMode is the mode of directories of tokens and locks.
func dirMode(m Mode) os.FileMode {
	if m == System {
		return 0o770
	}
	return 0o700
}

// ifMounting is the step if the tree is to be mounted. To a slot daemon the
// mount is extra: where the step fails it goes on without.
func (d *Daemon) ifMounting(step func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		path := d.conf.Paths.Mount
		if path == "" {
			return nil
		}
		if d.conf.SlotDaemon {
			if st, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || err == nil && !st.IsDir() {
				d.conf.Paths.Mount = ""
				return nil
			}
		}
		err := step(ctx)
		if err != nil && d.conf.SlotDaemon && ctx.Err() == nil {
			d.log.Error("the tree is not mounted", "mount", path, "err", err)
			d.conf.Paths.Mount = ""
			return nil
		}
		return err
	}
}

// guardStore locks the directory of tokens, and a file in which the process says who
// it is. The file alone would not do: everybody in the group may remove it.
func (d *Daemon) guardStore(ctx context.Context) error {
	release, err := takeGuard(ctx, d.conf.Paths.Guard, d.conf.Paths.Data)
	if err != nil {
		return err
	}
	d.later(release)
	if release, err = guardDirectory(ctx, d.conf.Paths.Data, "serves"); err != nil {
		return err
	}
	d.later(release)
	return nil
}

// guardMount clears a mount whose daemon has died, and locks the directory under
// the mount point, which is another inode than the root of the mount that comes to
// lie on it. So two daemons that start at the same moment with different stores do
// not mount on one another.
func (d *Daemon) guardMount(ctx context.Context) error {
	path := d.conf.Paths.Mount
	cleaned, err := mountpoint.Clean(ctx, path)
	if err != nil {
		return err
	}
	if cleaned > 0 {
		d.log.Warn("a daemon had died and left its mount; cleaned", "mount", path, "mounts", cleaned)
	}
	if err := checkFree(path); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if d.conf.Mode == System {
		mode = 0o755
	}
	if err := locks.MakeDirectory(path, mode, locks.NoGroup); err != nil {
		return fmt.Errorf("the mount point: %w", err)
	}
	release, err := guardDirectory(ctx, path, "is about to mount on")
	if err != nil {
		return err
	}
	d.later(release)
	// A daemon that mounted meanwhile held the lock of the directory below; what
	// is locked now is the root of its mount.
	if err := checkFree(path); err != nil {
		return err
	}
	if below, err := os.ReadDir(path); err == nil && len(below) > 0 {
		d.log.Warn("the mount point is not empty; what is in it is out of sight until the tree is unmounted", "mount", path, "entries", len(below))
	}
	return nil
}

// checkFree fails if a p11fs is mounted on path.
func checkFree(path string) error {
	state, err := mountpoint.Probe(path)
	if err != nil {
		return err
	}
	if state != mountpoint.Free {
		return fmt.Errorf("another p11fs is mounted on %s: %w", path, ErrBusy)
	}
	return nil
}

// openProfiles gives out profiles, if it is asked to: then a start without them fails.
func (d *Daemon) openProfiles(context.Context) error {
	path := d.conf.ProfileSocket
	if path == "" {
		return nil
	}
	s, err := profile.Listen(path, d.log)
	if err != nil {
		return fmt.Errorf("the socket of profiles: %w", err)
	}
	d.later(s.Close)
	d.log.Info("profiles for root and the daemon's user", "socket", path)
	return nil
}

// ready tells everybody who waits that the tree can be used.
func (d *Daemon) ready(ctx context.Context) {
	r := Ready{Mount: d.conf.Paths.Mount}
	for _, s := range d.present() {
		r.Tokens = append(r.Tokens, s.Place.Name)
		if info, err := s.token.Info(ctx); r.Fresh == "" && err == nil && info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			r.Fresh = s.Place.Name
		}
	}
	if d.sessionTable() != nil {
		if st, err := d.stock.daemon.Stats(); err == nil {
			r.SegmentKey, r.SegmentID = st.Key, st.ID
		}
	}
	if d.conf.Ready != nil {
		d.conf.Ready(r)
	}
	notify(d.log, fmt.Sprintf("%s\nSTATUS=%d tokens on %s", sddaemon.SdNotifyReady, len(r.Tokens), r.Mount))
	d.log.Debug("ready", "mount", r.Mount, "tokens", r.Tokens, "took", d.now().Sub(d.started))
}

// notify tells the service manager, if there is one.
func notify(log *slog.Logger, state string) {
	if _, err := sddaemon.SdNotify(false, state); err != nil {
		log.Warn("telling the service manager", "err", err)
	}
}
