package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p11fs/locks"
	"p11fs/p11"
	"p11fs/secret"
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
	room *room // nil where nothing is to be taken back
	ours bool  // InitToken has initialised it

	initialised bool // by others, before
}

// Make makes a user's own token of the kind that its name says, where no daemon has it. The
// settings are what the kind's own configuration would have, by their names, and prepare, if
// there is one, has the directory get what Open of the kind wants to find there. One that is
// initialised is not for it, nor one of which doctor would say that something is wrong. Where
// it fails it leaves nothing behind; what comes later and fails ends with Abandon.
func (c Config) Make(ctx context.Context, name string, settings map[string]string, prepare func(dir *os.Root) error) (_ *Made, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := c.slotOf(name, true)
	if err != nil {
		return nil, err
	}
	return c.make(ctx, s, settings, prepare)
}

// make makes the token of a slot.
func (c Config) make(ctx context.Context, s Slot, settings map[string]string, prepare func(dir *os.Root) error) (*Made, error) {
	m, err := c.open(ctx, s, settings, prepare)
	if err == nil && m.initialised {
		err = errors.Join(fmt.Errorf("%s has the token %s %w: p11fs mount serves it, and p11fs init then makes it anew", s.Kind.Name, s.Place.Name, errElsewhere), m.Abandon(ctx))
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

var errElsewhere = errors.New("already, which another machine has made")

// open opens the token of a slot, which is made where there is none.
func (c Config) open(ctx context.Context, s Slot, settings map[string]string, prepare func(dir *os.Root) error) (_ *Made, err error) {
	name := s.Place.Name
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
			err = errors.Join(err, m.Abandon(ctx))
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
	in, err := m.enter(ctx, c, &p)
	for errors.Is(err, errGivenUp) {
		in, err = m.enter(ctx, c, &p)
	}
	if err != nil {
		return nil, err
	}
	if err := m.vacant(ctx, p); err != nil {
		return nil, err
	}
	m.room = in
	if len(settings) > 0 {
		if p.Config, err = settingsFile(settings); err != nil {
			return nil, err
		}
		defer os.Remove(p.Config)
	}
	if prepare != nil {
		if err := prepare(in.root); err != nil {
			return nil, err
		}
	}
	if m.Token, err = s.Kind.Open(ctx, p); err != nil {
		return nil, err
	}
	m.undo = append(m.undo, m.Token.Close)
	// What is not kept in the directory may be there already, with all its keys.
	info, err := m.Info(ctx)
	if err != nil {
		return nil, err
	}
	m.initialised = info.Flags&p11.CKF_TOKEN_INITIALIZED != 0
	if s.Kind.Check != nil {
		if wrong, mend := s.Kind.Check(p); wrong != "" {
			return nil, fmt.Errorf("%s; nothing was made: %s, and then p11fs init again", wrong, mend)
		}
	}
	return m, nil
}

// enter opens the token's lock and enters its room.
func (m *Made) enter(ctx context.Context, c Config, p *tokens.Place) (_ *room, err error) {
	path := c.lockPath(m.Slot)
	_, noLock := os.Lstat(filepath.Join(c.Paths.Locks, p.Name))
	if p.Lock, err = locks.Open(path, p.Group); err != nil {
		return nil, err
	}
	in, err := enterRoom(ctx, path, p.Dir, dirMode(c.Mode), p.Group)
	if err != nil {
		return nil, errors.Join(err, p.Lock.Close())
	}
	if errors.Is(noLock, os.ErrNotExist) {
		in.locks = c.Paths.Locks
	}
	m.undo = append(m.undo, p.Lock.Close, in.leave)
	return in, nil
}

// vacant refuses a place that has a token which is initialised, and takes nothing back there.
func (m *Made) vacant(ctx context.Context, p tokens.Place) (err error) {
	if _, err := os.Lstat(filepath.Join(p.Dir, "NVTOK.DAT")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	p.Create = false
	t, err := m.Slot.Kind.Open(ctx, p)
	if err != nil {
		return err
	}
	info, err := t.Info(ctx)
	if err == nil && info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 {
		err = fmt.Errorf("%s has the token %s already, which no daemon serves now: p11fs mount serves it, and p11fs init then makes it anew", p.Dir, p.Name)
	}
	return errors.Join(err, t.Close())
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

// InitToken is tokens.Token's.
func (m *Made) InitToken(ctx context.Context, so *secret.Bytes, label string) error {
	err := m.Token.InitToken(ctx, so, label)
	m.ours = m.ours || err == nil
	return err
}

// Abandon is Close where the token was made in vain: what Make and what followed have put into
// the directory goes, unless somebody else has made a token of it meanwhile.
func (m *Made) Abandon(ctx context.Context) error {
	if m.room == nil {
		return m.Close()
	}
	m.room.vain = true
	if m.Token != nil && !m.ours {
		info, err := m.Info(context.WithoutCancel(ctx))
		m.room.vain = err != nil || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0
	}
	return m.Close()
}

// Close closes the token, and gives back what is held of its directory.
func (m *Made) Close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	m.undo = nil
	return errors.Join(errs...)
}
