package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/tokens"
)

// Named reports whether the name of a user's own token says of which kind it is.
func (c Config) Named(token string) bool {
	return slices.ContainsFunc(c.Kinds[1:], func(k tokens.Kind) bool { return k.Name == token })
}

// A Made is a user's own token that was just made, or that nobody has initialised, opened by
// a command and not by a daemon.
type Made struct {
	tokens.Token
	Slot Slot

	undo []func() error
}

// Make makes a user's own token of the kind that its name says, where no daemon has it. The
// settings are what the kind's own configuration would have, by their names. One that is
// initialised is not for it. Where it fails, an empty directory does not stay behind.
func (c Config) Make(ctx context.Context, name string, settings map[string]string) (_ *Made, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := c.slotOf(name, true)
	if err != nil {
		return nil, err
	}
	for _, one := range slices.Sorted(maps.Keys(settings)) {
		switch value := settings[one]; {
		case !slices.Contains(s.Kind.Settings, one):
			return nil, fmt.Errorf("tokens of the kind %s have no setting %s: leave it out", s.Kind.Name, one)
		case s.Place.Config != "":
			return nil, fmt.Errorf("%s says the %s of %s: change it there", s.Place.Config, one, name)
		case strings.ContainsAny(value, "\n#"):
			return nil, fmt.Errorf("the %s %q is not one line of text: write another", one, value)
		}
	}
	m := &Made{Slot: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	p := s.Place
	p.Create, p.Group, p.Log, p.Now = true, c.group(), c.Log.With("token", name), time.Now
	policy, err := c.LoadPolicy()
	if err != nil {
		return nil, err
	}
	if s.Kind.Protection != nil {
		if why := policy.Store(s.Kind.Protection(p)); why != "" {
			return nil, fmt.Errorf("%s: change the policy", why)
		}
	}
	for _, dir := range []string{c.Paths.Data, c.Paths.Locks} {
		if err := locks.MakeDirectory(dir, dirMode(c.Mode), p.Group); err != nil {
			return nil, err
		}
	}
	if p.Lock, err = locks.Open(c.lockPath(s), p.Group); err != nil {
		return nil, err
	}
	m.undo = append(m.undo, p.Lock.Close)
	if len(settings) > 0 {
		if p.Config, err = settingsFile(settings); err != nil {
			return nil, err
		}
		defer os.Remove(p.Config)
	}
	if err := locks.MakeDirectory(p.Dir, dirMode(c.Mode), p.Group); err != nil {
		return nil, err
	}
	m.Token, err = s.Kind.Open(ctx, p)
	if err != nil {
		_ = os.Remove(p.Dir) // which does nothing where something is in it
		return nil, err
	}
	m.undo = append(m.undo, m.Token.Close)
	info, err := m.Info(ctx)
	if err == nil && info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 {
		err = fmt.Errorf("%s has the token %s already, which no daemon serves now: p11fs mount serves it, and p11fs init then makes it anew", p.Dir, name)
	}
	return m, err
}

// settingsFile is a file of a kind's own configuration, for as long as a token is made.
func settingsFile(settings map[string]string) (path string, err error) {
	f, err := os.CreateTemp("", "p11fs-*.conf")
	if err != nil {
		return "", err
	}
	for name, value := range settings {
		if err == nil {
			_, err = fmt.Fprintf(f, "%s = %s\n", name, value)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// Weak is the kind's Weak.
func (m *Made) Weak() (why, mend string) { return m.Slot.weak() }

// Close closes the token, and gives back what is held of its directory.
func (m *Made) Close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	m.undo = nil
	return errors.Join(errs...)
}
