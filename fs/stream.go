package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"p11fs/p11"
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
	// close gives up what is held. It may be called again.
	close()
}

// A start is a message that begins.
type start struct {
	transform
	// single is set if one result of the message may be read and no other: two
	// would tell more than each, or only one was allowed.
	single bool
	// guarded is set if a logout takes the result away.
	guarded bool
}

// A stream is a data file: what is written goes through a transform.
type stream struct {
	place
	path string // names the file in the session's exchanges

	// start begins a message.
	start func(ctx context.Context, s *session) (start, error)
	// single is set if all messages are (see start).
	single bool
	// sameIV is set if the name has an initialisation vector: an open gives the output
	// of one message.
	sameIV bool
	// creates is set if a result makes objects. It is asked for once for each piece
	// of input, and later input is a piece of its own.
	creates bool
}

func (st *stream) file() *file { return &file{open: st.open, truncate: st.startAnew(st.path)} }

func (st *stream) open(ctx context.Context, c caller, flags uint32) (*handle, error) {
	read, write := wants(flags)
	if !write {
		return st.openResult(c, st.path), nil
	}
	s, err := st.session(ctx, c)
	if err != nil {
		return nil, err
	}
	m := &message{
		stream: st, s: s, out: newOutput(s), append: flags&syscall.O_APPEND != 0,
		opener:  st.fs.callers.process(c),
		writers: make(map[uint64]struct{}), readers: make(map[uint64]struct{}),
	}
	if err := m.begin(ctx); err != nil { // at the open, which so has its errors
		if !read {
			s.overtake(st.path, st.fs.callers.party(c))
		}
		return nil, err
	}
	if !read {
		if m.writer, err = s.beginWriting(st.path, st.fs.callers.party(c)); err != nil {
			m.stop()
			return nil, err
		}
	}
	m.handle = s.newHandle()
	m.handle.stream, m.handle.nonblock = read, flags&syscall.O_NONBLOCK != 0
	m.handle.read, m.handle.write, m.handle.flush, m.handle.sync = m.read, m.write, m.flush, m.sync
	m.handle.truncate, m.handle.release, m.handle.writer = m.truncate, m.release, m.writer
	return m.handle, nil
}

// startAnew is how a file is truncated to length 0 by name, be that before or after an
// open for writing: it drops the result that waits, and the message begins anew.
func (p place) startAnew(path string) func(ctx context.Context, c caller, size uint64) error {
	return func(_ context.Context, c caller, _ uint64) error {
		if s := p.sessionIfOpen(c); s != nil {
			s.truncate(path)
		}
		return nil
	}
}

// A message is a file transaction: a stream that is open for writing, or for
// writing and reading.
//
// A message begins with the first write, and is open as long as somebody writes: who
// has written does until it closes one of its descriptors (a FLUSH), or turns from
// writing to reading and finds no output. Then the message ends and gives the result of
// all that was written so far. A process that has not written ends nothing. Data after
// the end continues the message, and its result is withdrawn, unless that was read: to
// its end, and the data begins the next message; in part, and the data is refused. A
// FLUSH that fails is the failure of what was written so far, and data may continue
// that too.
//
// While the message is open a read of somebody else that finds no output waits for it,
// and so does one before the first write, as at an empty pipe, unless it is the
// opener's. Who writes waits for who reads, once somebody does.
type message struct {
	*stream
	handle *handle
	s      *session
	append bool
	opener int     // the process that opened the file
	writer *writer // nil if it is open for reading too: the result stays here

	login   uint64              // the login generation when the message was started
	t       start               // without a transform when none is begun, and when the message cannot go on
	wrote   int64               // bytes of the message, all descriptors together
	end     int64               // where the last write of the kernel ended
	writers map[uint64]struct{} // processes that write
	readers map[uint64]struct{} // processes that read what others write
	ended   bool                // there is a result of all that was written, or err
	wasRead bool                // something was read since
	given   bool                // some output was read since the file was opened or truncated
	err     error               // in place of a result
	out     *output             // output that is held
	kept    int                 // how much of out stays when the message goes on
	next    int                 // where in out the next read begins
	// fullSince is when a write found no room, and no reader to wait for.
	fullSince time.Time
}

// maxUnread is how much output there may be, in bytes, when a write goes on that has a
// reader to wait for.
const maxUnread = 512 << 10

// readerWait is how long a write that has no room waits for the first reader, or the next.
const readerWait = 5 * time.Second

