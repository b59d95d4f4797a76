package store

import (
	"context"
	"fmt"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/shm"
	"p11fs/tokens"
)

// The places of the roles in Store.roles.
const (
	roleSO = iota
	roleUser
)

func roleOf(u p11.UserType) int {
	if u == p11.CKU_SO {
		return roleSO
	}
	return roleUser
}

// A userLogin is one successful Login.
type userLogin struct {
	s          *Store
	user       p11.UserType
	generation uint64
	once       sync.Once
}

var _ tokens.Login = (*userLogin)(nil)

func (l *userLogin) User() p11.UserType { return l.user }

func (l *userLogin) Valid() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.validLocked(l)
}

func (s *Store) validLocked(l *userLogin) error {
	if r := &s.roles[roleOf(l.user)]; s.closed || l.generation != r.generation || r.key == nil {
		return errEnded()
	}
	if !s.validInSegmentLocked(l.user) {
		return errEnded()
	}
	return nil
}

func errEnded() error {
	return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended: the token was initialised or closed, or the PIN was locked")
}

func (l *userLogin) Close() error {
	l.once.Do(func() {
		s := l.s
		s.mu.Lock()
		defer s.mu.Unlock()
		r := &s.roles[roleOf(l.user)]
		if l.generation != r.generation {
			return
		}
		if r.logins--; r.logins == 0 {
			s.endLoginsLocked(r)
		}
	})
	return nil
}

// endLoginsLocked ends all logins of a role: its master key is wiped, and with
// the user's the private objects go.
func (s *Store) endLoginsLocked(r *role) {
	if r.key == nil {
		return
	}
	_ = r.key.Close()
	*r = role{generation: r.generation + 1}
	if r != &s.roles[roleUser] {
		return
	}
	for _, f := range s.files {
		if f.private && f.handle != 0 {
			s.dropLocked(f)
		}
	}
}

// openCiphers returns the ciphers that open private objects, none without a
// login of the user. The second is for what stock wrote while its own key was
// not loaded.
func (s *Store) openCiphers() ([]objectCipher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.roles[roleUser].key
	if key == nil {
		return nil, nil
	}
	c, err := s.cfg.Kind.objectCipher(key)
	if err != nil {
		return nil, err
	}
	zero, err := s.cfg.Kind.zeroCipher()
	return []objectCipher{c, zero}, err
}

// Login is tokens.Admin (PKCS#11 v3.1 §5.6.8, C_Login).
func (s *Store) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	p, err := partOf(user)
	if err != nil {
		return nil, err
	}
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	key, err := s.checkPIN(p, pin)
	if err != nil {
		return nil, err
	}
	return s.join(p, key)
}

// checkPIN compares the PIN with the token's and opens the role's master key with
// it. Failures and successes are counted in the token's flags, and the third
// failure in a row locks the PIN. The token's lock is held.
//
// A PIN whose hash is not the token's but which opens the master key is right
// too: a change of PIN replaces two files, and was cut off between them. Its hash
// is then put right. The SO's default PIN is no such proof, since stock wraps the
// master key under it when it initialises a token that has another.
func (s *Store) checkPIN(p part, pin *secret.Bytes) (*secret.Bytes, error) {
	d := s.snapshot()
	if p.user == p11.CKU_USER && !d.userPINSet() {
		return nil, p11.Errorf(p11.CKR_USER_PIN_NOT_INITIALIZED, "the user has no PIN yet: the SO sets the first one")
	}
	if d.flags()&p.locked != 0 {
		return nil, p11.Errorf(p11.CKR_PIN_LOCKED, "the %s PIN is locked after wrong tries", p.title)
	}
	wrapped, err := s.readKeyFile(p.keyFile)
	if err != nil {
		return nil, err
	}
	var key *secret.Bytes
	fits := d.pinFits(pin.Len())
	if fits {
		if key, err = s.cfg.Kind.unwrap(wrapped, pin); err != nil {
			return nil, err
		}
	}
	right := fits && d.pinMatches(p.hash, pin)
	if !right && key != nil && !isText(pin, defaultSOPIN) {
		s.cfg.Log.Warn("a change of PIN was cut off: completing it", "dir", s.cfg.Dir, "role", p.title)
		right = true
		d.setHash(p.hash, pinHash(pin))
		d.flag(0, p.toChange)
		if p.user == p11.CKU_USER {
			d.flag(p11.CKF_USER_PIN_INITIALIZED, 0)
		}
	}
	if !right {
		_ = key.Close()
		return nil, s.countFailure(p, d)
	}
	d.flag(0, p.countLow|p.finalTry|p.locked)
	if d != s.snapshot() {
		if err := s.saveData(d); err != nil {
			_ = key.Close()
			return nil, err
		}
	}
	if key == nil && p.user == p11.CKU_SO {
		if key, err = s.openDefault(wrapped, pin); err != nil {
			return nil, err
		}
	}
	if key == nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "the PIN is right, but %s is missing or damaged: %s", p.keyFile, repair(p))
	}
	return key, nil
}

