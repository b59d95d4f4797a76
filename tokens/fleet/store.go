package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/fleet/seal"
	"p11fs/tokens/store/format"
)

// Config says which token a Store keeps, and how. All fields but Create, Room, Rand and Contact
// must be set.
type Config struct {
	Client *clientv3.Client // the Store does not close it
	Prefix string           // of the token's keys, with the slash that it ends in
	Key    *seal.Key        // the fleet's, which the Store does not close
	Format format.Format    // of the objects, whose names are numbers
	// Create makes a token if there is none.
	Create bool
	// Room bounds the objects that are loaded, in bytes, as tokens.Place has it.
	Room int64
	// Contact keeps the machine in contact with the others; nil is a Store that nobody waits for,
	// and that waits for nobody.
	Contact Contact

	Log  *slog.Logger
	Now  func() time.Time
	Rand io.Reader // nil is the system's

	times times // the usual ones but in tests
}

func (c Config) withRandom() Config {
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return c
}

// A Contact knows whether this machine hears what the others change, and whether they have
// heard of what it has.
type Contact interface {
	// Seen says that the index has all changes up to a revision of etcd.
	Seen(rev int64)
	// Again is closed when the changes must be watched anew, from the last revision that was seen.
	Again() <-chan struct{}
	// Settle waits until each other machine has all changes up to a revision, or has no right
	// any more to use keys.
	Settle(ctx context.Context, rev int64) error
	// Alive returns nil, or why keys must not be used now. It does not wait.
	Alive() error
}

// alone is the Contact of a Store that nobody waits for.
type alone struct{}

func (alone) Seen(int64)                          {}
func (alone) Again() <-chan struct{}              { return nil }
func (alone) Settle(context.Context, int64) error { return nil }
func (alone) Alive() error                        { return nil }

// A Store is a token of the fleet, open on this machine. It implements tokens.Storage.
type Store struct {
	tokens.Lookup // of the objects that are known

	cfg      Config
	who      [8]byte                    // this Store among the writers
	changing chan struct{}              // has room for one: who makes a change, and sets number
	trying   chan struct{}              // has room for one: who tries a PIN
	number   uint64                     // of the last change that was sent
	kick     chan struct{}              // asks the follower to load all anew
	stop     func()                     // ends the follower
	stopped  chan struct{}              // closed when the follower has ended
	counter  struct{ next, end uint64 } // guarded by changing

	showing sync.Mutex // held until who logs in sees the private objects; comes before mu
	mu      sync.Mutex // guards all below; the index and objects are locked under it
	closed  bool
	record  *record       // never changed once it is here
	rev     int64         // of etcd, at which the record was written: all up to it is here
	moved   chan struct{} // closed when rev becomes another one
	objects map[format.Name]*object
	size    int64    // of objects
	sum     [32]byte // of their tags
	said    int      // lines in the log about them since they were loaded
	cut     bool     // there are some for which there is no room
	logins  *tokens.Logins
	lost    error                 // why the follower hears nothing now
	broken  error                 // why what is in etcd cannot be the token
	wrong   string                // what is not there as the fleet wrote it
	foreign int                   // keys that are no objects
	trials  map[[8]byte]time.Time // when others' trials were first seen
}

var (
	_ tokens.Storage      = (*Store)(nil)
	_ tokens.BatchCreator = (*Store)(nil)
	_ tokens.Dater        = (*Store)(nil)
	_ tokens.Counter      = (*Store)(nil)
	_ tokens.PINStamper   = (*Store)(nil)
	_ tokens.Inspector    = (*Store)(nil)
	_ tokens.Offliner     = (*Store)(nil)
)

// An object is what is known of one object's key.
type object struct {
	version uint64
	tag     [32]byte
	private bool
	stored  stored           // of a private object
	size    int64            // what it takes of the room
	handle  p11.ObjectHandle // 0: not in the index
	bad     error            // why it is none; the rest is empty then
}

// newStore is a Store that is not open.
func newStore(cfg Config) *Store {
	cfg = cfg.withRandom()
	if cfg.Room == 0 {
		cfg.Room = tokens.DefaultRoom
	}
	if cfg.times == (times{}) {
		cfg.times = usualTimes()
	}
	if cfg.Contact == nil {
		cfg.Contact = alone{}
	}
	s := &Store{
		Lookup: tokens.Lookup{Index: tokens.NewIndex()}, cfg: cfg, who: newNumber(),
		changing: make(chan struct{}, 1), trying: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		stopped: make(chan struct{}), moved: make(chan struct{}),
		objects: make(map[format.Name]*object), trials: make(map[[8]byte]time.Time),
	}
	s.logins = tokens.NewLogins(&s.mu, s.validLocked, s.endedLocked)
	return s
}

// Open opens the token, with all its public objects.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s := newStore(cfg)
	cfg = s.cfg
	loaded, err := s.loadFirst(ctx)
	if errors.Is(err, errAbsent) && cfg.Create {
		if err = s.create(ctx); err == nil {
			loaded, err = s.loadFirst(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	follow, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.stopped)
		s.follow(follow, loaded)
	}()
	return s, nil
}