func (m *message) write(ctx context.Context, data []byte, off int64) error {
	err := m.add(ctx, data, off)
	switch {
	case err == nil:
		m.end = off + int64(len(data))
	case !unchanged(err):
		m.abort(err)
	}
	return err
}

// unchanged reports whether what gave the error has done nothing, and may be done again.
func unchanged(err error) bool {
	errno := errnoFor(err)
	return errno == syscall.EINTR || errno == syscall.EAGAIN || errors.Is(err, errUnread)
}

// add takes the next part of the message.
func (m *message) add(ctx context.Context, data []byte, off int64) error {
	m.noticeTruncation()
	if m.over() {
		m.reset()
		m.end = off // wherever the descriptor is now
	}
	process := requestOf(ctx).process
	switch {
	case m.err != nil && m.t.transform == nil:
		return m.err
	case m.writer != nil && !m.append && off != m.wrote && off != m.end:
		return errOrder
	case len(data) == 0:
		return nil
	case m.ended && m.next > m.kept:
		return errUnread
	case m.sameIV && m.given && m.wrote == 0:
		return errSameIV
	case m.full(process, len(data)):
		return errNotYet
	}
	m.writer.rest(false)
	m.writers[process] = struct{}{} // its FLUSH has to give a result, even if this write fails
	if err := m.begin(ctx); err != nil {
		return err
	}
	if m.ended {
		if err := m.resume(); err != nil {
			return err
		}
	}
	out, err := m.t.update(ctx, data)
	if err != nil {
		return err
	}
	m.wrote += int64(len(data))
	if err := m.hold(out); err != nil {
		return err
	}
	m.kept = len(m.out.data)
	return nil
}

// over reports whether the message has ended, and its result was read to the end.
func (m *message) over() bool {
	return m.ended && m.wasRead && (m.err != nil || m.next == len(m.out.data))
}

// full reports whether process, which has n bytes to write, waits for a reader. Where the
// session has no room for more, one may still come.
func (m *message) full(process uint64, n int) bool {
	delete(m.readers, process)
	unread, room := len(m.out.data)-m.next, m.s.hasRoom(n+maxUnread)
	switch {
	case m.writer != nil || unread == 0:
		return false
	case len(m.readers) > 0:
		m.fullSince = time.Time{}
		return unread > maxUnread || !room
	case room:
		m.fullSince = time.Time{}
		return false
	case m.fullSince.IsZero():
		m.fullSince = time.Now()
		time.AfterFunc(readerWait, func() { _ = m.handle.exclusive(context.Background(), func() error { return nil }) })
	}
	return time.Since(m.fullSince) < readerWait
}

// begin starts the transform if there is none.
func (m *message) begin(ctx context.Context) error {
	if m.t.transform != nil {
		return nil
	}
	login := m.s.loginGeneration()
	t, err := m.start(ctx, m.s)
	if err == nil {
		m.t, m.login = t, login
	}
	return err
}

// stop closes the transform.
func (m *message) stop() {
	if m.t.transform != nil {
		m.t.close()
		m.t.transform = nil
	}
}

// resume goes on with a message that has a result. What was made stays, with
// its names.
func (m *message) resume() (err error) {
	if m.writer != nil && m.writer.withdraw() && (m.single || m.t.single) {
		return errOneResult
	}
	if m.out, err = m.out.cutTo(m.kept); err != nil {
		return err
	}
	m.ended, m.err = false, nil
	return nil
}

// hold keeps output until it is read.
func (m *message) hold(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if unread := len(m.out.data) - m.next; m.next > 0 && m.next >= unread {
		// What was read goes once there is more of it than of what has to be moved:
		// so a reader behind the writing costs no more than it reads.
		m.out.dropFirst(m.next)
		m.kept, m.next = m.kept-m.next, 0
	}
	return m.out.add(out)
}

// drop gives up the output that is held.
func (m *message) drop() {
	m.out, _ = m.out.cutTo(0) // which needs no room
	m.kept, m.next = 0, 0
}

// fail makes err the result.
func (m *message) fail(err error) {
	if m.creates {
		m.stop() // what was not made is no beginning of the next piece
	}
	m.err, m.ended = err, true
	clear(m.writers)
	if m.writer != nil {
		// It fails if a newer open or the end of the session came: then nobody waits.
		_ = m.writer.publish(&result{err: err})
	}
}

// abort makes err the result of a message that cannot go on.
func (m *message) abort(err error) {
	m.stop()
	m.drop()
	m.fail(err)
}

