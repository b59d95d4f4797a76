package mountd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"p11fs/locks"
	"p11fs/tokens"
)

// OpenDirectory opens the token called name for a command, whether a daemon has it or not: what
// each changes the other sees.
func (c Config) OpenDirectory(ctx context.Context, name string) (_ *Made, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := c.slotOf(name, false)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(s.Place.Dir, "NVTOK.DAT")); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no token yet: p11fs init makes it", name)
	}
	m := &Made{Slot: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	p := s.Place
	p.Group, p.Log, p.Now = c.group(), c.Log.With("token", name), time.Now
	if err := locks.MakeDirectory(c.Paths.Locks, dirMode(c.Mode), p.Group); err != nil {
		return nil, err
	}
	if p.Lock, err = locks.Open(c.lockPath(s), p.Group); err != nil {
		return nil, err
	}
	m.undo = append(m.undo, p.Lock.Close)
	if segment, ok := c.segmentOf(s); ok {
		if _, err := os.Stat(filepath.Join(segment.Dir, segment.Name)); err == nil && !tokens.NewFormat(p.Format) {
			p.Shared = segment // which says more than the directory
		}
	}
	if m.Token, err = s.Kind.Open(ctx, p); err != nil {
		return nil, err
	}
	m.undo = append(m.undo, m.Token.Close)
	return m, nil
}
