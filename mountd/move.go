package mountd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/locks"
	"p11fs/mountd/config"
	"p11fs/p11"
	"p11fs/tokens"
)

// A Move makes a token one of another kind that keeps its objects as this one does
// (tokens.Kind.Portable): all objects, PINs and flags go along.
type Move struct {
	Token    string
	Kind     string            // of the token afterwards
	Settings map[string]string // of that kind, as in NewToken.Make
	// OutOfService has no daemon serve the token any more.
	OutOfService func() error
	// Progress may be nil.
	Progress func(done, total int)

	before func(step string) // where a test has it end; may be nil
}

// ErrMoved is wrapped by the error of a move of a token that is of that kind.
var ErrMoved = errors.New("already")

// Move makes a move, and returns the directory to which what the token was has gone, which is
// empty where an earlier move had come so far. Whatever kills it, the token is the old one or the
// new one, and the same move again makes it the new one.
func (c Config) Move(ctx context.Context, m Move) (aside string, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	unlock, err := c.lockTokens(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	from, err := c.slotOf(m.Token, false)
	if err != nil {
		return "", err
	}
	if from.undeclared && from.Kind.Name == m.Kind {
		return "", config.WriteReplaced(c.Paths.Config, from.ID, movedSlot(from, from.Kind))
	}
	to, err := c.moved(from, m)
	if err != nil {
		return "", err
	}
	listed, err := c.listed()
	if err != nil {
		return "", err
	}
	if err := m.OutOfService(); err != nil {
		return "", err
	}
	name := m.Token + "-" + time.Now().UTC().Format("20060102T150405.000Z")
	sweepUnfinished(c.Paths.Data)
	made := filepath.Join(c.Paths.Data, newPrefix+name)
	if err := c.copyToken(ctx, from, to, made, m); err != nil {
		return "", errors.Join(err, os.RemoveAll(made))
	}
	aside = filepath.Join(c.Paths.Data, RemovedPrefix+name)
	steps := []moveStep{
		// What is made stands where what it replaces will stand: it is swept no more.
		{"keep", func() error { return errors.Join(syncBelow(made), os.Rename(made, aside), syncBelow(c.Paths.Data)) }},
		{"exchange", func() error { return exchange(c.Paths.Data, aside, from.Place.Dir) }},
	}
	if listed {
		declare := moveStep{"declare", func() error { return config.WriteReplaced(c.Paths.Config, from.ID, to.Slot) }}
		if toldByDirectory(*to.Kind) { // until then, or from then on, Slots goes by the directory
			steps = slices.Insert(steps, 1, declare)
		} else {
			steps = append(steps, declare)
		}
	}
	for _, step := range steps {
		m.reached(step.name)
		if err := step.do(); err != nil {
			return aside, err
		}
	}
	return aside, nil
}

// A moveStep is one of those after which a move may have ended.
type moveStep struct {
	name string
	do   func() error
}

func (m Move) reached(step string) {
	if m.before != nil {
		m.before(step)
	}
}

// exchange exchanges two directories in data.
func exchange(data, a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", a, b, err)
	}
	return syncBelow(data)
}

// moved is the slot of a token that a move is to make of another one.
func (c Config) moved(from Slot, m Move) (to Slot, err error) {
	at := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool { return k.Name == m.Kind })
	switch {
	case at < 0:
		return to, fmt.Errorf("there is no kind of token %q", m.Kind)
	case from.Kind.Name == m.Kind:
		return to, fmt.Errorf("%s is of the kind %s %w", m.Token, m.Kind, ErrMoved)
	case !from.Kind.Portable || !c.Kinds[at].Portable:
		return to, fmt.Errorf("%s is of the kind %s, and cannot become a token of %s: name a token whose keys are in files or in a fleet", m.Token, from.Kind.Name, m.Kind)
	}
	k := &c.Kinds[at]
	for _, one := range slices.Sorted(maps.Keys(m.Settings)) {
		if value := m.Settings[one]; !slices.Contains(k.Settings, one) || strings.ContainsAny(value, "\n#") {
			return to, fmt.Errorf("%s %q is no setting of tokens of the kind %s", one, value, k.Name)
		}
	}
	to = Slot{Slot: movedSlot(from, k), Kind: k, Place: from.Place, numbered: from.numbered}
	to.Place.Config, to.Place.Format, to.Place.AnyFormat = "", newest(), false
	return to, nil
}

// movedSlot is what the configuration says of a slot once its token is of a kind.
func movedSlot(from Slot, k *tokens.Kind) config.Slot {
	s := from.Slot
	s.Library, s.ConfName, s.TokenName = k.Library+".so", "", from.Place.Name
	s.Format, s.HasFormat = p11.Version{}, false
	if !toldByDirectory(*k) {
		s.Format, s.HasFormat = newest(), true
	}
	return s
}

// copyToken makes the token that to is in a directory.
func (c Config) copyToken(ctx context.Context, from, to Slot, dir string, m Move) (err error) {
	was, err := c.OpenUpkeep(m.Token, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, was.Close()) }()
	st, err := was.State()
	switch {
	case err != nil:
		return err
	case !st.Present || !st.Initialized:
		return fmt.Errorf("%s has no token that anybody has initialised: there is nothing to move", m.Token)
	case st.Format != newest():
		return fmt.Errorf("%s has the format of openCryptoki 3.8: p11fs migrate %[1]s without options first brings it into that of 3.12", m.Token)
	}
	p := to.Place
	p.Dir, p.Group, p.Log, p.Now = dir, c.group(), c.Log.With("token", m.Token), time.Now
	if err := locks.MakeDirectory(dir, dirMode(c.Mode), p.Group); err != nil {
		return err
	}
	if p.Lock, err = locks.Open(c.lockPath(from), p.Group); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Lock.Close()) }()
	if len(m.Settings) > 0 {
		if p.Config, err = settingsFile(m.Settings); err != nil {
			return err
		}
		defer os.Remove(p.Config)
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.reached("copy")
		w.CloseWithError(was.Backup(ctx, w, m.Progress))
	}()
	err = to.Kind.Upkeep(p).Restore(ctx, r, false, nil)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-done
	if errors.Is(err, tokens.ErrInitialized) {
		err = fmt.Errorf("%w, where %s is to go: to have that one served, p11fs token rm %[2]s first, and then token new --fleet FILE --adopt; docs/fleet.md has how this one replaces it", err, m.Token)
	}
	return err
}
