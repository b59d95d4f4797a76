// Package enginetest has a token in memory, for tests of the engine and of what
// stands on it. Its cryptography is real and small, from Go's library; its
// objects are gone with it.
package enginetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// Options say how a token begins. The zero value is an initialised token with
// SO PIN "87654321", user PIN "1234" and three tries.
type Options struct {
	Label   string // "test"
	SOPIN   string
	UserPIN string
	Tries   int
	// Blank makes a token that was never initialised.
	Blank bool
	// NoUserPIN leaves the user's PIN unset.
	NoUserPIN bool
	// WriteProtected sets CKF_WRITE_PROTECTED.
	WriteProtected bool
	// Before, if set, is called at the beginning of each call of a method, with
	// the method's name; what it returns is the method's error. It may
	// block or panic. Operations in progress call it as "Signature.Final" and
	// the like.
	Before func(method string) error
}

// Token is a token in memory.
type Token struct {
	name   string
	before func(string) error
	crypto *swtok.Crypto

	mu        sync.Mutex // guards all below
	flags     p11.Flags
	label     string
	soPIN     string
	userPIN   string
	tries     int // that a role has
	soLeft    int
	userLeft  int
	epoch     int // of initialisation and locking: older logins are void
	userEpoch int
	logins    int // of CKU_USER that are open
	next      int // stored name
	closed    bool

	public  *tokens.Index
	private *tokens.Index // the store; seen while logins > 0
}

// NewToken returns a token.
func NewToken(name string, o Options) *Token {
	t := &Token{
		name:    name,
		before:  o.Before,
		crypto:  newCrypto(),
		tries:   o.Tries,
		label:   o.Label,
		soPIN:   o.SOPIN,
		userPIN: o.UserPIN,
		public:  tokens.NewIndex(),
		private: tokens.NewIndex(),
		flags:   p11.CKF_RNG | p11.CKF_LOGIN_REQUIRED,
	}
	if t.label == "" {
		t.label = "test"
	}
	if t.soPIN == "" {
		t.soPIN = "87654321"
	}
	if t.userPIN == "" {
		t.userPIN = "1234"
	}
	if t.tries == 0 {
		t.tries = 3
	}
	if o.Blank {
		t.label = ""
	} else {
		t.flags |= p11.CKF_TOKEN_INITIALIZED
	}
	if o.Blank || o.NoUserPIN {
		t.userPIN = ""
	} else {
		t.flags |= p11.CKF_USER_PIN_INITIALIZED
	}
	if o.WriteProtected {
		t.flags |= p11.CKF_WRITE_PROTECTED
	}
	t.soLeft, t.userLeft = t.tries, t.tries
	return t
}

func (t *Token) enter(ctx context.Context, method string) error {
	if t.before != nil {
		if err := t.before(method); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted")
	}
	return nil
}

// Name is the name given to NewToken.
func (t *Token) Name() string { return t.name }

// Kind is "test".
func (t *Token) Kind() string { return "test" }

