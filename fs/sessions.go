package fs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"p11fs/p11"
)

// sessionsDir shows the caller's sessions and nobody else's: those with a name
// by name, the others by number. A session with a name is found by number too. new
// is found and not listed: who reads all files that a listing has, as grep -r does,
// opens no session.
type sessionsDir struct {
	fixedNames
	place // of the token
}

func (d *sessionsDir) list(_ context.Context, c caller) (entries, error) {
	a := d.fs.callers.find(c)
	if a == nil {
		return few(nil), nil
	}
	var list few
	if a.session(d.slot, sessionRef{}) != nil {
		list = append(list, d.dirEntry("self", "sessions/self", syscall.S_IFLNK))
	}
	all := a.sessions(d.slot)
	slices.SortFunc(all, func(a, b *session) int { return cmp.Compare(a.eng.Handle(), b.eng.Handle()) })
	for _, s := range all {
		list = append(list, d.below(c, s).dirEntry(cmp.Or(s.name, s.number()), "", syscall.S_IFDIR))
	}
	return list, nil
}

func (s *session) number() string { return strconv.FormatUint(uint64(s.eng.Handle()), 10) }

// below is the place of a session of the caller.
func (d *sessionsDir) below(c caller, s *session) place {
	ref := sessionRef{name: s.name}
	if s.name == "" {
		ref.number = s.eng.Handle()
	}
	return place{fs: d.fs, slot: d.slot, ref: ref, uid: c.uid, gid: c.gid, whose: s.app.owner}
}

func (d *sessionsDir) lookup(_ context.Context, c caller, name string) (*entry, error) {
	switch name {
	case "new":
		return &entry{place: d.place, path: "sessions/new", perm: 0o440, file: &file{open: d.openNew}}, nil
	case "self":
		return &entry{place: d.place, path: "sessions/self", perm: 0o777, everyones: true, link: d.self}, nil
	}
	s := d.named(c, name)
	if s == nil {
		return nil, errNoSession
	}
	return d.entry(c, s), nil
}

func (d *sessionsDir) entry(c caller, s *session) *entry {
	p := d.below(c, s)
	return &entry{place: p, perm: 0o700, dir: p.directory()}
}

// named returns the caller's session of that name or number, or nil.
func (d *sessionsDir) named(c caller, name string) *session {
	a := d.fs.callers.find(c)
	if a == nil {
		return nil
	}
	ref := sessionRef{name: name}
	if n, err := strconv.ParseUint(name, 10, 64); err == nil && strconv.FormatUint(n, 10) == name && n != 0 {
		ref = sessionRef{number: p11.SessionHandle(n)}
	} else if !validSessionName(name) {
		return nil
	}
	return a.session(d.slot, ref)
}

// validSessionName keeps numbers, the fixed names and what a terminal should
// not meet out of the names of sessions.
func validSessionName(name string) bool {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	return name != "new" && name != "self" && len(name) <= 64 && !strings.HasPrefix(name, ".") &&
		strings.Trim(name, "0123456789") != "" && !strings.ContainsFunc(name, odd)
}

// mkdir opens a session by name.
func (d *sessionsDir) mkdir(ctx context.Context, c caller, name string) (*entry, error) {
	if !validSessionName(name) {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a session's name is up to 64 printable ASCII characters without blanks, no number, and not new or self")
	}
	a, err := d.fs.callers.get(c)
	if err != nil {
		return nil, err
	}
	s, err := a.open(ctx, d.place, sessionRef{name: name})
	if err != nil {
		return nil, err
	}
	return d.entry(c, s), nil
}

// rmdir closes a session.
func (d *sessionsDir) rmdir(_ context.Context, c caller, name string) error {
	s := d.named(c, name)
	if s == nil {
		return errNoSession
	}
	s.app.closeSession(s)
	return nil
}

// self is where the link to the caller's default session leads. Following it opens
// the session. A listing, which must not, shows the link once the session is open.
func (d *sessionsDir) self(ctx context.Context, c caller) (string, error) {
	s, err := d.session(ctx, c)
	if err != nil {
		return "", err
	}
	return s.number(), nil
}

// openNew opens a session at the first read, and gives its number.
func (d *sessionsDir) openNew(_ context.Context, c caller, flags uint32) (*handle, error) {
	if _, write := wants(flags); write {
		return nil, errReadOnly
	}
	a, err := d.fs.callers.get(c)
	if err != nil {
		return nil, err
	}
	h := d.newHandle(a)
	var text []byte
	h.read = func(ctx context.Context, dest []byte, off int64) ([]byte, error) {
		if text == nil {
			s, err := a.open(ctx, d.place)
			if err != nil {
				return nil, err
			}
			text = fmt.Appendf(nil, "%s\n", s.number())
		}
		return readAt(text, dest, off), nil
	}
	return h, nil
}
