package fs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/p11"
)

// Config is what an FS is made of.
type Config struct {
	Engine *engine.Engine
	Log    *slog.Logger     // nil discards
	Now    func() time.Time // nil is time.Now

	// The texts of the files of the same name in the root. A nil one makes
	// the file empty.
	Status    func() string
	Resources func() string
	Metrics   func() string

	// UID and GID own the tree, except for session directories.
	UID, GID uint32
	// Private keeps the group out: the tree is its owner's alone.
	Private bool
}

// FS is the file tree over one engine.
type FS struct {
	engine  *engine.Engine
	log     *slog.Logger
	now     func() time.Time
	config  Config
	callers *callers
	started time.Time
	inoKey  [24]byte
	ops     []operation   // never changes
	grace   time.Duration // interruptGrace, except in tests

	panics  atomic.Uint64
	handles atomic.Int64
}

// New returns the tree. Close ends it.
func New(c Config) (*FS, error) { return newFS(c, systemProcesses()) }

func newFS(c Config, system processes) (*FS, error) {
	if c.Engine == nil {
		return nil, fmt.Errorf("fs: no engine")
	}
	f := &FS{engine: c.Engine, log: c.Log, now: c.Now, config: c, ops: operations(), grace: interruptGrace}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.now == nil {
		f.now = time.Now
	}
	if _, err := rand.Read(f.inoKey[:]); err != nil {
		return nil, fmt.Errorf("random numbers: %w", err)
	}
	f.started = f.now()
	f.callers = newCallers(c.Engine, system)
	return f, nil
}

// Close ends the applications of all callers. The engine stays open.
func (f *FS) Close() error {
	f.callers.close()
	return nil
}

// Stats counts what the tree holds, and what went wrong in it.
type Stats struct {
	Applications int    // callers with state
	Handles      int    // open files that hold state
	Panics       uint64 // requests that panicked, and were answered EIO
}

// Stats returns the counts as they stand now.
func (f *FS) Stats() Stats {
	return Stats{Applications: f.callers.count(), Handles: int(f.handles.Load()), Panics: f.panics.Load()}
}

// A place is where in the tree a node stands: on which slot, and in which of
// the caller's sessions its operations run.
type place struct {
	slot     *engine.Slot
	ref      sessionRef
	uid, gid uint32 // whose directory it is, unless ref is the default session
}

// id is the part of a node's identity that its place makes.
func (p place) id() string {
	switch {
	case p.slot == nil:
		return "/"
	case p.ref.self():
		return fmt.Sprintf("%d/", uint64(p.slot.ID()))
	}
	return fmt.Sprintf("%d/s%d:%d:%s/", uint64(p.slot.ID()), p.uid, uint64(p.ref.number), p.ref.name)
}

// key is what a session knows the file of that identity by, which is the same
// below the token and below each path of the session.
func (p place) key(id string) string { return strings.TrimPrefix(id, p.id()) }

// ino is the inode number of the node with that identity. The hash is keyed: a
// number tells nothing of the node or of any other.
func (f *FS) ino(id string) uint64 {
	var buf [128]byte
	sum := sha256.Sum256(append(append(buf[:0], f.inoKey[:]...), id...))
	n := binary.LittleEndian.Uint64(sum[:])
	if n < 16 || n == ^uint64(0) { // numbers that the kernel or go-fuse reserves
		n ^= 1 << 40
	}
	return n
}

// session returns the session in which the caller's operations at p run. The
// default session is made when there is none.
func (f *FS) session(ctx context.Context, c caller, p place) (*session, error) {
	a, err := f.callers.get(c)
	if err != nil {
		return nil, err
	}
	if p.ref.self() {
		return a.self(ctx, f, p.slot)
	}
	if s := a.session(p.slot, p.ref); s != nil {
		return s, nil
	}
	return nil, errNoSession
}

// present returns the caller's session at p, or nil when it has none. It makes
// nothing.
func (f *FS) present(c caller, p place) *session {
	a := f.callers.find(c)
	if a == nil {
		return nil
	}
	return a.session(p.slot, p.ref)
}

// viewer returns the engine's application that says what the caller may see at
// p. Below a session directory there must be that session.
func (f *FS) viewer(c caller, p place) (*engine.Application, error) {
	a := f.callers.find(c)
	if !p.ref.self() && (a == nil || a.session(p.slot, p.ref) == nil) {
		return nil, errNoSession
	}
	if a == nil {
		return f.callers.nobody, nil
	}
	return a.eng, nil
}

// done keeps what became of an operation for the file error, and returns its
// errno.
func (f *FS) done(c caller, p place, err error) syscall.Errno {
	errno := errnoFor(err)
	if p.slot == nil || errno == syscall.EINTR || errors.Is(err, errNobody) {
		return errno
	}
	if err == nil {
		// What went well is kept where there is something to correct.
		if a := f.callers.find(c); a != nil {
			f.note(a, p, lastError{})
		}
		return 0
	}
	a, getErr := f.callers.get(c)
	if getErr != nil {
		return errno
	}
	f.note(a, p, errorOf(err))
	return errno
}

// hint is done for an answer that programs get without anything being wrong, as
// whoever reads a whole tree or looks whether a name is taken: no such object, no
// result. It does not push a real error out of the file error.
func (f *FS) hint(c caller, p place, err error) syscall.Errno {
	errno := errnoFor(err)
	if p.slot == nil {
		return errno
	}
	if a, getErr := f.callers.get(c); getErr == nil {
		if _, in := a.eng.LoggedIn(p.slot); !in && errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
			err = errUnseen
		}
		e := errorOf(err)
		e.hint = true
		f.note(a, p, e)
	}
	return errno
}

// doneIn is done for a handle: its caller may have ended since the open.
func (f *FS) doneIn(a *application, p place, err error) syscall.Errno {
	errno := errnoFor(err)
	if errno == syscall.EINTR {
		return errno
	}
	f.note(a, p, errorOf(err))
	return errno
}

func (f *FS) note(a *application, p place, e lastError) {
	e.at = f.now()
	if p.ref.self() {
		a.note(p.slot, e)
	} else if s := a.session(p.slot, p.ref); s == nil {
		a.note(p.slot, e) // with the session went its file error
	} else if s == a.session(p.slot, sessionRef{}) {
		a.note(p.slot, e)
	} else {
		s.note(e)
	}
}

// text is the line that the file error shows.
func (e lastError) text() string {
	if e.rv == p11.CKR_OK {
		return "0x00000000 CKR_OK\n"
	}
	why := clean(e.why)
	switch {
	case e.told:
	case e.why == e.rv.String():
		why = e.rv.Advice()
	default:
		why += ": " + e.rv.Advice()
	}
	return fmt.Sprintf("%#08x %s: %s\n", uint64(e.rv), e.rv, why)
}

// clean keeps a text on one line of printable characters.
func clean(s string) string {
	b := []rune(s)
	for i, r := range b {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			b[i] = ' '
		}
	}
	return string(b)
}
