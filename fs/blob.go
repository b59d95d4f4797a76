package fs

import (
	"context"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/secret"
)

// maxBlob is the longest file in data and certs, in bytes.
const maxBlob = 1 << 20

// A blob is an ordinary file that is open for writing. Its content is in memory,
// and is stored as a whole when a descriptor is closed.
type blob struct {
	handle  *handle
	s       *session
	append  bool
	guarded bool // a logout ends reading
	filled  bool // what is empty is not stored
	// commit stores the content, and returns the objects that have it. It may be called
	// again.
	commit func(ctx context.Context, data []byte) ([]p11.ObjectHandle, error)

	dir, label string    // which file it is, for application.date
	dated      time.Time // the time that the next content has; guarded by application.mu

	data   []byte // its capacity counts in the session
	kept   int    // how much of data is stored, what is appended follows; -1 if all of it is new
	dirty  bool
	failed error  // why the content is not whole: half a secret is none, and what is stored stays
	writer uint64 // the process that wrote last

	// emptied is set if O_TRUNC took the content of the object ref and nothing was
	// written since. The first close does not store that: in a shell's `echo x > f`
	// it comes before the write, and the object would be empty in between, for good if
	// the write was refused or the daemon died. What stores it is the next close, or the
	// end of the handle. Once due is set by a close the application itself finds the
	// object empty.
	emptied, due bool
	ref          objectRef
}

// open makes b the state of a handle.
func (b *blob) open(flags uint32) *handle {
	b.handle = b.s.newHandle()
	b.s.app.setWriting(b, true)
	b.append = flags&syscall.O_APPEND != 0
	b.handle.read, b.handle.write, b.handle.flush, b.handle.truncate, b.handle.release = b.read, b.write, b.flush, b.truncate, b.release
	if b.guarded {
		b.handle.endWithLogin()
	}
	return b.handle
}

func (b *blob) read(_ context.Context, dest []byte, off int64) ([]byte, error) {
	return readAt(b.data, dest, off), nil
}

// write puts data at off, or at the end.
func (b *blob) write(ctx context.Context, data []byte, off int64) error {
	b.writer = requestOf(ctx).process
	if b.append {
		off = int64(len(b.data))
	}
	if off > int64(maxBlob-len(data)) {
		b.failed = errTooLong
		return errTooLong
	}
	if len(data) > 0 {
		if err := b.resize(max(len(b.data), int(off)+len(data))); err != nil {
			b.failed = err
			return err
		}
		copy(b.data[off:], data)
		b.changed()
		_ = b.s.app.takeDate(b) // the time of what is written now is another
	}
	return nil
}

func (b *blob) changed() {
	b.dirty = true
	if b.emptied {
		b.emptied = false
		b.s.app.setEmptied(b)
	}
}

// resize makes the content n bytes long, with zeros where it grows.
func (b *blob) resize(n int) error {
	if n <= cap(b.data) {
		if n < len(b.data) {
			clear(b.data[n:])
		}
		b.data = b.data[:n]
		return nil
	}
	// Twice as long, for a file that is written in small parts.
	size := min(max(n, 2*cap(b.data)), maxBlob)
	if err := b.s.reserve(size - cap(b.data)); err != nil {
		return err
	}
	old := b.data
	b.data = make([]byte, n, size)
	copy(b.data, old)
	secret.Wipe(old)
	return nil
}

// load makes data, which is copied, the content before anything is written.
func (b *blob) load(data []byte) error {
	err := b.resize(len(data))
	copy(b.data, data)
	b.kept = len(data)
	return err
}

func (b *blob) truncate(_ context.Context, size uint64) error {
	if size > maxBlob {
		return errTooLong
	}
	if err := b.resize(int(size)); err != nil {
		return err
	}
	b.changed()
	b.kept = -1
	b.dirty = size > 0 || !b.filled
	if size == 0 {
		b.failed = nil
	}
	return nil
}

func (b *blob) flush(ctx context.Context) error {
	switch {
	case b.failed != nil:
		return b.failed
	case (b.dirty || b.emptied) && b.s.fs.callers.killed(int(callerOf(ctx).pid)):
		if b.due = false; b.dirty && b.writer == requestOf(ctx).process {
			b.failed = errKilled
		}
		return b.failed
	case b.emptied && !b.due:
		b.due = true
		b.s.app.setEmptied(b)
		return nil
	}
	return b.store(ctx)
}

// store stores the content if it has changed.
func (b *blob) store(ctx context.Context) error {
	if b.emptied {
		b.changed()
	}
	if !b.dirty {
		return nil
	}
	list, err := b.commit(ctx, b.data)
	if errnoFor(err) != syscall.EINTR {
		b.dirty = false
	}
	if err != nil {
		return err
	}
	if b.kept >= 0 {
		b.kept = len(b.data)
	}
	if at := b.s.app.takeDate(b); !at.IsZero() {
		for _, h := range list {
			if err := b.s.eng.DateObject(context.WithoutCancel(ctx), h, at); err != nil {
				return err
			}
		}
	}
	b.handle.succeeded()
	return nil
}

// storeEmptied stores that O_TRUNC took the content, if that is due.
func (b *blob) storeEmptied(ctx context.Context) {
	if b.emptied && b.due && b.failed == nil {
		_ = b.handle.failedIn(b.s.app, b.handle.path, b.store(ctx))
	}
}

// release wipes the content. What was not flushed is not stored.
func (b *blob) release(ctx context.Context) {
	b.storeEmptied(ctx)
	b.emptied = false
	b.s.app.setEmptied(b)
	b.s.app.setWriting(b, false)
	secret.Wipe(b.data)
	b.s.unreserve(cap(b.data))
	b.data = nil
}

// setWriting adds b to the files that are open for writing, or takes it out.
func (a *application) setWriting(b *blob, open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if open {
		a.writing[b] = struct{}{}
	} else {
		delete(a.writing, b)
	}
}

// date sets the time of what the application will have written to a file, and reports
// whether it has that open. futimens(2) comes before the close which stores the content.
func (a *application) date(dir, label string, at time.Time) (open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := range a.writing {
		if b.dir == dir && b.label == label {
			b.dated, open = at, true
		}
	}
	return open
}

// takeDate returns the time that was set, once, or the zero time.
func (a *application) takeDate(b *blob) (at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, b.dated = b.dated, at
	return at
}

// setEmptied adds b to the files whose empty content is due to be stored, or takes
// it out.
func (a *application) setEmptied(b *blob) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.emptied {
		a.emptied[b] = struct{}{}
	} else {
		delete(a.emptied, b)
	}
}

// hasEmptied reports whether the application has emptied the object, which is still to
// be stored.
func (a *application) hasEmptied(slot *engine.Slot, ref objectRef) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for b := range a.emptied {
		if b.s.slot == slot && b.ref == ref {
			return true
		}
	}
	return false
}

var errLoggedOut = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login under which the file was opened has ended")
