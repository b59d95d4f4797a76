package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/p11"
	"p11fs/secret"
)

// A transform is one message in progress: what is written goes in, what is read
// comes out.
type transform interface {
	// update takes the next part and returns what output it gives. It keeps
	// nothing of part. An interrupt (EINTR) leaves it as it was.
	update(ctx context.Context, part []byte) ([]byte, error)
	// result returns the rest of the output, as if the message ended here. It
	// may go on, also after an error: update and result then do as if result had
	// not been called.
	result(ctx context.Context) ([]byte, error)
	// once says that no two results of one message may be let out: together they
	// would tell more than each, or only one was allowed.
	once() bool
	// close gives up what is held. It may be called again.
	close()
}

// A streamFile is a data file: a transform is behind it.
type streamFile struct {
	fs  *FS
	p   place
	key string // in the session's exchanges

	// start begins a message.
	start func(ctx context.Context, s *session) (transform, error)
	// creates says that the result makes objects: it is asked for once for each
	// piece of input, and later input is a piece of its own.
	creates bool
	// guarded says that a logout takes the result away.
	guarded func(ctx context.Context, c caller) bool
}

func (*streamFile) size(context.Context, caller) uint64 { return 0 }

func (f *streamFile) open(ctx context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	read, write := wants(flags)
	if !write {
		return f.fs.openResult(c, f.p, f.key)
	}
	s, err := f.fs.session(ctx, c, f.p)
	if err != nil {
		return nil, 0, err
	}
	// The first message begins at the open, so that a refusal stands there.
	t, err := f.start(ctx, s)
	if err != nil {
		return nil, 0, err
	}
	h := &streamHandle{file: f, s: s, private: read, t: t, append: flags&syscall.O_APPEND != 0, gate: newGate()}
	h.guarded = f.guarded == nil || f.guarded(ctx, c)
	h.login = s.loginGeneration()
	if !h.private {
		if h.generation, h.truncated, err = s.beginWriting(f.key); err != nil {
			t.close()
			return nil, 0, err
		}
	}
	f.fs.handles.Add(1)
	return h, 0, nil
}

// truncate to 0 starts a new message, whether it comes with the open, before or
// after it, with a handle or without.
func (f *streamFile) truncate(ctx context.Context, c caller, h gofs.FileHandle, size uint64) error {
	if size != 0 {
		return errTruncate
	}
	if h, ok := h.(*streamHandle); ok {
		return h.truncate(ctx)
	}
	if s := f.fs.present(c, f.p); s != nil {
		s.truncate(f.key)
	}
	return nil
}

// streamHandle is a file transaction: an open for writing, or for both.
//
// A message begins with the first write. A FLUSH after a write gives the result
// of all that was written so far, and data after it continues the message: the
// result is withdrawn, and the next one is of all of it. A FLUSH that fails is the
// failure of what was written so far, and ends the message no more than one that
// gives a result does. A read that finds no output waiting ends the message, as
// does a read of its result; data after that begins the next one.
type streamHandle struct {
	file       *streamFile
	s          *session
	private    bool // open for reading too: the result stays here
	append     bool
	guarded    bool
	generation uint64

	gate      gate // guards all below
	truncated uint64
	login     uint64    // the login generation when t began
	t         transform // nil when none is begun, and when the message cannot go on
	wrote     int64     // bytes of the message, all descriptors together
	end       int64     // where the last read or write of the kernel ended
	dirty     bool      // written since the last FLUSH
	ended     bool      // there is a result of all that was written, or err
	read      bool      // something was read since
	err       error     // instead of a result
	out       *output   // output that is held; nil when there never was any
	kept      int       // how much of out stays when the message goes on
	next      int       // where in out the next read begins
}

// Write takes the next part of the message.
func (h *streamHandle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	ctx, end := h.file.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return 0, syscall.EINTR
	}
	defer h.gate.leave()
	n := len(data)
	err := h.write(ctx, data, off)
	secret.Wipe(data) // the request's buffer goes back to a pool
	if err != nil {
		errno := h.file.fs.doneIn(h.s.app, h.file.p, err)
		if errno != syscall.EINTR {
			h.breakOff(err)
		}
		return 0, errno
	}
	h.end = off + int64(n)
	return uint32(n), 0
}

