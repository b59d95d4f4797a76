package swtok

import (
	"context"
	"io"
	"log/slog"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store"
)

// Kind is the kind of token that this package is.
const Kind = "swtok"

// Config says which token directory a Token keeps, and with which library.
type Config struct {
	// Name is the name of the token directory; "" is "swtok".
	Name string
	// Dir is the token directory.
	Dir string
	// Lock is the token's lock; the token does not close it.
	Lock store.Locker
	// Create says that a token is made if there is none.
	Create bool
	// Group owns the files, or is store.NoGroup.
	Group int
	// Shared is the segment that stock processes share the token through; nil
	// says that there are none.
	Shared *store.Shared
	// Provider does RSA, elliptic curves and AES; nil is LoadProvider's choice.
	Provider Provider

	Log  *slog.Logger
	Now  func() time.Time
	Rand io.Reader // nil is the system's
}

// A Token is a software token: a token directory and Crypto.
type Token struct {
	*store.Store
	*Crypto
	name string
}

var _ tokens.Token = (*Token)(nil)

// Open opens the token of a directory; see store.Open for its errors.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if cfg.Name == "" {
		cfg.Name = Kind
	}
	if cfg.Provider == nil {
		cfg.Provider = LoadProvider(cfg.Log)
	}
	c := NewCrypto(cfg.Provider, cfg.Rand)
	kind, ok := store.KindOf(Kind)
	if !ok {
		panic("swtok: the store does not know its own token")
	}
	s, err := store.Open(ctx, store.Config{
		Dir: cfg.Dir, Kind: kind, Lock: cfg.Lock, Create: cfg.Create, Group: cfg.Group,
		Shared: cfg.Shared, Log: cfg.Log, Now: cfg.Now, Rand: c.rand,
	})
	if err != nil {
		return nil, err
	}
	return &Token{Store: s, Crypto: c, name: cfg.Name}, nil
}

// Name is the name of the token directory.
func (t *Token) Name() string { return t.name }

// Kind is "swtok".
func (t *Token) Kind() string { return Kind }

// Info returns the token's data, with what other processes changed.
func (t *Token) Info(ctx context.Context) (p11.TokenInfo, error) {
	if err := t.Refresh(ctx); err != nil {
		return p11.TokenInfo{}, err
	}
	return t.Store.Info(), nil
}
