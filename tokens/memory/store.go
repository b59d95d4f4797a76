// Package memory keeps tokens in memory, by the rules of a store on disk: for tests,
// and for kinds of token that are written in a test. What private objects hold lies
// there as it is.
package memory

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// The lengths of a PIN that can be set, those of openCryptoki.
const (
	minPIN = 4
	maxPIN = 8
)

// initialFlags are those of a token that was never initialised.
const initialFlags = p11.CKF_RNG | p11.CKF_LOGIN_REQUIRED | p11.CKF_USER_PIN_TO_BE_CHANGED | p11.CKF_SO_PIN_TO_BE_CHANGED

// A Disk keeps tokens by name, as a disk keeps token directories: what is open under
// one name sees each other's changes.
type Disk struct {
	mu          sync.Mutex // guards directories
	directories map[string]*directory
}

// A directory is what is kept of one token.
type directory struct {
	// mu guards all below, and what each Store on the directory says that it
	// guards. The indexes, and objects, are locked under it.
	mu      sync.Mutex
	stores  []*Store // that are open: each is told of what changes
	label   string
	flags   p11.Flags
	pins    map[p11.UserType][]byte // hashes; none of a role without PIN
	number  uint64                  // of the last object
	objects map[string]*kept        // by stored name
	counted uint64                  // see NextCount
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{directories: make(map[string]*directory)} }

// New opens a new token on a disk of its own.
func New() *Store { return NewDisk().Open("") }

// A Store is one open directory of a Disk. It implements tokens.Storage.
type Store struct {
	tokens.Lookup // of the objects that can be seen

	dir *directory
	// dir.mu guards all below.
	logins *tokens.Logins
	closed bool
}

var (
	_ tokens.Storage = (*Store)(nil)
	_ tokens.Counter = (*Store)(nil)
)

// Open opens the token of that name. One that is not there is made, and initialised
// with tokens.DefaultSOPIN.
func (d *Disk) Open(name string) *Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := d.directories[name]
	if dir == nil {
		so, err := secret.New([]byte(tokens.DefaultSOPIN))
		if err != nil {
			panic(fmt.Sprintf("memory: no memory: %v", err))
		}
		defer func() { _ = so.Close() }()
		dir = &directory{flags: initialFlags, pins: map[p11.UserType][]byte{p11.CKU_SO: hash(so)}, objects: make(map[string]*kept)}
		d.directories[name] = dir
	}
	s := &Store{Lookup: tokens.Lookup{Index: tokens.NewIndex()}, dir: dir}
	s.logins = tokens.NewLogins(&dir.mu, s.validLocked, s.endedLocked)
	dir.mu.Lock()
	defer dir.mu.Unlock()
	dir.stores = append(dir.stores, s)
	s.showAllLocked()
	return s
}

// enter begins a call: it takes dir.mu, which the caller gives back when there is
// no error.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	s.dir.mu.Lock()
	if s.closed {
		s.dir.mu.Unlock()
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
	}
	return nil
}

// Info returns the token's data.
func (s *Store) Info(ctx context.Context) (p11.TokenInfo, error) {
	if err := s.enter(ctx); err != nil {
		return p11.TokenInfo{}, err
	}
	defer s.dir.mu.Unlock()
	return p11.TokenInfo{
		Label: s.dir.label, Manufacturer: "p11fs", Model: "memory", Serial: "1", Flags: s.dir.flags,
		MinPINLen: minPIN, MaxPINLen: maxPIN,
		MaxSessions: p11.Unavailable, MaxRWSessions: p11.Unavailable,
		TotalPublicMem: p11.Unavailable, FreePublicMem: p11.Unavailable,
		TotalPrivateMem: p11.Unavailable, FreePrivateMem: p11.Unavailable,
	}, nil
}

// Refresh has nothing to bring in: a Store is told of each change.
func (s *Store) Refresh(ctx context.Context) error {
	err := s.enter(ctx)
	if err == nil {
		s.dir.mu.Unlock()
	}
	return err
}

// Close ends all logins and wipes the objects that the Store knows. It may be called
// again.
func (s *Store) Close() error {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	s.closed = true
	d.stores = slices.DeleteFunc(d.stores, func(o *Store) bool { return o == s })
	s.logins.EndInvalidLocked()
	for name := range d.objects {
		s.hideLocked(name)
	}
	return nil
}