// conclude has a process write no more. If it was the last of them, the message ends,
// with the result of what was written so far or the error in its place. An interrupt
// leaves everything as it was.
func (m *message) conclude(ctx context.Context, process uint64) error {
	delete(m.writers, process)
	if process == 0 {
		clear(m.writers)
	}
	if len(m.writers) > 0 {
		return nil
	}
	err := m.finish(ctx)
	switch errnoFor(err) {
	case 0:
		m.handle.succeeded()
	case syscall.EINTR:
		m.writers[process] = struct{}{}
	default:
		m.fail(err)
	}
	return err
}

// finish computes the result, and holds or publishes it.
func (m *message) finish(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	rest, err := m.t.result(ctx)
	if err != nil {
		return err
	}
	if err := m.hold(rest); err != nil {
		return err
	}
	m.ended, m.wasRead = true, false
	if m.creates {
		m.stop()
		m.kept = len(m.out.data)
	}
	if m.writer == nil {
		return nil
	}
	err = m.writer.publish(&result{out: m.out, login: m.login, guarded: m.t.guarded})
	if err != nil {
		m.stop()
	}
	return err
}

// flush does nothing unless who closes has written since it last did.
func (m *message) flush(ctx context.Context) error {
	m.noticeTruncation()
	process := requestOf(ctx).process
	delete(m.readers, process)
	if _, writes := m.writers[process]; writes && m.creates && m.fs.callers.killed(int(callerOf(ctx).pid)) {
		delete(m.writers, process)
		m.fail(errKilled) // half a file makes nothing
		return errKilled
	}
	if _, writes := m.writers[process]; writes || process == 0 && len(m.writers) > 0 {
		return m.conclude(ctx, process)
	}
	if len(m.writers) == 0 {
		m.writer.rest(true)
	}
	return nil
}

// sync ends the message as a FLUSH does, also an empty one, for one who wants to see the
// error.
func (m *message) sync(ctx context.Context) error {
	m.noticeTruncation()
	if m.ended {
		return m.err
	}
	return m.conclude(ctx, 0)
}

// read gives the output that is held. When none is, it waits or ends the message, which
// gives the rest; after that it gives 0 bytes.
func (m *message) read(ctx context.Context, dest []byte, _ int64) ([]byte, error) {
	if !m.ended {
		if err := m.await(ctx, requestOf(ctx).process); err != nil {
			return nil, err
		}
	}
	m.wasRead = m.ended
	if m.err == nil && m.t.guarded && m.login != m.s.loginGeneration() {
		m.abort(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended after the message was written"))
	}
	n := 0
	if m.err == nil {
		n = copy(dest, m.out.data[m.next:])
		m.next += n
		m.given = m.given || n > 0
	}
	if m.ended && (m.next > m.kept || m.over()) { // it cannot go on
		m.stop()
	}
	return dest[:n], m.err
}

// await returns nil once there is something to read.
func (m *message) await(ctx context.Context, process uint64) error {
	_, writes := m.writers[process]
	if !writes {
		m.readers[process] = struct{}{}
	}
	switch {
	case m.next < len(m.out.data):
		return nil
	case m.handle.nonblock:
		return errNotYet
	case m.wrote == 0 && m.opener == m.fs.callers.process(callerOf(ctx)):
		return errNothing
	case m.wrote == 0:
		return errNotYet
	}
	if err := m.conclude(ctx, process); errnoFor(err) == syscall.EINTR {
		return err
	}
	if !m.ended {
		return errNotYet
	}
	return nil
}

// noticeTruncation starts anew if the file was cut to length 0 by name.
func (m *message) noticeTruncation() {
	if m.writer != nil && m.writer.wasTruncated() && (m.wrote > 0 || m.err != nil) {
		m.reset()
	}
}

// truncate starts anew.
func (m *message) truncate(context.Context, uint64) error {
	m.reset()
	m.given = false
	if m.writer != nil {
		m.writer.withdraw()
	}
	return nil
}

// reset forgets the message.
func (m *message) reset() {
	if m.wrote > 0 || m.ended {
		m.stop()
	}
	m.drop()
	clear(m.writers)
	m.wrote, m.end, m.ended, m.wasRead, m.err = 0, 0, false, false, nil
}

// release ends the open. Nothing is computed or made here.
func (m *message) release(context.Context) {
	m.stop()
	m.out.release()
	if m.writer != nil {
		m.writer.end()
	}
}
