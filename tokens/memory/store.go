package memory

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"

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

// A Store is one open directory of a Disk. It implements tokens.Storage.
type Store struct {
	dir   *directory
	index *tokens.Index // the objects that can be seen

	// dir.mu guards all below.
	logins *tokens.Logins
	closed bool
	seen   uint64           // the value of dir.change that the index is up to
	era    uint64           // the value of dir.era that the logins are of
	known  map[string]known // what is in the index, by stored name
}

// known is the version of an object that the index has.
type known struct {
	handle  p11.ObjectHandle
	version uint64
	private bool
}

var _ tokens.Storage = (*Store)(nil)

func newStore(d *directory) *Store {
	s := &Store{dir: d, index: tokens.NewIndex(), known: make(map[string]known)}
	s.logins = tokens.NewLogins(&d.mu, s.validLocked, s.endedLocked)
	d.mu.Lock()
	defer d.mu.Unlock()
	s.syncLocked()
	return s
}

// enter begins a call: it takes dir.mu, which the caller gives back when there is
// no error, and brings the index up to the directory.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	s.dir.mu.Lock()
	if s.closed {
		s.dir.mu.Unlock()
		return p11.Errorf(p11.CKR_DEVICE_REMOVED, "the token is closed")
	}
	s.syncLocked()
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

// Refresh brings in what other Stores on the directory changed.
func (s *Store) Refresh(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.dir.mu.Unlock()
	return nil
}

// Close ends all logins and wipes the objects that the Store knows. It may be called
// again.
func (s *Store) Close() error {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	s.closed = true
	s.endAllLocked()
	for name := range s.known {
		s.dropLocked(name)
	}
	return nil
}

// InitToken is tokens.Admin (PKCS#11 v3.1 §5.5.7, C_InitToken).
func (s *Store) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dir.mu.Unlock()
	if err := s.checkLocked(p11.CKU_SO, pin); err != nil {
		return err
	}
	if err := tokens.CheckLabel(label); err != nil {
		return err
	}
	d := s.dir
	for _, k := range d.objects {
		k.attrs.Wipe()
	}
	clear(d.objects)
	d.pins[p11.CKU_USER] = nil
	d.label = label
	d.flags = initialFlags | p11.CKF_TOKEN_INITIALIZED
	d.era++
	d.change++
	s.syncLocked()
	return nil
}

// Login is tokens.Admin (PKCS#11 v3.1 §5.6.8, C_Login).
func (s *Store) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.dir.mu.Unlock()
	if err := s.checkLocked(user, pin); err != nil {
		return nil, err
	}
	l := s.logins.JoinLocked(user, nil)
	s.loadLocked()
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
	if err := tokens.CheckPINLength(pin, minPIN, maxPIN); err != nil {
		return err
	}
	user, err := tokens.RoleOf(p11.CKU_USER)
	if err != nil {
		return err
	}
	d := s.dir
	d.pins[p11.CKU_USER] = hash(pin)
	d.flags = d.flags&^(user.Counts()|user.ToBeChanged) | p11.CKF_USER_PIN_INITIALIZED
	return nil
}

// SetPIN is tokens.Admin (PKCS#11 v3.1 §5.5.9, C_SetPIN).
func (s *Store) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.dir.mu.Unlock()
	if err := s.checkLocked(user, old); err != nil {
		return err
	}
	if err := tokens.CheckPINLength(pin, minPIN, maxPIN); err != nil {
		return err
	}
	role, err := tokens.RoleOf(user)
	if err != nil {
		return err
	}
	if err := role.MayBecome(old, pin); err != nil {
		return err
	}
	s.dir.pins[user] = hash(pin)
	s.dir.flags &^= role.ToBeChanged
	return nil
}

// checkLocked compares a PIN and counts the wrong ones.
func (s *Store) checkLocked(user p11.UserType, pin *secret.Bytes) error {
	role, err := tokens.RoleOf(user)
	if err != nil {
		return err
	}
	d := s.dir
	want := d.pins[user]
	if err := role.MayTry(d.flags, want != nil); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(hash(pin), want) == 1 {
		d.flags &^= role.Counts()
		return nil
	}
	d.flags, err = role.Wrong(d.flags)
	d.change++
	s.syncLocked()
	return err
}

func hash(pin *secret.Bytes) (h []byte) {
	pin.Use(func(b []byte) {
		sum := sha256.Sum256(b)
		h = sum[:]
	})
	return h
}

// validLocked says whether the logins of a role are valid: the directory can be
// changed by others.
func (s *Store) validLocked(user p11.UserType) error {
	role, err := tokens.RoleOf(user)
	if err == nil && (s.closed || s.era != s.dir.era || s.dir.flags&role.Locked != 0) {
		err = p11.CKR_USER_NOT_LOGGED_IN
	}
	return err
}

// endedLocked drops the private objects when the user's last login has ended.
func (s *Store) endedLocked(user p11.UserType) {
	if user != p11.CKU_USER {
		return
	}
	for name, k := range s.known {
		if k.private {
			s.dropLocked(name)
		}
	}
}

func (s *Store) endAllLocked() {
	s.logins.EndLocked(p11.CKU_SO)
	s.logins.EndLocked(p11.CKU_USER)
}

// syncLocked brings the index and the logins up to the directory.
func (s *Store) syncLocked() {
	d := s.dir
	if s.seen == d.change {
		return
	}
	s.seen = d.change
	for _, user := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		if s.validLocked(user) != nil {
			s.logins.EndLocked(user)
		}
	}
	s.era = d.era
	for name := range s.known {
		if d.objects[name] == nil {
			s.dropLocked(name)
		}
	}
	s.loadLocked()
}

// loadLocked puts into the index what is new of the objects that can be seen.
func (s *Store) loadLocked() {
	user := s.logins.OpenLocked(p11.CKU_USER)
	for name, k := range s.dir.objects {
		if s.known[name].version != k.version && (user || !k.private) {
			s.putLocked(name, k)
		}
	}
}

// putLocked makes what is kept under name the newest version of the object.
func (s *Store) putLocked(name string, k *kept) *tokens.Object {
	h := s.known[name].handle
	if h == 0 {
		h = s.index.NewHandle()
	}
	o := tokens.NewObject(h, name, k.attrs.Clone())
	if old := s.index.PutAt(o, k.number); old != nil {
		old.Drop()
	}
	s.known[name] = known{handle: h, version: k.version, private: k.private}
	return o
}

// dropLocked takes an object out of the index.
func (s *Store) dropLocked(name string) {
	if o := s.index.Remove(s.known[name].handle); o != nil {
		o.Drop()
	}
	delete(s.known, name)
}
