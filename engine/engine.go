package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"

	"p11fs/engine/grants"
	"p11fs/engine/policy"
	"p11fs/p11"
	"p11fs/tokens"
)

// treeDegree is the branching of the engine's trees: nodes of a few cache
// lines.
const treeDegree = 16

// Config is what an Engine is made of.
type Config struct {
	Slots  []SlotConfig
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // nil is time.Now
	Limits Limits
	// PINDelay is how long a uid waits after a wrong PIN before the next one is
	// tried; each further one doubles it, three times at most. 0: it does not wait.
	PINDelay time.Duration
	// SeparateWrapping has no key both wrap or unwrap others and encrypt or decrypt
	// data, and unwraps no key into one whose value can be read: see separate.go.
	SeparateWrapping bool
	// Policy is which mechanisms and keys may be used; nil allows all.
	Policy *policy.Policy
	// Table counts sessions over all processes; nil where no other process
	// shares the tokens.
	Table SessionTable
	// Processors are how many there are for work; 0 is one.
	Processors int
	// Times are how long the threads of this process have run, and waited for a processor,
	// in all; nil: it has all that the machine has.
	Times func() (ran, waited time.Duration)
}

// A SessionTable is where the processes that share tokens tell each other of
// their sessions. The engine holds none of its locks while it calls it.
type SessionTable interface {
	// Opened and Closed say that the engine has one session more or less.
	Opened(context.Context, p11.SlotID) error
	Closed(p11.SlotID) error
	// Others is the number of sessions of all other processes.
	Others(context.Context, p11.SlotID) (uint64, error)
}

// SlotConfig is one slot. A slot with a nil Token is empty.
type SlotConfig struct {
	ID           p11.SlotID
	Description  string
	Manufacturer string
	Hardware     p11.Version
	Firmware     p11.Version
	Token        tokens.Token
}

// An Engine holds slots and the applications that use them. Its methods, and
// those of everything it hands out, may be called by several goroutines at once.
type Engine struct {
	log      *slog.Logger
	now      func() time.Time
	limits   Limits
	pinDelay time.Duration
	table    SessionTable
	slots    atomic.Pointer[[]*Slot] // a list that never changes: another takes its place
	serials  atomic.Uint64           // of slots
	adding   sync.Mutex              // held while another list takes the place of slots, and no other lock is taken
	watchers watchers
	rules    *rules
	policy   *policy.Policy // nil allows all
	grants   atomic.Pointer[grants.Set]
	quota    quota
	turns    *turns
	longs    *longs
	held     atomic.Int64 // bytes in all accounts

	// Counters for Stats, kept where things are made and ended.
	sessions       atomic.Int64
	sessionObjects [2]atomic.Int64 // public ones, and private ones
	operations     atomic.Int64

	mu      sync.Mutex                  // guards all below; 6th in the order of doc.go
	closed  bool                        //
	lastApp uint64                      // the newest application's number
	apps    *btree.BTreeG[*Application] // by number
}

