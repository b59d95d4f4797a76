package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine/p11"
	"p11fs/secret"
)

// maxReplay is how much input a handle keeps so that a message can go on after
// a close of one of several descriptors, as in (cat a; cat b) > sign.
const maxReplay = 1 << 20

// A transform is one message in progress: what is written goes in, what is read
// comes out.
type transform interface {
	// update takes the next part and returns what output it gives. It keeps
	// nothing of part. An interrupt (EINTR) leaves it as it was.
	update(ctx context.Context, part []byte) ([]byte, error)
	// final ends the message and returns the rest of the output.
	final(ctx context.Context) ([]byte, error)
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
	// creates says that final makes objects: it runs once for each piece of
	// input, and later input is a piece of its own.
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
// A message begins with the first write and ends at the first FLUSH after a
// write, or at the first read that finds no output waiting. Data after that
// FLUSH continues the message: its result is computed anew from all of it. Data
// after a read that ended the message begins the next one.
type streamHandle struct {
	file       *streamFile
	s          *session
	private    bool // open for reading too: the result stays here
	append     bool
	guarded    bool
	login      uint64 // the login generation at the open
	generation uint64

	gate      gate // guards all below
	truncated uint64
	t         transform // nil when none is begun
	wrote     int64     // bytes of the message, all descriptors together
	end       int64     // where the last read or write of the kernel ended
	dirty     bool      // written since the last FLUSH
	ended     bool      // final has run
	read      bool      // something was read since
	err       error     // why the message failed: it stays so
	replay    []byte    // the message so far, unless lost
	lost      bool      // the message is longer than replay may be, or its output is partly read
	out       []byte    // output that is held
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
			h.fail(err)
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
	if h.err != nil {
		return h.err
	}
	if !h.append && off != h.wrote && off != h.end {
		return errOrder
	}
	if len(data) == 0 {
		return nil
	}
	if h.ended {
		if err := h.resume(ctx); err != nil {
			return err
		}
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	out, err := h.t.update(ctx, data)
	if err != nil {
		return err
	}
	h.wrote += int64(len(data))
	h.dirty = true
	h.remember(data)
	return h.hold(out)
}

// begin starts the transform if there is none.
func (h *streamHandle) begin(ctx context.Context) (err error) {
	if h.t == nil {
		h.login = h.s.loginGeneration()
		h.t, err = h.file.start(ctx, h.s)
	}
	return err
}

// resume goes on with a message that a FLUSH ended.
func (h *streamHandle) resume(ctx context.Context) error {
	if h.lost {
		return errReplay
	}
	if !h.private {
		h.s.withdraw(h.file.key, h.generation)
	}
	if h.file.creates { // what was made stays, with its names
		h.ended = false
		return nil
	}
	h.drop()
	t, err := h.file.start(ctx, h.s)
	if err != nil {
		return err
	}
	out, err := t.update(ctx, h.replay)
	if err != nil {
		t.close()
		return err
	}
	h.t, h.ended = t, false
	return h.hold(out)
}

// remember keeps the input for resume.
func (h *streamHandle) remember(data []byte) {
	if h.lost || h.file.creates {
		return
	}
	if len(h.replay)+len(data) > maxReplay || h.s.reserve(len(data)) != nil {
		h.forget()
		h.lost = true
		return
	}
	h.replay = appendWiped(h.replay, data)
}

func (h *streamHandle) forget() {
	h.s.unreserve(len(h.replay))
	secret.Wipe(h.replay)
	h.replay = h.replay[:0]
}

// hold keeps output until it is read.
func (h *streamHandle) hold(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	defer secret.Wipe(out)
	if h.next == len(h.out) {
		h.drop()
	}
	if err := h.s.reserve(len(out)); err != nil {
		return err
	}
	h.out = appendWiped(h.out, out)
	return nil
}

// drop wipes the output that is held.
func (h *streamHandle) drop() {
	h.s.unreserve(len(h.out))
	secret.Wipe(h.out)
	h.out, h.next = h.out[:0], 0
}

// appendWiped is append that leaves no copy behind when it moves.
func appendWiped(b, data []byte) []byte {
	if len(b)+len(data) > cap(b) {
		bigger := make([]byte, len(b), max(2*cap(b), len(b)+len(data)))
		copy(bigger, b)
		secret.Wipe(b)
		b = bigger
	}
	return append(b, data...)
}

// fail ends the message with an error, which the read gets too.
func (h *streamHandle) fail(err error) {
	if h.t != nil {
		h.t.close()
		h.t = nil
	}
	h.drop()
	h.forget()
	h.err, h.ended, h.dirty = err, true, false
	if !h.private {
		// Superseded or closed: then nobody waits for it.
		_ = h.s.publish(h.file.key, h.generation, false, nil, err)
	}
}

// finish ends the message. What it gives is held, or published.
func (h *streamHandle) finish(ctx context.Context) error {
	h.dirty = false
	if h.err != nil {
		return h.err
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	out, err := h.t.final(ctx)
	if err != nil {
		return err
	}
	h.t.close()
	h.t, h.ended, h.read = nil, true, false
	if err := h.hold(out); err != nil {
		return err
	}
	if h.private {
		return nil
	}
	h.s.unreserve(len(h.out)) // the session counts what is published itself
	data := h.out
	if h.file.creates {
		data = append([]byte(nil), data...) // names: more may follow
		if err := h.s.reserve(len(h.out)); err != nil {
			h.out = nil
			return err
		}
	} else {
		h.out, h.next = nil, 0
	}
	return h.s.publish(h.file.key, h.generation, h.guarded, data, nil)
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

// settle says what became of a message that has ended.
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
	if h.err != nil {
		h.read = true
		return nil, errnoFor(h.err)
	}
	if h.wrote == 0 && !h.ended {
		return nil, syscall.ENODATA
	}
	if h.next == len(h.out) && !h.ended {
		if errno := h.settle(h.finish(ctx)); errno != 0 {
			return nil, errno
		}
	}
	if h.guarded && h.login != h.s.loginGeneration() {
		err := p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended after the message was written")
		return nil, h.settle(err)
	}
	n := copy(dest, h.out[h.next:])
	h.next += n
	h.read = h.ended
	h.lost = h.lost || !h.ended
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
	if h.t != nil && h.wrote > 0 || h.ended {
		if h.t != nil {
			h.t.close()
		}
		h.t = nil
	}
	h.drop()
	h.forget()
	h.wrote, h.end, h.dirty, h.ended, h.read, h.err, h.lost = 0, 0, false, false, false, nil, false
}

// Release ends the open. Nothing is computed or made here.
func (h *streamHandle) Release(context.Context) syscall.Errno {
	h.gate.force()
	defer h.gate.leave()
	if h.t != nil {
		h.t.close()
		h.t = nil
	}
	h.drop()
	h.forget()
	if !h.private {
		h.s.endWriting(h.file.key)
	}
	h.file.fs.handles.Add(-1)
	return 0
}
