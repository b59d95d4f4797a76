package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// openResult opens a file to read what another open of it, in the same session,
// has left. Nothing is taken before the first read.
func (f *FS) openResult(c caller, p place, key string) (gofs.FileHandle, uint32, error) {
	f.handles.Add(1)
	return &resultHandle{fs: f, p: p, key: key, s: f.present(c, p), gate: newGate()}, fuse.FOPEN_NOFLUSH, nil
}

// resultHandle reads a result once, with a cursor of its own: the offset that
// the kernel sends is that of a descriptor that may have written before.
type resultHandle struct {
	fs  *FS
	p   place
	key string

	gate  gate     // guards all below
	s     *session // nil when the caller had none yet
	taken bool
	out   *output // nil before it is taken, and once all of it is read
	rest  []byte  // what of it is unread
}

// Read takes the result at the first call. It ends with 0 bytes, and is
// ENODATA when nothing waits.
func (h *resultHandle) Read(ctx context.Context, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	if !h.taken {
		if errno := h.take(callerOf(ctx)); errno != 0 {
			return nil, errno
		}
	}
	n := copy(dest, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) == 0 {
		h.release()
	}
	return reply(dest[:n]), 0
}

func (h *resultHandle) take(c caller) syscall.Errno {
	if h.s == nil {
		return h.fs.hint(c, h.p, errNothing)
	}
	out, err := h.s.take(h.key)
	switch {
	case err == nil:
		h.out, h.rest, h.taken = out, out.bytes(), true
		return 0
	case errors.Is(err, errNothing):
		return h.fs.hint(c, h.p, errNothing)
	}
	return h.fs.doneIn(h.s.app, h.p, err)
}

func (h *resultHandle) release() {
	if h.out != nil {
		h.out.release()
		h.out, h.rest = nil, nil
	}
}

// Release gives back what was not read to its end.
func (h *resultHandle) Release(context.Context) syscall.Errno {
	h.gate.force()
	defer h.gate.leave()
	h.release()
	h.fs.handles.Add(-1)
	return 0
}
