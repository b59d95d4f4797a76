package fs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/p11"
)

// A place is where in the tree a node is: on which slot, and in which of the
// caller's sessions its operations run.
type place struct {
	fs       *FS
	slot     *engine.Slot // nil at the top of the tree
	ref      sessionRef
	uid, gid uint32 // owner of the session's directory, unless ref is the default session
	whose    owner  // of which application the session is, likewise
}

// A sessionRef is how a path names a session: by number or by name. The zero one
// is the default session of whoever asks.
type sessionRef struct {
	number p11.SessionHandle
	name   string
}

func (r sessionRef) isDefault() bool { return r == sessionRef{} }

// id is the part of a node's identity that its place makes. Each application counts its
// sessions, and names them: what the kernel has marked as removed when one of them closes its
// session is no directory of another one's.
func (p place) id() string {
	switch {
	case p.slot == nil:
		return "/"
	case p.ref.isDefault():
		return fmt.Sprintf("%d/", p.slot.Serial())
	}
	return fmt.Sprintf("%d/s%d:%d:%s:%d:%s/", p.slot.Serial(), p.whose.uid, p.whose.sid, p.whose.started, uint64(p.ref.number), p.ref.name)
}

// ino is the inode number of the node with that identity. The hash is keyed, so
// that a number tells nothing about its node or any other.
func (f *FS) ino(id string) uint64 {
	var buf [128]byte
	sum := sha256.Sum256(append(append(buf[:0], f.inoKey[:]...), id...))
	n := binary.LittleEndian.Uint64(sum[:])
	if n < 16 || n == ^uint64(0) { // numbers that the kernel or go-fuse reserves
		n ^= 1 << 40
	}
	return n
}

// fileIno is the inode number of a file for one application. n is that of its entry.
func (f *FS) fileIno(n uint64, who owner) uint64 {
	return f.ino(fmt.Sprintf("%d %d %d %s", n, who.uid, who.sid, who.started))
}

// dirEntry is a line of a listing: a name, and what the entry of that name has as
// its path below the place and as its kind (S_IFREG …). The inode number is that of the entry.
func (p place) dirEntry(name, path string, kind uint32) fuse.DirEntry {
	return fuse.DirEntry{Name: name, Mode: kind, Ino: p.fs.ino(p.id() + path)}
}

// session returns the session in which the caller's operations run. The default
// session is opened if there is none.
func (p place) session(ctx context.Context, c caller) (*session, error) {
	a, err := p.fs.callers.get(c)
	if err != nil {
		return nil, err
	}
	if p.ref.isDefault() {
		return a.defaultSession(ctx, p)
	}
	if s := a.session(p.slot, p.ref); s != nil {
		return s, nil
	}
	return nil, errNoSession
}

// sessionIfOpen returns the caller's session if it is open, and else nil.
func (p place) sessionIfOpen(c caller) *session {
	a := p.fs.callers.find(c)
	if a == nil {
		return nil
	}
	return a.session(p.slot, p.ref)
}

// viewer returns the engine's application that decides what the caller may see.
// Below a session directory there must be that session.
func (p place) viewer(c caller) (*engine.Application, error) {
	if !p.ref.isDefault() && p.sessionIfOpen(c) == nil {
		return nil, errNoSession
	}
	if a := p.fs.callers.find(c); a != nil {
		return a.eng, nil
	}
	if p.slot != nil && p.slot.Grants() {
		if a, err := p.fs.callers.get(c); err == nil {
			return a.eng, nil
		}
	}
	return p.fs.callers.nobody, nil
}

// failed returns the errno of err, and keeps err for the caller's file error, as one of what
// is at path. After ESTALE the kernel tries again.
func (p place) failed(c caller, path string, err error) syscall.Errno {
	errno := errnoFor(err)
	if errno != 0 && errno != syscall.EINTR && errno != syscall.ESTALE && p.slot != nil {
		if a, noApp := p.fs.callers.get(c); noApp == nil {
			p.note(a, path, errorOf(err))
		}
	}
	return errno
}

// failedIn is failed where the application is known.
func (p place) failedIn(a *application, path string, err error) syscall.Errno {
	errno := errnoFor(err)
	if errno != 0 && errno != syscall.EINTR && errno != syscall.EAGAIN {
		p.note(a, path, errorOf(err))
	}
	return errno
}

// notFound returns the errno of a lookup that found nothing. Programs that read a
// whole tree, or look whether a name is taken, get such answers all the time.
func (p place) notFound(c caller, path string, err error) syscall.Errno {
	if !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) || p.slot == nil {
		return errnoFor(err)
	}
	if a, noApp := p.fs.callers.get(c); noApp == nil {
		if _, in := a.eng.LoggedIn(p.slot); !in {
			err = errUnseen
		}
		e := errorOf(err)
		e.harmless = true
		p.note(a, path, e)
	}
	return errnoFor(err)
}

// note keeps e for the file error.
func (p place) note(a *application, path string, e lastError) {
	e.path, e.at = path, p.fs.config.Now()
	p.errorFile(a).put(e)
}

// errorFile is what the file error of the application shows here. That of the
// token is that of the default session, and of a session that has ended.
func (p place) errorFile(a *application) *errorFile {
	if s := a.session(p.slot, p.ref); s != nil && s != a.session(p.slot, sessionRef{}) {
		return &s.errors
	}
	return a.errorFile(p.slot)
}
