// Package hooks has the token of the engine's tests and of those of what stands on
// it: a software token in memory, with places where a test can step in.
package hooks

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/memory"
	"p11fs/tokens/swtok"
)

// The PINs that a token begins with.
const (
	SOPIN   = tokens.DefaultSOPIN
	UserPIN = "1234"
)

// Options say how a token begins. The zero value is one that is initialised, with
// both PINs set.
type Options struct {
	// Blank makes a token that was never initialised.
	Blank bool
	// NoUserPIN leaves the user's PIN unset.
	NoUserPIN bool
	// WriteProtected sets CKF_WRITE_PROTECTED.
	WriteProtected bool
	// Forgiving has wrong PINs not be counted.
	Forgiving bool
	// Also lists mechanisms beside the few that it lists.
	Also []p11.MechanismType
	// NoResumer and NoSizer take these interfaces from the operations.
	NoResumer, NoSizer bool
	// Before, if set, is called at the beginning of each call of a method that can
	// block, with the method's name; what it returns is the method's error. It may
	// block or panic. For Begin the name is that of the use: "Sign". Operations in
	// progress call it as "Signature.Final" and the like.
	Before func(method string) error
}

// Token is a token in memory.
type Token struct {
	*memory.Store
	crypto *swtok.Crypto

	name    string
	options Options
	trying  sync.Mutex // held while a forgiving token looks at a PIN
	logins  atomic.Int64
}

var _ tokens.Token = (*Token)(nil)

// New returns a token.
func New(name string, o Options) *Token {
	t := &Token{Store: memory.New(), crypto: swtok.NewCrypto(swtok.GoProvider(), nil), name: name, options: o}
	if o.Blank {
		return t
	}
	if err := t.prepare(o); err != nil {
		panic("hooks: a new token: " + err.Error())
	}
	return t
}

func (t *Token) prepare(o Options) error {
	so, err := secret.New([]byte(SOPIN))
	if err != nil {
		return err
	}
	user, err := secret.New([]byte(UserPIN))
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(so.Close(), user.Close()) }()
	ctx := context.Background()
	if err := t.Store.InitToken(ctx, so, "test"); err != nil {
		return err
	}
	if !o.NoUserPIN {
		l, err := t.Store.Login(ctx, p11.CKU_SO, so)
		if err != nil {
			return err
		}
		if err := errors.Join(t.Store.InitPIN(ctx, l, user), l.Close()); err != nil {
			return err
		}
	}
	if o.WriteProtected {
		t.Flag(p11.CKF_WRITE_PROTECTED, 0)
	}
	return nil
}

func (t *Token) before(method string) error {
	if t.options.Before == nil {
		return nil
	}
	return t.options.Before(method)
}

// Name is tokens.Token's.
func (t *Token) Name() string { return t.name }

// Kind is "test".
func (t *Token) Kind() string { return "test" }

// Lock spends the user's tries, as another process would.
func (t *Token) Lock() { t.Flag(p11.CKF_USER_PIN_LOCKED, 0) }

// Put stores an object as another process would, without any rule.
func (t *Token) Put(attrs p11.Attributes) *tokens.Object {
	name := t.Store.Put("", attrs)
	if err := t.Store.Refresh(context.Background()); err != nil {
		panic("hooks: " + err.Error())
	}
	o, err := t.ByName(name)
	if err != nil {
		return nil // a private one, and nobody is logged in
	}
	return o
}

// Logins is the number of logins of the user that are not closed.
func (t *Token) Logins() int { return int(t.logins.Load()) }

// login counts a login of the user.
type login struct {
	tokens.Login
	token *Token
	once  sync.Once
}

func (l *login) Close() error {
	if l.User() == p11.CKU_USER {
		l.once.Do(func() { l.token.logins.Add(-1) })
	}
	return l.Login.Close()
}

// Login is tokens.Admin's.
func (t *Token) Login(ctx context.Context, user p11.UserType, pin *secret.Bytes) (tokens.Login, error) {
	if err := t.before("Login"); err != nil {
		return nil, err
	}
	if t.options.Forgiving {
		t.trying.Lock()
		defer t.trying.Unlock()
	}
	l, err := t.Store.Login(ctx, user, pin)
	if t.options.Forgiving && errors.Is(err, p11.CKR_PIN_INCORRECT) {
		role, _ := tokens.RoleOf(user)
		t.Flag(0, role.Counts())
	}
	if err != nil {
		return nil, err
	}
	if user == p11.CKU_USER {
		t.logins.Add(1)
	}
	return &login{Login: l, token: t}, nil
}

// InitPIN is tokens.Admin's.
func (t *Token) InitPIN(ctx context.Context, so tokens.Login, pin *secret.Bytes) error {
	if err := t.before("InitPIN"); err != nil {
		return err
	}
	if l, ok := so.(*login); ok {
		so = l.Login
	}
	return t.Store.InitPIN(ctx, so, pin)
}

// InitToken is tokens.Admin's.
func (t *Token) InitToken(ctx context.Context, pin *secret.Bytes, label string) error {
	if err := t.before("InitToken"); err != nil {
		return err
	}
	return t.Store.InitToken(ctx, pin, label)
}

// SetPIN is tokens.Admin's.
func (t *Token) SetPIN(ctx context.Context, user p11.UserType, old, pin *secret.Bytes) error {
	if err := t.before("SetPIN"); err != nil {
		return err
	}
	return t.Store.SetPIN(ctx, user, old, pin)
}

// Info is tokens.Storage's.
func (t *Token) Info(ctx context.Context) (p11.TokenInfo, error) {
	if err := t.before("Info"); err != nil {
		return p11.TokenInfo{}, err
	}
	return t.Store.Info(ctx)
}

// Refresh is tokens.Storage's.
func (t *Token) Refresh(ctx context.Context) error {
	if err := t.before("Refresh"); err != nil {
		return err
	}
	return t.Store.Refresh(ctx)
}

// Find is tokens.Objects'.
func (t *Token) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	if err := t.before("Find"); err != nil {
		return nil, err
	}
	return t.Store.Find(ctx, template, private)
}

// Create is tokens.Objects'.
func (t *Token) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	if err := t.before("Create"); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return t.Store.Create(ctx, attrs)
}

// Update is tokens.Objects'. It calls change twice, as a storage does that another
// process was faster with.
func (t *Token) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	if err := t.before("Update"); err != nil {
		return nil, err
	}
	return t.Store.Update(ctx, h, func(a p11.Attributes) (p11.Attributes, error) {
		lost, err := change(a)
		if err != nil {
			return nil, err
		}
		lost.Wipe()
		return change(a)
	})
}

// Destroy is tokens.Objects'. It calls check twice, as Update calls change.
func (t *Token) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	if err := t.before("Destroy"); err != nil {
		return err
	}
	return t.Store.Destroy(ctx, h, func(a p11.Attributes) error {
		if err := check(a); err != nil {
			return err
		}
		return check(a)
	})
}

// NextCount is tokens.Counter's.
func (t *Token) NextCount(ctx context.Context) (uint64, error) {
	if err := t.before("NextCount"); err != nil {
		return 0, err
	}
	return t.Store.NextCount(ctx)
}