func repair(p part) string {
	if p.user == p11.CKU_USER {
		return "if a change of the PIN was cut off, the new PIN opens the token; else the SO mends it by setting the user's PIN anew"
	}
	return "if a change of the PIN was cut off, the new PIN opens the token; else it must come back from a backup"
}

func isText(pin *secret.Bytes, text string) (is bool) {
	pin.Use(func(b []byte) { is = string(b) == text })
	return is
}

// openDefault opens MK_SO with the default PIN, under which stock C_InitToken
// wraps it whatever the SO's PIN is, and wraps it under pin, the right one.
func (s *Store) openDefault(wrapped []byte, pin *secret.Bytes) (*secret.Bytes, error) {
	def, err := secret.New([]byte(defaultSOPIN))
	if err != nil {
		return nil, err
	}
	defer def.Close()
	key, err := s.cfg.Kind.unwrap(wrapped, def)
	if key == nil || err != nil {
		return nil, err
	}
	b, err := s.cfg.Kind.wrap(key, pin)
	if err == nil {
		err = s.saveKey(soKeyFile, b)
	}
	if err != nil {
		s.cfg.Log.Warn("MK_SO stays under the default PIN", "dir", s.cfg.Dir, "err", err)
	} else {
		s.cfg.Log.Info("MK_SO was under the default PIN and is now under the SO's", "dir", s.cfg.Dir)
	}
	return key, nil
}

// countFailure records one wrong PIN, durably, before anybody learns that it was
// wrong. The flags count in memory even if they cannot be written.
func (s *Store) countFailure(p part, d tokenData) error {
	all := p.countLow | p.finalTry | p.locked
	next := p.countLow
	switch {
	case d.flags()&p.finalTry != 0:
		next = p.locked
	case d.flags()&p.countLow != 0:
		next = p.finalTry
	}
	d.flag(next, all)
	err := s.saveData(d)
	s.mu.Lock()
	if err != nil {
		s.data = s.shareLocked(d)
	}
	if next == p.locked {
		s.endLoginsLocked(&s.roles[roleOf(p.user)])
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("wrong %s PIN, and it could not be counted: %w", p.title, err)
	}
	left := map[p11.Flags]string{p.countLow: "2 tries are left", p.finalTry: "1 try is left", p.locked: "it is locked now"}[next]
	return p11.Errorf(p11.CKR_PIN_INCORRECT, "wrong %s PIN: %s", p.title, left)
}

// join makes a login of a role with its opened master key, which it takes over,
// and reads the private objects at the user's first.
func (s *Store) join(p part, key *secret.Bytes) (tokens.Login, error) {
	if p.user == p11.CKU_USER && isZero(key) {
		s.cfg.Log.Warn("MK_USER holds a key of zeros, as stock C_SetPIN in a public session leaves it: private objects made before cannot be read until the SO sets the user's PIN anew", "dir", s.cfg.Dir)
	}
	s.mu.Lock()
	r := &s.roles[roleOf(p.user)]
	if r.key != nil && !r.key.Equal(key) {
		s.endLoginsLocked(r) // another master key: nothing of the old logins holds
	}
	first := r.key == nil
	if first {
		r.key = key
	} else {
		_ = key.Close()
	}
	r.logins++
	l := &userLogin{s: s, user: p.user, generation: r.generation}
	var private []name
	if first && p.user == p11.CKU_USER {
		for n, f := range s.files {
			if f.handle == 0 && (f.private || s.isBadLocked(n)) {
				private = append(private, n)
			}
		}
	}
	s.mu.Unlock()
	// The login stands; what cannot be read is skipped and reported.
	err := s.load(context.Background(), private)
	if err == nil && s.seg != nil && p.user == p11.CKU_USER && (first || !s.seg.Loaded(shm.Private)) {
		// The first process that can read the private objects lists them for
		// all, and not in two steps: what is made in between would stand twice.
		var x index
		if x, err = s.readIndex(); err == nil {
			s.mend(x.names, true)
		}
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (s *Store) isBadLocked(n name) bool {
	_, bad := s.bad[n]
	return bad
}