// New returns an engine for the slots of c. It does no I/O.
func New(c Config) (*Engine, error) {
	e := &Engine{
		log:      c.Log,
		now:      c.Now,
		limits:   c.Limits.withDefaults(),
		pinDelay: c.PINDelay,
		policy:   c.Policy,
		rules:    newRules(),
		table:    c.Table,
		turns:    newTurns(max(1, c.Processors), c.Times),
		longs:    newLongs(max(1, c.Processors)),
		apps:     btree.NewG(treeDegree, func(a, b *Application) bool { return a.number < b.number }),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.rules.separate = c.SeparateWrapping
	e.quota.users = make(map[uint32]*usage)
	e.quota.accounts = make(map[uint32]*Account)
	e.slots.Store(new([]*Slot))
	for _, sc := range c.Slots {
		if _, err := e.add(sc); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Close ends all applications. The tokens stay open: they belong to whoever
// opened them.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	for _, a := range e.applications() {
		a.Close()
	}
	for _, s := range e.list() {
		s.Release("the daemon ends")
		s.hearNoMore()
	}
	return nil
}

// Slots returns the slots in the order of the configuration, and behind them those that came
// later.
func (e *Engine) Slots() []*Slot { return slices.Clone(e.list()) }

// list is Slots, not to be changed.
func (e *Engine) list() []*Slot { return *e.slots.Load() }

// Slot returns the slot with that number, or CKR_SLOT_ID_INVALID.
func (e *Engine) Slot(id p11.SlotID) (*Slot, error) {
	for _, s := range e.list() {
		if s.id == id {
			return s, nil
		}
	}
	return nil, p11.Errorf(p11.CKR_SLOT_ID_INVALID, "there is no slot %d", uint64(id))
}

// SlotNamed returns the slot whose token has that name, or CKR_SLOT_ID_INVALID.
func (e *Engine) SlotNamed(name string) (*Slot, error) {
	for _, s := range e.list() {
		if s.token != nil && s.token.Name() == name {
			return s, nil
		}
	}
	return nil, p11.Errorf(p11.CKR_SLOT_ID_INVALID, "there is no token %q", name)
}

// NewApplication returns a new application of owner: one per uid and POSIX
// session, or per connection. d are the defaults of keys that it makes. Whoever made it calls Close. On a closed engine
// it can open no session.
func (e *Engine) NewApplication(owner Owner, d Defaults) *Application {
	a := newApplication(e, owner, d)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		a.closed = true
		return a
	}
	e.lastApp++
	a.number = e.lastApp
	e.apps.ReplaceOrInsert(a)
	return a
}

func (e *Engine) forget(a *Application) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.apps.Delete(a)
}

// maxHolders is how many applications logHolders names.
const maxHolders = 8

// logHolders says in the log whose sessions keep the slot's token from being initialised.
// Who is refused is not to know of others.
func (e *Engine) logHolders(ctx context.Context, slot *Slot, refused Owner) {
	var holders []string
	for _, a := range e.applications() {
		n := len(a.Sessions(slot))
		if n == 0 {
			continue
		}
		if len(holders) == maxHolders {
			holders = append(holders, "and more")
			break
		}
		o := a.Owner()
		holders = append(holders, fmt.Sprintf("%d of %s %q, uid %d, pid %d", n, o.Door, o.Command, o.UID, o.PID))
	}
	if n, err := slot.othersSessions(ctx); err == nil && n > 0 {
		holders = append(holders, fmt.Sprintf("%d of other processes that share the token", n))
	}
	e.log.Info("token not initialised: there are sessions", "token", slot.Name(), "uid", refused.UID, "pid", refused.PID, "sessions", holders)
}

// Stats counts what the engine holds, for whoever runs it: it counts private
// objects, too, as long as anyone's login has opened them.
type Stats struct {
	Applications   int
	Sessions       int // tree of sessions
	SessionObjects int // trees of session objects
	PublicObjects  int // trees of public token objects
	PrivateObjects int // trees of private token objects
	Handles        int // object handles that name something
	Operations     int // operations in progress
	Bytes          int // in all accounts
	// PrivateSessionObjects are those of SessionObjects that are private.
	PrivateSessionObjects int
}

// Shown returns the counts of session objects and of handles that everybody may know.
func (s Stats) Shown() (sessionObjects, handles int) {
	return s.SessionObjects - s.PrivateSessionObjects, s.Handles - s.PrivateObjects - s.PrivateSessionObjects
}

// Stats returns the counts as they stand now.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	apps := e.apps.Len()
	e.mu.Unlock()
	st := Stats{
		Applications:          apps,
		Sessions:              int(e.sessions.Load()),
		SessionObjects:        int(e.sessionObjects[0].Load()),
		PrivateSessionObjects: int(e.sessionObjects[1].Load()),
		Operations:            int(e.operations.Load()),
		Bytes:                 int(e.held.Load()),
	}
	st.SessionObjects += st.PrivateSessionObjects
	for _, s := range e.list() {
		st.Handles += s.handles.len()
		if s.token == nil {
			continue
		}
		public, private := s.token.Counts()
		st.PublicObjects += public
		st.PrivateObjects += private
	}
	st.Handles += st.PublicObjects + st.PrivateObjects
	return st
}
