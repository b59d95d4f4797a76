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
}

// Move makes a move, and returns the directory to which what the token was has gone. Whatever
// kills it, the token is the old one or the new one.
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
	// What is made stands where what it replaces will stand.
	aside = filepath.Join(c.Paths.Data, RemovedPrefix+m.Token+"-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := c.copyToken(ctx, from, to, aside, m); err != nil {
		return "", errors.Join(err, os.RemoveAll(aside))
	}
	exchange := func() error {
		if err := errors.Join(syncBelow(aside), unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, from.Place.Dir, unix.RENAME_EXCHANGE)); err != nil {
			return fmt.Errorf("exchange %s and %s: %w", aside, from.Place.Dir, err)
		}
		return syncBelow(c.Paths.Data)
	}
	declare := func() error {
		if !listed {
			return nil
		}
		return config.WriteReplaced(c.Paths.Config, from.ID, to.Slot)
	}
	// Until it is declared, a directory has what the token was.
	steps := []func() error{exchange, declare}
	if toldByDirectory(*to.Kind) {
		steps = []func() error{declare, exchange}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return aside, err
		}
	}
	return aside, nil
}

// moved is the slot of a token that a move is to make of another one.
func (c Config) moved(from Slot, m Move) (to Slot, err error) {
	at := slices.IndexFunc(c.Kinds, func(k tokens.Kind) bool { return k.Name == m.Kind })
	switch {
	case at < 0:
		return to, fmt.Errorf("there is no kind of token %q", m.Kind)
	case from.Kind.Name == m.Kind:
		return to, fmt.Errorf("%s is of the kind %s already", m.Token, m.Kind)
	case !from.Kind.Portable || !c.Kinds[at].Portable:
		return to, fmt.Errorf("%s is of the kind %s, and cannot become a token of %s: name a token whose keys are in files or in a fleet", m.Token, from.Kind.Name, m.Kind)
	}
	k := &c.Kinds[at]
	for _, one := range slices.Sorted(maps.Keys(m.Settings)) {
		if value := m.Settings[one]; !slices.Contains(k.Settings, one) || strings.ContainsAny(value, "\n#") {
			return to, fmt.Errorf("%s %q is no setting of tokens of the kind %s", one, value, k.Name)
		}
	}
	to = Slot{Slot: from.Slot, Kind: k, Place: from.Place, numbered: from.numbered}
	to.Library, to.ConfName, to.TokenName = k.Library+".so", "", from.Place.Name
	newest := p11.Version{Major: 3, Minor: 12}
	to.Format, to.HasFormat = p11.Version{}, false
	if !toldByDirectory(*k) {
		to.Format, to.HasFormat = newest, true
	}
	to.Place.Config, to.Place.Format, to.Place.AnyFormat = "", newest, false
	return to, nil
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
	case st.Format != p11.Version{Major: 3, Minor: 12}:
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
		w.CloseWithError(was.Backup(ctx, w, m.Progress))
	}()
	err = to.Kind.Upkeep(p).Restore(ctx, r, false, nil)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	<-done
	if errors.Is(err, tokens.ErrInitialized) {
		err = fmt.Errorf("%w, where %s is to go: to have that one, p11fs token rm %[2]s, and p11fs token new %[2]s --fleet FILE --adopt; for this one to replace it, p11fs backup %[2]s before, and p11fs restore --force after that", err, m.Token)
	}
	return err
}
