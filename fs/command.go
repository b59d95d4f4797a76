package fs

import (
	"bytes"
	"cmp"
	"context"
	"syscall"

	"p11fs/secret"
)

// maxCommand is the longest command, in bytes. It is shorter than what programs
// write at once, so that a longer one is seen whole, and refused.
const maxCommand = 32 << 10

// A command is a file that takes one command an open. It runs inside WRITE, so that
// echo sees the errno.
type command struct {
	place
	path string // names the file in the session's exchanges

	// run does what line says. line is wiped when it returns. What it returns is
	// read through the same open or, once, through another in the session.
	run func(ctx context.Context, s *session, line []byte) (reply []byte, err error)
	// runAlone is set in place of run for what opens no session by itself.
	runAlone func(ctx context.Context, a *application, line []byte) error
	replies  bool // run has something to read

	// text, if set, is what is read in place of a reply.
	text  func(ctx context.Context, c caller) ([]byte, error)
	limit int  // the longest command, if not maxCommand
	empty bool // an empty command means something
}

func (k *command) file() *file {
	return &file{text: k.text, open: k.open, truncate: k.startAnew(k.path)}
}

func (k *command) open(ctx context.Context, c caller, flags uint32) (*handle, error) {
	read, write := wants(flags)
	switch {
	case !write && k.text != nil:
		return k.openText(ctx, c, &file{text: k.text})
	case !write:
		return k.openResult(c, k.path), nil
	}
	o := &openCommand{command: k}
	a, err := k.fs.callers.get(c)
	if err == nil && k.run != nil {
		o.s, err = k.session(ctx, c)
	}
	if err == nil && k.replies && !read {
		o.writer, err = o.s.beginWriting(k.path, k.fs.callers.party(c))
	}
	if err != nil {
		return nil, err
	}
	o.handle = k.newHandle(a)
	o.handle.stream = read && k.replies // a reply begins where the command ended
	o.handle.read, o.handle.write, o.handle.flush, o.handle.release = o.read, o.write, o.flush, o.release
	o.handle.writer = o.writer
	return o.handle, nil
}

// openCommand is a command that is open for writing.
type openCommand struct {
	*command
	handle *handle
	s      *session // nil if there is none
	writer *writer  // nil if the reply, if any, stays here

	ran   bool
	err   error // of the command
	reply []byte
	rest  []byte // what of reply is unread
}

func (o *openCommand) write(ctx context.Context, data []byte, _ int64) error {
	switch {
	case o.ran:
		return errOnce
	case len(data) > cmp.Or(o.limit, maxCommand):
		return errTooLong
	}
	err := o.execute(ctx, bytes.TrimSuffix(data, []byte("\n")))
	if errnoFor(err) == syscall.EINTR {
		return err // nothing has happened
	}
	o.ran, o.err = true, err
	if err == nil {
		o.handle.succeeded()
	}
	return err
}

func (o *openCommand) execute(ctx context.Context, line []byte) error {
	switch {
	case len(line) == 0 && !o.empty:
		return errEmpty
	case o.runAlone != nil:
		return o.runAlone(ctx, o.handle.app, line)
	}
	reply, err := o.run(ctx, o.s, line)
	if err != nil || !o.replies {
		return err
	}
	if o.writer == nil {
		o.reply, o.rest = reply, reply
		return nil
	}
	out := newOutput(o.s)
	defer out.release()
	if err := out.add(reply); err != nil {
		return err
	}
	return o.writer.publish(&result{out: out, login: o.s.loginGeneration(), guarded: true})
}

func (o *openCommand) read(ctx context.Context, dest []byte, _ int64) ([]byte, error) {
	switch {
	case o.err != nil:
		return nil, o.err
	case o.replies && !o.ran || !o.replies && o.text == nil:
		return nil, errNothing
	case !o.replies && o.reply == nil:
		text, err := o.text(ctx, callerOf(ctx))
		if err != nil {
			return nil, err
		}
		o.reply, o.rest = text, text
	}
	n := copy(dest, o.rest)
	o.rest = o.rest[n:]
	return dest[:n], nil
}

func (o *openCommand) flush(context.Context) error {
	o.writer.rest(!o.ran)
	return nil
}

// release ends the open. No command runs here.
func (o *openCommand) release(context.Context) {
	if o.writer != nil {
		o.writer.end()
	}
	secret.Wipe(o.reply)
}
