package fs

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/engine"
)

// Config is what an FS is made of.
type Config struct {
	Engine *engine.Engine
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // nil is time.Now

	// The texts of the files of the same name in the root. A nil one makes
	// the file empty. Status and Metrics are told whether root or the tree's owner
	// asks, who may see more.
	Status    func(owner bool) string
	Resources func() string
	Metrics   func(owner bool) string

	// Control does what a line written to the file ctl at the top says, for who is the owner of
	// the tree or root. Without it there is no such file.
	Control func(ctx context.Context, by engine.Owner, line string) error

	// Socket is where programs that load a PKCS#11 module connect, which a link in
	// the root tells; empty for none.
	Socket string

	// Store is the directory where the tokens are, for statfs(2); empty for none.
	Store string

	// UID and GID own the tree, except for session directories.
	UID, GID uint32
	// Private keeps the group out: the tree is its owner's alone.
	Private bool
	// OpenToken lets callers make, change and destroy public token objects without a
	// login, as PKCS#11 has it.
	OpenToken bool
}

// FS is the file tree over one engine.
type FS struct {
	config  Config
	callers *callers
	started time.Time
	inoKey  [24]byte
	ops     []operation   // never changes
	grace   time.Duration // interruptGrace, except in tests
	names   *recentNames
	root    *node    // once the tree is mounted
	tokens  sync.Map // *engine.Slot to the *entry of its folder
	life    context.Context
	end     context.CancelFunc // of life, and so of all requests

	requests requests
	renewing mutex // held while a name in data or certs gets an object

	panics      atomic.Uint64
	handles     atomic.Int64
	dirs        openDirs
	running     atomic.Int64 // requests at open files, but for those that wait
	ran         atomic.Uint64
	temporaries atomic.Uint64 // that were made, for their paths
	imports     sync.Map      // of each slot, the chan struct{} that whoever imports holds
}

// New returns the tree. Close ends it.
func New(c Config) (*FS, error) { return newFS(c, systemProcesses()) }

func newFS(c Config, system processes) (*FS, error) {
	if c.Engine == nil {
		return nil, fmt.Errorf("fs has no engine: set one in its configuration")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	f := &FS{config: c, ops: operations(), grace: interruptGrace, renewing: make(mutex, 1), names: newRecentNames()}
	if _, err := rand.Read(f.inoKey[:]); err != nil {
		return nil, fmt.Errorf("random numbers: %w", err)
	}
	f.life, f.end = context.WithCancel(context.Background())
	f.started = c.Now()
	f.callers = newCallers(c.Engine, system, !c.OpenToken)
	return f, nil
}

// Close ends the applications of all callers, and the requests that wait for something
// else. The engine stays open.
func (f *FS) Close() error {
	f.callers.close()
	f.end()
	return nil
}

// Stats counts what the tree holds, and what went wrong in it.
type Stats struct {
	Applications int    // callers with state
	Handles      int    // open files that hold state
	Running      int    // requests at open files that run, but for those that wait for others
	Requests     uint64 // that ran so far
	Panics       uint64 // requests that panicked, and were answered EIO
}

// Stats returns the counts as they stand now.
func (f *FS) Stats() Stats {
	return Stats{Applications: f.callers.count(), Handles: int(f.handles.Load()), Running: int(f.running.Load()), Requests: f.ran.Load(), Panics: f.panics.Load()}
}
