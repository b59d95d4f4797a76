package fs

import (
	"bytes"
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/secret"
)

// maxCommand is the longest command, in bytes. It is shorter than what programs
// write at once, so that a longer one is seen whole, and refused.
const maxCommand = 32 << 10

// commandFile is a file into which commands are written. They run inside WRITE,
// so that echo sees the errno.
type commandFile struct {
	fs  *FS
	p   place
	key string // in the session's exchanges

	// run does what line says. line is wiped when it returns. What it returns
	// is read through this open or, once, through another in the session.
	run func(ctx context.Context, o *opened, line []byte) (reply []byte, err error)
	// text, if set, is what an open for reading reads instead of a reply.
	text func(ctx context.Context, c caller) ([]byte, error)
	// replies says that run has something to read.
	replies bool
	// sessionless says that run makes its own session, or needs none.
	sessionless bool
	// limit is the longest command, if not maxCommand.
	limit int
	// empty says that an empty command means something.
	empty bool
}

// opened is who has a command file open, as it was decided at the open.
type opened struct {
	caller caller
	app    *application
	s      *session // nil if the file is sessionless
}

func (f *commandFile) size(ctx context.Context, c caller) uint64 {
	if f.text == nil {
		return 0
	}
	return textSize(ctx, c, f.text)
}

func (f *commandFile) open(ctx context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	read, write := wants(flags)
	if !write {
		if f.text != nil {
			return openText(ctx, c, f.text)
		}
		return f.fs.openResult(c, f.p, f.key)
	}
	o := &opened{caller: c}
	var err error
	if o.app, err = f.fs.callers.get(c); err != nil {
		return nil, 0, err
	}
	if !f.sessionless {
		if o.s, err = f.fs.session(ctx, c, f.p); err != nil {
			return nil, 0, err
		}
	}
	h := &commandHandle{file: f, opened: o, private: read, gate: newGate()}
	if f.replies && !h.private {
		if h.generation, _, err = o.s.beginWriting(f.key); err != nil {
			return nil, 0, err
		}
	}
	f.fs.handles.Add(1)
	return h, 0, nil
}

// truncate to 0 drops the reply that waits: it is how a shell opens the file.
func (f *commandFile) truncate(_ context.Context, c caller, h gofs.FileHandle, size uint64) error {
	if size != 0 {
		return errTruncate
	}
	if h == nil && f.replies {
		if s := f.fs.present(c, f.p); s != nil {
			s.truncate(f.key)
		}
	}
	return nil
}

// commandHandle is an open command file: one command, and its reply.
type commandHandle struct {
	file       *commandFile
	opened     *opened
	private    bool // open for reading too
	generation uint64

	gate  gate // guards all below
	ran   bool
	reply []byte
	rest  []byte
	err   error
}

// Write runs the command.
func (h *commandHandle) Write(ctx context.Context, data []byte, _ int64) (uint32, syscall.Errno) {
	ctx, end := h.file.fs.patience(ctx)
	defer end()
	f := h.file
	if !h.gate.enter(ctx) {
		return 0, syscall.EINTR
	}
	defer h.gate.leave()
	// The request's buffer goes back to a pool: no PIN stays in it.
	defer secret.Wipe(data)
	limit := f.limit
	if limit == 0 {
		limit = maxCommand
	}
	if h.ran {
		return 0, f.fs.doneIn(h.opened.app, f.p, errOnce)
	}
	if len(data) > limit {
		return 0, f.fs.doneIn(h.opened.app, f.p, errTooLong)
	}
	line := bytes.Clone(data)
	defer secret.Wipe(line)
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	errno := f.fs.doneIn(h.opened.app, f.p, h.run(ctx, line))
	if errno == syscall.EINTR {
		return 0, errno // nothing has happened
	}
	h.ran = true
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

func (h *commandHandle) run(ctx context.Context, line []byte) error {
	f := h.file
	if len(line) == 0 && !f.empty {
		return errEmpty
	}
	reply, err := f.run(ctx, h.opened, line)
	if err != nil || !f.replies {
		h.err = err
		return err
	}
	if h.private {
		h.reply, h.rest = reply, reply
		return nil
	}
	s := h.opened.s
	out := newOutput(s)
	defer out.release()
	if err := out.add(reply); err != nil {
		return err
	}
	return s.publish(f.key, h.generation, &result{out: out, login: s.loginGeneration(), guarded: true})
}

// Read gives the reply to the command that this handle wrote.
func (h *commandHandle) Read(ctx context.Context, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	ctx, end := h.file.fs.patience(ctx)
	defer end()
	f := h.file
	if !h.gate.enter(ctx) {
		return nil, syscall.EINTR
	}
	defer h.gate.leave()
	switch {
	case h.err != nil:
		return nil, errnoFor(h.err)
	case f.replies && !h.ran:
		return nil, f.fs.hint(callerOf(ctx), f.p, errNothing)
	case !f.replies && f.text != nil && h.reply == nil:
		text, err := f.text(ctx, callerOf(ctx))
		if err != nil {
			return nil, f.fs.doneIn(h.opened.app, f.p, err)
		}
		h.reply, h.rest = text, text
	case !f.replies && f.text == nil:
		return nil, syscall.ENODATA
	}
	n := copy(dest, h.rest)
	h.rest = h.rest[n:]
	return reply(dest[:n]), 0
}

// Release ends the open. No command runs here.
func (h *commandHandle) Release(context.Context) syscall.Errno {
	h.gate.force()
	defer h.gate.leave()
	if h.file.replies && !h.private {
		h.opened.s.endWriting(h.file.key)
	}
	secret.Wipe(h.reply)
	h.reply, h.rest = nil, nil
	h.file.fs.handles.Add(-1)
	return 0
}