// NextCount is tokens.Counter.
func (s *Store) NextCount(ctx context.Context) (uint64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.dir.mu.Unlock()
	s.dir.counted = max(s.dir.counted+1, tokens.CountFrom(time.Now()))
	return s.dir.counted, nil
}

// Flag sets and clears flags of the token, as another program could.
func (s *Store) Flag(set, clear p11.Flags) {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	s.dir.setFlagsLocked(s.dir.flags&^clear | set)
}

// setFlagsLocked sets the token's flags, which end the logins of a role that is
// locked.
func (d *directory) setFlagsLocked(flags p11.Flags) {
	d.flags = flags
	for _, s := range d.stores {
		s.logins.EndInvalidLocked()
	}
}

// InitToken is tokens.Admin (PKCS#11 v3.1 §5.5.7, C_InitToken).
func (s *Store) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	d := s.dir
	defer d.mu.Unlock()
	if _, err := d.tryLocked(p11.CKU_SO, pin); err != nil {
		return err
	}
	if err := tokens.CheckLabel(label); err != nil {
		return err
	}
	for name := range d.objects {
		d.removeLocked(name)
	}
	for _, o := range d.stores {
		o.logins.EndAllLocked()
	}
	delete(d.pins, p11.CKU_USER)
	d.label, d.flags = label, initialFlags|p11.CKF_TOKEN_INITIALIZED
	return nil
}

// Login is tokens.Admin (PKCS#11 v3.1 §5.6.8, C_Login).
func (s *Store) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.dir.mu.Unlock()
	if _, err := s.dir.tryLocked(user, pin); err != nil {
		return nil, err
	}
	first := !s.logins.OpenLocked(user)
	l := s.logins.JoinLocked(user, nil)
	if first {
		s.showAllLocked()
	}
	return l, nil
}

// InitPIN is tokens.Admin (PKCS#11 v3.1 §5.5.8, C_InitPIN).
func (s *Store) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dir.mu.Unlock()
	if err := s.logins.SOLocked(so); err != nil {
		return err
	}
	user, err := tokens.RoleOf(p11.CKU_USER)
	if err != nil {
		return err
	}
	return s.dir.setPINLocked(user, nil, pin)
}

// SetPIN is tokens.Admin (PKCS#11 v3.1 §5.5.9, C_SetPIN).
func (s *Store) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dir.mu.Unlock()
	role, err := s.dir.tryLocked(user, old)
	if err == nil {
		err = s.dir.setPINLocked(role, old, pin)
	}
	return err
}

// setPINLocked sets a role's PIN; old is nil if the SO sets the user's.
func (d *directory) setPINLocked(role tokens.Role, old, pin *secret.Bytes) error {
	if err := role.CheckNewPIN(pin, old, minPIN, maxPIN); err != nil {
		return err
	}
	d.pins[role.User] = hash(pin)
	d.flags &^= role.Counts() | role.ToBeChanged
	if role.User == p11.CKU_USER {
		d.flags |= p11.CKF_USER_PIN_INITIALIZED
	}
	return nil
}

// tryLocked compares a PIN and counts the wrong ones.
func (d *directory) tryLocked(user p11.UserType, pin *secret.Bytes) (tokens.Role, error) {
	role, err := tokens.RoleOf(user)
	if err != nil {
		return role, err
	}
	want := d.pins[user]
	if err := role.MayTry(d.flags, want != nil); err != nil {
		return role, err
	}
	if subtle.ConstantTimeCompare(hash(pin), want) == 1 {
		d.flags &^= role.Counts()
		return role, nil
	}
	flags, err := role.Wrong(d.flags)
	d.setFlagsLocked(flags)
	return role, err
}

func hash(pin *secret.Bytes) (h []byte) {
	pin.Use(func(b []byte) {
		sum := sha256.Sum256(b)
		h = sum[:]
	})
	return h
}

// validLocked says whether the logins of a role are valid.
func (s *Store) validLocked(user p11.UserType) error {
	role, err := tokens.RoleOf(user)
	if err == nil && (s.closed || s.dir.flags&role.Locked != 0) {
		err = p11.CKR_USER_NOT_LOGGED_IN
	}
	return err
}

// endedLocked hides the private objects when the user's last login has ended.
func (s *Store) endedLocked(user p11.UserType) {
	for name, k := range s.dir.objects {
		if k.private && user == p11.CKU_USER {
			s.hideLocked(name)
		}
	}
}
