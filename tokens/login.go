package tokens

import (
	"context"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
)

// loginKey is the key of what WithLogin puts into a context.
type loginKey struct{}

// WithLogin returns a context for a token's calls in which keys are made by who has that
// login.
func WithLogin(ctx context.Context, l Login) context.Context {
	return context.WithValue(ctx, loginKey{}, l)
}

// LoginOf is the login of who makes a key, nil for somebody who has none.
func LoginOf(ctx context.Context) Login {
	l, _ := ctx.Value(loginKey{}).(Login)
	return l
}

// Logins are the open logins of a storage. Those of one role share the master key
// that the PIN opened, and end together when it changes. The methods in …Locked need
// the storage's own lock.
type Logins struct {
	mu    sync.Locker
	valid func(p11.UserType) error
	ended func(p11.UserType)
	roles [2]openRole // guarded by mu: of the SO and of the user
}

type openRole struct {
	open int
	era  uint64        // logins of other eras have ended
	key  *secret.Bytes // nil without logins, and for a storage without keys
}

// NewLogins returns none. mu is the storage's lock. valid says what else has ended
// the logins of a role, and ended is told when the last one of a role has ended; both
// are called with mu held.
func NewLogins(mu sync.Locker, valid func(p11.UserType) error, ended func(p11.UserType)) *Logins {
	return &Logins{mu: mu, valid: valid, ended: ended}
}

func (l *Logins) role(user p11.UserType) *openRole {
	if user == p11.CKU_SO {
		return &l.roles[0]
	}
	return &l.roles[1]
}

// JoinLocked returns a new login of a role with the key that its PIN opened, which
// it takes over. Logins with another key end.
func (l *Logins) JoinLocked(user p11.UserType, key *secret.Bytes) Login {
	r := l.role(user)
	if r.open > 0 && !r.key.Equal(key) {
		l.EndLocked(user)
	}
	if r.open++; r.open == 1 {
		r.key = key
	} else {
		_ = key.Close()
	}
	return &login{of: l, user: user, era: r.era}
}

// ChangeKeyLocked gives the logins of a role, if there are any, the key of a new PIN, which
// it takes over.
func (l *Logins) ChangeKeyLocked(user p11.UserType, key *secret.Bytes) {
	r := l.role(user)
	if r.open == 0 {
		_ = key.Close()
		return
	}
	_ = r.key.Close()
	r.key = key
}

// EndLocked ends all logins of a role.
func (l *Logins) EndLocked(user p11.UserType) {
	r := l.role(user)
	if r.open == 0 {
		return
	}
	_ = r.key.Close()
	*r = openRole{era: r.era + 1}
	l.ended(user)
}

// EndAllLocked ends all logins.
func (l *Logins) EndAllLocked() {
	l.EndLocked(p11.CKU_SO)
	l.EndLocked(p11.CKU_USER)
}

// EndInvalidLocked ends the logins of the roles whose logins have become invalid.
func (l *Logins) EndInvalidLocked() {
	for _, user := range [...]p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		if l.valid(user) != nil {
			l.EndLocked(user)
		}
	}
}

// OpenLocked says whether a role is logged in.
func (l *Logins) OpenLocked(user p11.UserType) bool { return l.role(user).open > 0 }

// KeyLocked returns the key of a role that is logged in, nil else. It stays the
// logins'.
func (l *Logins) KeyLocked(user p11.UserType) *secret.Bytes { return l.role(user).key }

// SOLocked returns CKR_USER_NOT_LOGGED_IN unless so is a valid login of the SO that
// came from here (InitPIN).
func (l *Logins) SOLocked(so Login) error {
	if s, ok := so.(*login); ok && s.of == l && s.user == p11.CKU_SO {
		return l.validLocked(s)
	}
	return p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "only the SO sets the user's PIN"), "log in as the SO for it")
}

func (l *Logins) validLocked(s *login) error {
	if r := l.role(s.user); s.closed || s.era != r.era || l.valid(s.user) != nil {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended: the token was initialised or closed, or the PIN was locked")
	}
	return nil
}

// A login is one of Logins.
type login struct {
	of     *Logins
	user   p11.UserType
	era    uint64
	closed bool // guarded by of.mu
}

// User is Login's.
func (s *login) User() p11.UserType { return s.user }

// Valid is Login's.
func (s *login) Valid() error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.of.validLocked(s)
}

// Close is Login's.
func (s *login) Close() error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	r := s.of.role(s.user)
	if s.closed || s.era != r.era {
		return nil
	}
	s.closed = true
	if r.open == 1 {
		s.of.EndLocked(s.user)
	} else {
		r.open--
	}
	return nil
}