// loadFirst is load, again and again for as long as etcd may be electing a leader.
func (s *Store) loadFirst(ctx context.Context) (rev int64, err error) {
	end := time.Now().Add(s.cfg.times.change)
	for {
		if rev, err = s.load(ctx); err == nil || s.record != nil || final(err) || time.Now().After(end) || ctx.Err() != nil {
			return rev, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// create makes a token that was never initialised, unless another machine has made one
// meanwhile.
func (s *Store) create(ctx context.Context) error {
	d, soKey, err := s.cfg.Format.NewToken(ctx)
	if err != nil {
		return err
	}
	r := &record{ID: newID(), Data: d}
	r.Keys[0] = soKey
	if r.NameKey, err = s.newNameKey(); err != nil {
		return err
	}
	return s.plant(ctx, r)
}

func (s *Store) newNameKey() ([]byte, error) {
	k := make([]byte, nameKeySize)
	if _, err := io.ReadFull(s.cfg.Rand, k); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "a key for names: %w", err)
	}
	return k, nil
}

const nameKeySize = 32

// plant makes a token of a record, unless there is one.
func (s *Store) plant(ctx context.Context, r *record) error {
	r.Count = 1
	op, err := s.putRecord(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.times.answer)
	defer cancel()
	_, err = s.cfg.Client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(s.recordKey()), "=", 0)).Then(op).Commit()
	return s.trouble("make the token", err)
}

func (s *Store) recordKey() string { return s.cfg.Prefix + "token" }

// all is what the keys of objects begin with, and of what a restore has left.
func (s *Store) all() string { return s.cfg.Prefix + "o/" }

// objectKey is the key of an object of the token with that ID.
func (s *Store) objectKey(id [16]byte, n format.Name) string { return s.objectsOf(id) + n.String() }

// objectsOf is what those of the token with that ID begin with.
func (s *Store) objectsOf(id [16]byte) string { return s.all() + hex.EncodeToString(id[:8]) + "/" }

// putRecord is the writing of a record.
func (s *Store) putRecord(r *record) (op clientv3.Op, err error) {
	b, err := r.print(s.cfg.Format)
	if err != nil {
		return op, p11.Errorf(p11.CKR_GENERAL_ERROR, "the token's record: %w", err)
	}
	sealed, err := s.cfg.Key.Seal(seal.Place{Name: s.recordKey(), Version: r.Count}, b)
	return clientv3.OpPut(s.recordKey(), string(sealed)), err
}

// Close ends all logins and wipes the objects. It may be called again.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.moveLocked()
	s.mu.Unlock()
	s.stop()
	<-s.stopped
	s.changing <- struct{}{} // who is making a change ends it
	defer func() { <-s.changing }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.EndInvalidLocked()
	for n := range s.objects {
		s.forgetLocked(n)
	}
	return nil
}

// current is the newest record that is known, and its revision.
func (s *Store) current(ctx context.Context) (*record, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record, s.rev, s.usableLocked()
}

// usableLocked returns why nothing can be done with the token.
func (s *Store) usableLocked() error {
	if s.closed {
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
	}
	return s.broken
}

// Info is tokens.Storage.
func (s *Store) Info(ctx context.Context) (p11.TokenInfo, error) {
	r, _, err := s.current(ctx)
	if err != nil {
		return p11.TokenInfo{}, err
	}
	return r.Data.Info(s.cfg.Now()), nil
}

// Refresh is tokens.Storage. It does not ask etcd: while this machine is in contact with the
// others, whoever takes something away waits until it is gone here. For what others have
// made see Sync.
func (s *Store) Refresh(ctx context.Context) error {
	if _, _, err := s.current(ctx); err != nil {
		return err
	}
	return s.cfg.Contact.Alive()
}

// Sync waits until all is here that any machine has changed before the call.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.Refresh(ctx); err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.times.answer)
	defer cancel()
	resp, err := s.cfg.Client.Get(asking, s.recordKey(), clientv3.WithKeysOnly())
	if err != nil {
		return s.trouble("ask for the newest state", err)
	}
	if len(resp.Kvs) == 0 {
		return s.absent()
	}
	return s.waitFor(ctx, resp.Kvs[0].ModRevision)
}

// Find is tokens.Objects. Where nothing is found, etcd is asked whether another machine has
// made it just now.
func (s *Store) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	found, err := s.Lookup.Find(ctx, template, private)
	if err != nil || len(found) > 0 || !s.hears() {
		return found, err
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.times.find)
	defer cancel()
	if s.Sync(asking) != nil {
		return found, nil // what is here holds as long as Refresh says so
	}
	return s.Lookup.Find(ctx, template, private)
}

// hears reports whether etcd is expected to answer.
func (s *Store) hears() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost == nil
}

// Offline is tokens.Offliner.
func (s *Store) Offline() error { return s.cfg.Contact.Alive() }

// NextCount is tokens.Counter. A block of numbers is this machine's as long as no other has
// taken one behind it.
func (s *Store) NextCount(ctx context.Context) (uint64, error) {
	if err := s.Sync(ctx); err != nil {
		return 0, err
	}
	end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	r, _, err := s.current(ctx)
	if err != nil {
		return 0, err
	}
	c := &s.counter
	if c.next == c.end || c.end != r.Counted {
		var first uint64
		if _, err := s.change(ctx, func(e *edit) error {
			first = max(e.record.Counted, tokens.CountFrom(s.cfg.Now()))
			if first > countLast {
				return p11.Advise(p11.Errorf(p11.CKR_DEVICE_ERROR, "the counter has no number left behind %d", first), "make another token: no count goes so far")
			}
			e.record.Counted = first + countBlock
			return nil
		}); err != nil {
			return 0, err
		}
		c.next, c.end = first, first+countBlock
	}
	c.next++
	return c.next - 1, nil
}

const (
	countBlock = 4096
	countLast  = 1<<63 - countBlock
)
