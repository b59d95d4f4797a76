package fs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/p11"
	"p11fs/secret"
)

// maxBlob is the longest file in data and certs, in bytes.
const maxBlob = 1 << 20

// blobHandle is an ordinary file that is open for writing: its content is in
// memory, and stored as a whole when a descriptor is closed.
type blobHandle struct {
	fs     *FS
	p      place
	s      *session
	append bool
	guard  bool   // a logout takes the content away
	login  uint64 // the login generation at the open
	// commit stores the content. It may come again.
	commit func(ctx context.Context, data []byte) error

	gate  gate // guards all below
	data  []byte
	dirty bool
	// emptied says that O_TRUNC took the content and nothing came since. To
	// store that is not for the first close: in a shell's `echo x > f` it comes
	// before the write, and the object would be empty in between, for good if
	// the daemon died. It is for the next close, the end of the handle, or a
	// look at the object by the application itself; closed says that one of
	// these is due.
	emptied, closed bool
	ref             objectRef // of the object, where O_TRUNC takes its content
	// failed says that a write was refused, so that the content is not whole.
	failed bool
}

// Write puts data at off, or at the end.
func (h *blobHandle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	ctx, end := h.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return 0, syscall.EINTR
	}
	defer h.gate.leave()
	defer secret.Wipe(data) // the request's buffer goes back to a pool
	if h.append {
		off = int64(len(h.data))
	}
	if err := h.resize(max(len(h.data), int(min(off, maxBlob))+len(data))); err != nil || off > maxBlob {
		h.failed = true
		return 0, h.fs.doneIn(h.s.app, h.p, errTooLong)
	}
	copy(h.data[off:], data)
	if len(data) > 0 {
		h.changed()
	}
	return uint32(len(data)), 0
}

// changed says that there is something to store.
func (h *blobHandle) changed() {
	h.dirty = true
	if h.emptied {
		h.emptied = false
		h.s.app.settled(h)
	}
}

// resize makes the content n bytes long, with zeros where it grows.
func (h *blobHandle) resize(n int) error {
	if n > maxBlob {
		return errTooLong
	}
	old := len(h.data)
	if n < old {
		clear(h.data[n:])
		h.data = h.data[:n]
	} else {
		h.data = secret.Append(h.data, make([]byte, n-old))
	}
	return nil
}

// truncate sets the length.
func (h *blobHandle) truncate(ctx context.Context, size uint64) error {
	if !h.gate.enter(ctx) {
		return context.Canceled
	}
	defer h.gate.leave()
	if err := h.resize(int(min(size, maxBlob+1))); err != nil {
		return err
	}
	h.changed()
	h.failed = h.failed && size > 0
	return nil
}

// Read returns the content at off.
func (h *blobHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := h.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	if h.guard && h.s.loginGeneration() != h.login {
		return nil, h.fs.doneIn(h.s.app, h.p, errLoggedOut)
	}
	return readAt(h.data, dest, off), 0
}

// Flush stores the content if it has changed.
func (h *blobHandle) Flush(ctx context.Context) syscall.Errno {
	ctx, end := h.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return syscall.EINTR
	}
	defer h.gate.leave()
	if h.failed {
		// What is stored stays as it was: half a secret is none.
		return h.fs.doneIn(h.s.app, h.p, errTooLong)
	}
	if h.emptied && !h.closed {
		h.closed = true
		h.s.app.unsettled(h)
		return 0
	}
	return h.store(ctx)
}

// store stores the content if it has changed. The gate is held.
func (h *blobHandle) store(ctx context.Context) syscall.Errno {
	if h.emptied {
		h.changed()
	}
	if !h.dirty {
		return 0
	}
	errno := h.fs.doneIn(h.s.app, h.p, h.commit(ctx, h.data))
	if errno != syscall.EINTR {
		h.dirty = false
	}
	return errno
}

// settle stores that O_TRUNC took the content, if a descriptor was closed since.
func (h *blobHandle) settle(ctx context.Context) {
	if !h.gate.enter(ctx) {
		return
	}
	defer h.gate.leave()
	if h.emptied && h.closed {
		_ = h.store(ctx)
	}
}

// Release wipes the content. What was not flushed is not stored.
func (h *blobHandle) Release(ctx context.Context) syscall.Errno {
	h.gate.force()
	defer h.gate.leave()
	if h.emptied && h.closed {
		_ = h.store(context.WithoutCancel(ctx))
	}
	secret.Wipe(h.data)
	h.data = nil
	h.fs.handles.Add(-1)
	return 0
}

var errLoggedOut = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login under which the file was opened has ended")
