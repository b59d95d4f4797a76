package fs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/p11"
)

// sessionsDir shows the caller's sessions and nobody else's: those with a name
// by name, the others by number. A name's session is found by its number too.
type sessionsDir struct {
	fs *FS
	p  place // of the token
}

func (d *sessionsDir) list(_ context.Context, c caller) ([]listed, error) {
	list := []listed{{name: "new", id: d.p.id() + "sessions/new", kind: syscall.S_IFREG}}
	a := d.fs.callers.find(c)
	if a == nil {
		return list, nil
	}
	all, self := a.sessions(d.p.slot)
	if self != nil {
		list = append(list, listed{name: "self", id: d.p.id() + "sessions/self", kind: syscall.S_IFLNK})
	}
	slices.SortFunc(all, func(a, b *session) int { return int(a.eng.Handle()) - int(b.eng.Handle()) })
	for _, s := range all {
		name, p := s.name, d.placeOf(c, s)
		if name == "" {
			name = strconv.FormatUint(uint64(s.eng.Handle()), 10)
		}
		list = append(list, listed{name: name, id: p.id(), kind: syscall.S_IFDIR})
	}
	return list, nil
}

// placeOf is the place of a session of the caller.
func (d *sessionsDir) placeOf(c caller, s *session) place {
	p := place{slot: d.p.slot, uid: c.uid, gid: c.gid, ref: sessionRef{number: s.eng.Handle()}}
	if s.name != "" {
		p.ref = sessionRef{name: s.name}
	}
	return p
}

func (d *sessionsDir) lookup(_ context.Context, c caller, name string) (*entry, error) {
	switch name {
	case "new":
		return &entry{id: d.p.id() + "sessions/new", place: d.p, perm: 0o440, fixed: true, file: newSessionFile{d}}, nil
	case "self":
		return &entry{id: d.p.id() + "sessions/self", place: d.p, perm: 0o777, fixed: true, moody: true, link: selfLink{d}}, nil
	}
	s := d.session(c, name)
	if s == nil {
		return nil, errNoSession
	}
	return d.entry(c, s), nil
}

func (d *sessionsDir) entry(c caller, s *session) *entry {
	p := d.placeOf(c, s)
	return &entry{id: p.id(), place: p, perm: 0o700, dir: d.fs.sessionDir(p)}
}

// session returns the caller's session of that name or number, or nil.
func (d *sessionsDir) session(c caller, name string) *session {
	a := d.fs.callers.find(c)
	if a == nil {
		return nil
	}
	if n, err := strconv.ParseUint(name, 10, 64); err == nil && strconv.FormatUint(n, 10) == name && n != 0 {
		return a.session(d.p.slot, sessionRef{number: p11.SessionHandle(n)})
	}
	if !validSessionName(name) {
		return nil
	}
	return a.session(d.p.slot, sessionRef{name: name})
}

// validSessionName keeps numbers, the fixed names and what a terminal should
// not meet out of the names of sessions.
func validSessionName(name string) bool {
	if name == "" || name == "new" || name == "self" || name[0] == '.' || len(name) > 64 {
		return false
	}
	digits := true
	for _, r := range []byte(name) {
		if r <= ' ' || r >= 0x7f {
			return false
		}
		digits = digits && r >= '0' && r <= '9'
	}
	return !digits
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
	if a.session(d.p.slot, sessionRef{name: name}) != nil {
		return nil, errExists
	}
	s, err := a.open(ctx, d.fs, d.p.slot, name)
	if err != nil {
		return nil, err
	}
	return d.entry(c, s), nil
}

// rmdir closes a session.
func (d *sessionsDir) rmdir(_ context.Context, c caller, name string) error {
	s := d.session(c, name)
	if s == nil {
		return errNoSession
	}
	s.app.closeSession(s)
	return nil
}

// unlink refuses: new and self are always there.
func (d *sessionsDir) unlink(context.Context, caller, string) error { return errFixed }

// selfLink is the link to the caller's own default session. Following it makes
// the session; a listing shows it only once it is made.
type selfLink struct{ dir *sessionsDir }

func (l selfLink) target(ctx context.Context, c caller) (string, error) {
	a, err := l.dir.fs.callers.get(c)
	if err != nil {
		return "", err
	}
	s, err := a.self(ctx, l.dir.fs, l.dir.p.slot)
	if err != nil {
		return "", err
	}
	return strconv.FormatUint(uint64(s.eng.Handle()), 10), nil
}

// newSessionFile opens a session when it is read, and gives its number.
type newSessionFile struct{ dir *sessionsDir }

func (newSessionFile) size(context.Context, caller) uint64 { return 0 }

func (n newSessionFile) open(_ context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	if _, write := wants(flags); write {
		return nil, 0, errReadOnly
	}
	a, err := n.dir.fs.callers.get(c)
	if err != nil {
		return nil, 0, err
	}
	return &newSessionHandle{dir: n.dir, app: a, gate: newGate()}, fuse.FOPEN_NOFLUSH, nil
}

// newSessionHandle opens one session, however often it is read.
type newSessionHandle struct {
	dir *sessionsDir
	app *application

	gate gate // guards text
	text []byte
}

// Read opens the session at the first call.
func (h *newSessionHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := h.dir.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	if h.text == nil {
		s, err := h.app.open(ctx, h.dir.fs, h.dir.p.slot, "")
		if err != nil {
			return nil, h.dir.fs.doneIn(h.app, h.dir.p, err)
		}
		h.text = fmt.Appendf(nil, "%d\n", uint64(s.eng.Handle()))
	}
	return readAt(h.text, dest, off), 0
}