// Info returns the token's data.
func (t *Token) Info(ctx context.Context) (p11.TokenInfo, error) {
	if err := t.enter(ctx, "Info"); err != nil {
		return p11.TokenInfo{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	flags := t.flags
	for _, role := range []struct {
		left                  int
		low, finalTry, locked p11.Flags
	}{
		{t.userLeft, p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED},
		{t.soLeft, p11.CKF_SO_PIN_COUNT_LOW, p11.CKF_SO_PIN_FINAL_TRY, p11.CKF_SO_PIN_LOCKED},
	} {
		switch {
		case role.left == 0:
			flags |= role.locked
		case role.left == 1:
			flags |= role.finalTry | role.low
		case role.left < t.tries:
			flags |= role.low
		}
	}
	return p11.TokenInfo{
		Label: t.label, Manufacturer: "p11fs", Model: "memory", Serial: "1",
		Flags: flags, MinPINLen: 4, MaxPINLen: 8,
		TotalPublicMem: p11.Unavailable, FreePublicMem: p11.Unavailable,
		TotalPrivateMem: p11.Unavailable, FreePrivateMem: p11.Unavailable,
	}, nil
}

// Refresh does nothing: nobody else changes the token.
func (t *Token) Refresh(ctx context.Context) error { return t.enter(ctx, "Refresh") }

// Close ends logins.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.epoch++
	return nil
}

// InitToken is tokens.Admin's.
func (t *Token) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	if err := t.enter(ctx, "InitToken"); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flags&p11.CKF_TOKEN_INITIALIZED != 0 {
		if err := t.checkLocked(p11.CKU_SO, pin); err != nil {
			return err
		}
	}
	t.soPIN, t.userPIN, t.label = text(pin), "", label
	t.flags = t.flags&^p11.CKF_USER_PIN_INITIALIZED | p11.CKF_TOKEN_INITIALIZED
	t.epoch++
	for _, x := range []*tokens.Index{t.public, t.private} {
		var all []*tokens.Object
		x.Ascend(func(o *tokens.Object) bool {
			all = append(all, o)
			return true
		})
		for _, o := range all {
			x.Remove(o.Handle)
			o.Drop()
		}
	}
	return nil
}

func text(pin *secret.Bytes) (s string) {
	pin.Use(func(b []byte) { s = string(b) })
	return s
}

// checkLocked compares a PIN and counts failures.
func (t *Token) checkLocked(user p11.UserType, pin *secret.Bytes) error {
	want, left := t.userPIN, &t.userLeft
	if user == p11.CKU_SO {
		want, left = t.soPIN, &t.soLeft
	}
	if want == "" {
		return p11.CKR_USER_PIN_NOT_INITIALIZED
	}
	if *left == 0 {
		return p11.CKR_PIN_LOCKED
	}
	if text(pin) != want {
		if *left--; *left == 0 && user == p11.CKU_USER {
			t.userEpoch++
		}
		return p11.CKR_PIN_INCORRECT
	}
	*left = t.tries
	return nil
}

// Login is tokens.Admin's.
func (t *Token) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	if err := t.enter(ctx, "Login"); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(user, pin); err != nil {
		return nil, err
	}
	if user == p11.CKU_USER {
		t.logins++
	}
	return &tokenLogin{token: t, user: user, epoch: t.epoch, userEpoch: t.userEpoch}, nil
}

// InitPIN is tokens.Admin's.
func (t *Token) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	if err := t.enter(ctx, "InitPIN"); err != nil {
		return err
	}
	if err := so.Valid(); err != nil {
		return err
	}
	if pin.Len() < 4 || pin.Len() > 8 {
		return p11.CKR_PIN_LEN_RANGE
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.userPIN, t.userLeft = text(pin), t.tries
	t.flags |= p11.CKF_USER_PIN_INITIALIZED
	return nil
}

// SetPIN is tokens.Admin's.
func (t *Token) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	if err := t.enter(ctx, "SetPIN"); err != nil {
		return err
	}
	if pin.Len() < 4 || pin.Len() > 8 {
		return p11.CKR_PIN_LEN_RANGE
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(user, old); err != nil {
		return err
	}
	if user == p11.CKU_SO {
		t.soPIN = text(pin)
	} else {
		t.userPIN = text(pin)
	}
	return nil
}

// Lock spends the user's tries, as another process would.
func (t *Token) Lock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.userLeft = 0
	t.userEpoch++
}

type tokenLogin struct {
	token            *Token
	user             p11.UserType
	epoch, userEpoch int
	once             sync.Once
}

func (l *tokenLogin) User() p11.UserType { return l.user }

func (l *tokenLogin) Valid() error {
	l.token.mu.Lock()
	defer l.token.mu.Unlock()
	if l.epoch != l.token.epoch || l.user == p11.CKU_USER && l.userEpoch != l.token.userEpoch {
		return p11.CKR_USER_NOT_LOGGED_IN
	}
	return nil
}

