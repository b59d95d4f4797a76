package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// Check is tokens.Upkeep. It opens the token as a daemon does, which removes what one that
// was killed has left, and looks at what came of each file.
func (u *Upkeep) Check(ctx context.Context, pin *secret.Bytes) (c tokens.Checked, err error) {
	var now found
	err = u.locked(ctx, func(s site) error {
		if now, err = u.look(s, s.name); err != nil || !now.present {
			return err
		}
		c.Notes, err = leftovers(s)
		return err
	})
	if err == nil && !now.present {
		err = p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token in %s", u.cfg.Dir)
	}
	if err != nil {
		return c, err
	}
	cfg := u.cfg
	if cfg.Format == nil {
		cfg.Format, cfg.Other = u.before, u.after
	}
	if now.format.Foreign() {
		cfg.Shared = nil
	}
	s, err := Open(ctx, cfg)
	if err != nil {
		return c, err
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	if pin != nil {
		l, err := s.Login(ctx, p11.CKU_USER, pin)
		if err != nil {
			return c, err
		}
		defer l.Close()
	}
	end, err := s.begin(ctx)
	if err != nil {
		return c, err
	}
	defer end()
	return c, s.examine(&c)
}

// leftovers are the files that somebody began to write. The token's lock is held, so nobody
// writes them now but a stock program that does without it.
func leftovers(s site) (notes []string, err error) {
	for _, dir := range []string{s.name, s.name + "/" + objectsDir} {
		d, err := s.open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = d.each(func(n string) error {
			if isTemp(n) || strings.HasSuffix(n, ".TMP") {
				notes = append(notes, fmt.Sprintf("%s was left behind by a process that ended; it means nothing", n))
			}
			return nil
		})
		d.close()
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(notes)
	return notes, nil
}

// examine says what is wrong with the files of an open token. The token's lock is held.
func (s *Store) examine(c *tokens.Checked) error {
	wrong := func(format string, args ...any) { c.Wrong = append(c.Wrong, fmt.Sprintf(format, args...)) }
	note := func(format string, args ...any) { c.Notes = append(c.Notes, fmt.Sprintf(format, args...)) }
	for _, d := range s.Damaged() {
		wrong("%s: %s", d.File, d.Why)
	}
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	for _, line := range x.Unknown {
		wrong("%s has the line %.40q, which is no object's name", indexFile, line)
	}
	if !x.Clean && len(x.Unknown) == 0 && len(x.Names) > 0 {
		note("%s has lines that come twice or are cut off; the next change leaves them out", indexFile)
	}
	there := make(map[format.Name]bool)
	err = s.objs.each(func(file string) error {
		if n, ok := format.ParseName(file); ok {
			there[n] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range x.Names {
		if !there[n] {
			note("%s lists %s, which has no file, and so is none", indexFile, n)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, file := range s.files {
		if there[n] {
			c.Objects++
			if file.private {
				c.Private++
			}
		}
	}
	return nil
}