func (h *streamHandle) write(ctx context.Context, data []byte, off int64) error {
	h.seeTruncation()
	if h.ended && h.read {
		h.reset()
		h.end = off // wherever the descriptor stands now
	}
	if h.err != nil && h.t == nil {
		return h.err
	}
	if !h.append && off != h.wrote && off != h.end {
		return errOrder
	}
	if len(data) == 0 {
		return nil
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	if h.ended {
		if err := h.resume(); err != nil {
			return err
		}
	}
	out, err := h.t.update(ctx, data)
	if err != nil {
		return err
	}
	h.wrote += int64(len(data))
	h.dirty = true
	if err := h.hold(out); err != nil {
		return err
	}
	h.kept = len(h.out.bytes())
	return nil
}

// begin starts the transform if there is none.
func (h *streamHandle) begin(ctx context.Context) (err error) {
	if h.t == nil {
		h.login = h.s.loginGeneration()
		h.t, err = h.file.start(ctx, h.s)
	}
	return err
}

// stop closes the transform.
func (h *streamHandle) stop() {
	if h.t != nil {
		h.t.close()
		h.t = nil
	}
}

// resume goes on with a message that has a result. What was made stays, with
// its names.
func (h *streamHandle) resume() (err error) {
	if !h.private && h.s.withdraw(h.file.key, h.generation) && h.t.once() {
		return errOneResult
	}
	if h.out != nil {
		if h.out, err = h.out.only(h.kept); err != nil {
			return err
		}
	}
	// The next FLUSH has to give a result again, even if this write comes to
	// nothing.
	h.ended, h.err, h.dirty = false, nil, true
	return nil
}

// hold keeps output until it is read.
func (h *streamHandle) hold(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if h.out == nil {
		h.out = newOutput(h.s)
	} else if unread := len(h.out.data) - h.next; h.next > 0 && h.next >= unread {
		// Once there is more of it than of what is moved, so that reading
		// behind the writing costs no more than it reads.
		h.out.forget(h.next)
		h.kept, h.next = h.kept-h.next, 0
	}
	return h.out.add(out)
}

// drop gives up the output that is held.
func (h *streamHandle) drop() {
	if h.out != nil {
		h.out, _ = h.out.only(0) // which needs no room
	}
	h.kept, h.next = 0, 0
}

// fail makes err the result.
func (h *streamHandle) fail(err error) {
	if h.file.creates {
		h.stop() // what was not made is no beginning of the next piece
	}
	h.err, h.ended, h.dirty = err, true, false
	if !h.private {
		// Superseded or closed: then nobody waits for it.
		_ = h.s.publish(h.file.key, h.generation, &result{err: err})
	}
}

// breakOff makes err the result of a message that cannot go on.
func (h *streamHandle) breakOff(err error) {
	h.stop()
	h.drop()
	h.fail(err)
}

// finish computes the result of what was written so far. It is held, or
// published.
func (h *streamHandle) finish(ctx context.Context) error {
	h.dirty = false
	if err := h.begin(ctx); err != nil {
		return err
	}
	rest, err := h.t.result(ctx)
	if err != nil {
		return err
	}
	if err := h.hold(rest); err != nil {
		return err
	}
	h.ended, h.read = true, false
	if h.file.creates {
		h.stop()
		h.kept = len(h.out.bytes())
	}
	if h.private {
		return nil
	}
	if h.out == nil {
		h.out = newOutput(h.s)
	}
	err = h.s.publish(h.file.key, h.generation, &result{out: h.out, login: h.login, guarded: h.guarded})
	if err != nil {
		h.stop()
	}
	return err
}

// Flush is close(2) of one of the descriptors. It does nothing unless there was
// a write since the last one. It comes without a caller.
func (h *streamHandle) Flush(ctx context.Context) syscall.Errno {
	ctx, end := h.file.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return syscall.EINTR
	}
	defer h.gate.leave()
	h.seeTruncation()
	if !h.dirty {
		return 0
	}
	return h.settle(h.finish(ctx))
}

// settle says what became of finish.
func (h *streamHandle) settle(err error) syscall.Errno {
	errno := h.file.fs.doneIn(h.s.app, h.file.p, err)
	switch errno {
	case 0:
	case syscall.EINTR:
		h.dirty = true
	default:
		h.fail(err)
	}
	return errno
}

// Read gives the output that is held. When none is, it ends the message and
// gives the rest; after that it gives 0 bytes.
func (h *streamHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := h.file.fs.patience(ctx)
	defer end()
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	if h.wrote == 0 && !h.ended {
		return nil, h.file.fs.hint(callerOf(ctx), h.file.p, errNothing)
	}
	if h.next == len(h.out.bytes()) && !h.ended {
		if errno := h.settle(h.finish(ctx)); errno == syscall.EINTR {
			return nil, errno
		}
	}
	if h.ended { // and that was it
		h.stop()
		h.read = true
	}
	if h.err != nil {
		return nil, errnoFor(h.err)
	}
	if h.guarded && h.login != h.s.loginGeneration() {
		err := p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended after the message was written")
		h.breakOff(err)
		return nil, h.file.fs.doneIn(h.s.app, h.file.p, err)
	}
	n := copy(dest, h.out.bytes()[h.next:])
	h.next += n
	h.end = off + int64(n)
	return reply(dest[:n]), 0
}

// seeTruncation starts anew if the file was cut to length 0 by name.
func (h *streamHandle) seeTruncation() {
	if h.private {
		return
	}
	if n := h.s.truncations(h.file.key); n != h.truncated {
		h.truncated = n
		if h.wrote > 0 || h.err != nil {
			h.reset()
		}
	}
}

// truncate starts anew, with a handle.
func (h *streamHandle) truncate(ctx context.Context) error {
	if !h.gate.enter(ctx) {
		return context.Canceled
	}
	defer h.gate.leave()
	h.reset()
	if !h.private {
		h.s.withdraw(h.file.key, h.generation)
	}
	return nil
}

// reset forgets the message.
func (h *streamHandle) reset() {
	if h.wrote > 0 || h.ended {
		h.stop()
	}
	h.drop()
	h.wrote, h.end, h.dirty, h.ended, h.read, h.err = 0, 0, false, false, false, nil
}

// Release ends the open. Nothing is computed or made here.
func (h *streamHandle) Release(context.Context) syscall.Errno {
	h.gate.force()
	defer h.gate.leave()
	h.stop()
	if h.out != nil {
		h.out.release()
		h.out = nil
	}
	if !h.private {
		h.s.endWriting(h.file.key)
	}
	h.file.fs.handles.Add(-1)
	return 0
}
