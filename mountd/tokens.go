package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"p11fs/locks"
	"p11fs/tokens"
	"p11fs/tokens/swtok"
)

// loadProvider returns the cryptographic library that the configuration asks
// for.
func (d *Daemon) loadProvider() (swtok.Provider, error) {
	if d.conf.Provider == "go" {
		return swtok.GoProvider(), nil
	}
	p := swtok.LoadProvider(d.log)
	if d.conf.Provider == "libcrypto" && p.Name() != "libcrypto" {
		return nil, errors.New("the system's libcrypto cannot be loaded (apt-get install libssl3)")
	}
	return p, nil
}

// openToken opens the token of a slot, making its directory and the token in it
// if there is none.
func (d *Daemon) openToken(ctx context.Context, s *store, provider swtok.Provider) (tokens.Token, error) {
	group := d.group()
	mode := dirMode(d.conf.Mode)
	if err := makeDirectory(s.dir, mode, group); err != nil {
		return nil, err
	}
	lockGroup := locks.NoGroup
	if group != noGroup {
		lockGroup = group
	}
	lock, err := locks.Open(s.lockPath, locks.Options{Group: lockGroup})
	if err != nil {
		return nil, err
	}
	shared, err := d.sharedThrough(s)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	token, err := swtok.Open(ctx, swtok.Config{
		Name: s.name, Dir: s.dir, Lock: lock, Create: true, Group: group, Shared: shared,
		Provider: provider, Log: d.log.With("token", s.name), Now: d.now,
	})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d.later(func() error {
		if err := errors.Join(token.Close(), lock.Close()); err != nil {
			return fmt.Errorf("closing token %s: %w", s.name, err)
		}
		return nil
	})
	return token, nil
}

// Libcrypto returns the version of the system's libcrypto, or why it cannot be
// used.
func Libcrypto() (string, error) {
	p := swtok.LoadProvider(slog.New(slog.DiscardHandler))
	if p.Name() != "libcrypto" {
		return "", errors.New("neither libcrypto.so.3 nor libcrypto.so.1.1 can be loaded")
	}
	return p.Version(), nil
}