func (l *tokenLogin) Close() error {
	l.once.Do(func() {
		l.token.mu.Lock()
		defer l.token.mu.Unlock()
		if l.user == p11.CKU_USER {
			l.token.logins--
		}
	})
	return nil
}

// Logins is the number of open logins of the user.
func (t *Token) Logins() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.logins
}

func (t *Token) open() bool { return t.Logins() > 0 }

// Find is tokens.Objects'.
func (t *Token) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	if err := t.enter(ctx, "Find"); err != nil {
		return nil, err
	}
	found := t.public.Find(template)
	if private && t.open() {
		found = append(found, t.private.Find(template)...)
		slices.SortStableFunc(found, func(a, b *tokens.Object) int {
			switch {
			case a.Name < b.Name:
				return -1
			case a.Name > b.Name:
				return 1
			}
			return 0
		})
	}
	return found, nil
}

// ByHandle is tokens.Objects'.
func (t *Token) ByHandle(h p11.ObjectHandle) (*tokens.Object, error) {
	if o := t.public.Get(h); o != nil {
		return o, nil
	}
	if o := t.private.Get(h); o != nil && t.open() {
		return o, nil
	}
	return nil, p11.CKR_OBJECT_HANDLE_INVALID
}

// ByName is tokens.Objects'.
func (t *Token) ByName(name string) (*tokens.Object, error) {
	if o := t.public.ByName(name); o != nil {
		return o, nil
	}
	if o := t.private.ByName(name); o != nil && t.open() {
		return o, nil
	}
	return nil, p11.CKR_OBJECT_HANDLE_INVALID
}

// Counts is tokens.Objects'.
func (t *Token) Counts() (public, private int) {
	if t.open() {
		private = t.private.Len()
	}
	return t.public.Len(), private
}

// Create is tokens.Objects'.
func (t *Token) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	if err := t.enter(ctx, "Create"); err != nil {
		return nil, err
	}
	private := attrs.Bool(p11.CKA_PRIVATE)
	if private && !t.open() {
		return nil, p11.CKR_USER_NOT_LOGGED_IN
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	o := tokens.NewObject(tokens.NewHandle(), fmt.Sprintf("%08d", t.next), attrs)
	t.next++
	t.index(private).Put(o)
	return o, nil
}

func (t *Token) index(private bool) *tokens.Index {
	if private {
		return t.private
	}
	return t.public
}

// Update is tokens.Objects'.
func (t *Token) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	if err := t.enter(ctx, "Update"); err != nil {
		return nil, err
	}
	o, err := t.ByHandle(h)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	attrs, err := o.Acquire()
	if err != nil {
		return nil, err
	}
	defer o.Release()
	changed, err := change(attrs)
	if err != nil {
		return nil, err
	}
	n := tokens.NewObject(h, o.Name, changed)
	t.index(o.Private).Put(n)
	o.Drop()
	return n, nil
}

// Destroy is tokens.Objects'.
func (t *Token) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	if err := t.enter(ctx, "Destroy"); err != nil {
		return err
	}
	o, err := t.ByHandle(h)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	attrs, err := o.Acquire()
	if err != nil {
		return err
	}
	err = check(attrs)
	o.Release()
	if err != nil {
		return err
	}
	t.index(o.Private).Remove(h)
	o.Drop()
	return nil
}

// Put stores an object as another process would have, without any rule.
func (t *Token) Put(attrs p11.Attributes) *tokens.Object {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := tokens.NewObject(tokens.NewHandle(), fmt.Sprintf("%08d", t.next), attrs)
	t.next++
	t.index(o.Private).Put(o)
	return o
}

// GenerateRandom is tokens.Crypto's.
func (t *Token) GenerateRandom(ctx context.Context, b []byte) error {
	if err := t.enter(ctx, "GenerateRandom"); err != nil {
		return err
	}
	_, err := rand.Read(b)
	return err
}
