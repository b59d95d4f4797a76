package fs

import (
	"context"
	"syscall"

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
	// once reports whether one result of the message may be read and no other:
	// two would tell more than each, or only one was allowed.
	once() bool
	// close gives up what is held. It may be called again.
	close()
}

// A stream is a data file: what is written goes through a transform.
type stream struct {
	place
	path string // names the file in the session's exchanges

	// start begins a message.
	start func(ctx context.Context, s *session) (transform, error)
	// creates is set if a result makes objects. It is asked for once for each piece
	// of input, and later input is a piece of its own.
	creates bool
	// guarded reports whether a logout takes the result away. If it is nil, it does.
	guarded func(ctx context.Context, c caller) bool
}

func (st *stream) file() *file { return &file{open: st.open, truncate: st.truncate} }

func (st *stream) open(ctx context.Context, c caller, flags uint32) (*handle, error) {
	read, write := wants(flags)
	if !write {
		return st.openResult(c, st.path), nil
	}
	s, err := st.session(ctx, c)
	if err != nil {
		return nil, err
	}
	// The first message begins at the open, which has its errors.
	t, err := st.start(ctx, s)
	if err != nil {
		return nil, err
	}
	m := &message{stream: st, s: s, private: read, t: t, append: flags&syscall.O_APPEND != 0}
	m.guarded = st.guarded == nil || st.guarded(ctx, c)
	m.login = s.loginGeneration()
	if !m.private {
		if m.generation, m.truncations, err = s.beginWriting(st.path); err != nil {
			t.close()
			return nil, err
		}
	}
	m.handle = st.newHandle(s.app)
	m.handle.read, m.handle.write, m.handle.flush, m.handle.truncate, m.handle.release = m.read, m.write, m.flush, m.truncate, m.release
	return m.handle, nil
}

// truncate to 0 starts a new message, whether it comes with the open, before or
// after it, with a handle or without.
func (st *stream) truncate(_ context.Context, c caller, _ uint64) error {
	if s := st.openSession(c); s != nil {
		s.truncate(st.path)
	}
	return nil
}

// A message is a file transaction: a stream that is open for writing, or for
// writing and reading.
//
// A message begins with the first write. A FLUSH after a write gives the result
// of all that was written so far, and data after it continues the message: the
// result is withdrawn, and the next one is of all of it. A FLUSH that fails is the
// failure of what was written so far, and ends the message no more than one that
// gives a result does. A read that finds no output waiting ends the message, as
// does a read of its result; data after that begins the next one.
type message struct {
	*stream
	handle     *handle
	s          *session
	private    bool // open for reading too: the result stays here
	append     bool
	guarded    bool
	generation uint64

	truncations uint64    // of the file, by name, when the message began
	login       uint64    // the login generation when t began
	t           transform // nil when none is begun, and when the message cannot go on
	wrote       int64     // bytes of the message, all descriptors together
	end         int64     // where the last read or write of the kernel ended
	dirty       bool      // written since the last FLUSH
	ended       bool      // there is a result of all that was written, or err
	wasRead     bool      // something was read since
	err         error     // in place of a result
	out         *output   // output that is held; nil when there never was any
	kept        int       // how much of out stays when the message goes on
	next        int       // where in out the next read begins
}

func (m *message) write(ctx context.Context, data []byte, off int64) error {
	err := m.add(ctx, data, off)
	switch {
	case err == nil:
		m.end = off + int64(len(data))
	case errnoFor(err) != syscall.EINTR:
		m.stop()
		m.drop()
		m.fail(err)
	}
	return err
}

// add takes the next part of the message.
func (m *message) add(ctx context.Context, data []byte, off int64) error {
	m.noticeTruncation()
	if m.ended && m.wasRead {
		m.reset()
		m.end = off // wherever the descriptor is now
	}
	switch {
	case m.err != nil && m.t == nil:
		return m.err
	case !m.append && off != m.wrote && off != m.end:
		return errOrder
	case len(data) == 0:
		return nil
	}
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
	m.dirty = true
	if err := m.hold(out); err != nil {
		return err
	}
	m.kept = len(m.out.bytes())
	return nil
}

// begin starts the transform if there is none.
func (m *message) begin(ctx context.Context) (err error) {
	if m.t == nil {
		m.login = m.s.loginGeneration()
		m.t, err = m.start(ctx, m.s)
	}
	return err
}

// stop closes the transform.
func (m *message) stop() {
	if m.t != nil {
		m.t.close()
		m.t = nil
	}
}

// resume goes on with a message that has a result. What was made stays, with
// its names.
func (m *message) resume() (err error) {
	if !m.private && m.s.withdraw(m.path, m.generation) && m.t.once() {
		return errOneResult
	}
	if m.out != nil {
		if m.out, err = m.out.only(m.kept); err != nil {
			return err
		}
	}
	// The next FLUSH has to give a result again, even if this write fails.
	m.ended, m.err, m.dirty = false, nil, true
	return nil
}

// hold keeps output until it is read.
func (m *message) hold(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	if m.out == nil {
		m.out = newOutput(m.s)
	} else if unread := len(m.out.data) - m.next; m.next > 0 && m.next >= unread {
		// What was read goes once there is more of it than of what has to be moved:
		// so a reader behind the writing costs no more than it reads.
		m.out.forget(m.next)
		m.kept, m.next = m.kept-m.next, 0
	}
	return m.out.add(out)
}

// drop gives up the output that is held.
func (m *message) drop() {
	if m.out != nil {
		m.out, _ = m.out.only(0) // which needs no room
	}
	m.kept, m.next = 0, 0
}

// fail makes err the result.
func (m *message) fail(err error) {
	if m.creates {
		m.stop() // what was not made is no beginning of the next piece
	}
	m.err, m.ended, m.dirty = err, true, false
	if !m.private {
		// It fails if a newer open or the end of the session came: then nobody waits.
		_ = m.s.publish(m.path, m.generation, &result{err: err})
	}
}

// conclude gives the result of what was written so far, or the error in its place.
// An interrupt leaves everything as it was.
func (m *message) conclude(ctx context.Context) error {
	err := m.finish(ctx)
	switch errnoFor(err) {
	case 0:
		m.handle.succeeded()
	case syscall.EINTR:
		m.dirty = true
	default:
		m.fail(err)
	}
	return err
}

// finish computes the result, and holds or publishes it.
func (m *message) finish(ctx context.Context) error {
	m.dirty = false
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
		m.kept = len(m.out.bytes())
	}
	if m.private {
		return nil
	}
	if m.out == nil {
		m.out = newOutput(m.s)
	}
	err = m.s.publish(m.path, m.generation, &result{out: m.out, login: m.login, guarded: m.guarded})
	if err != nil {
		m.stop()
	}
	return err
}

// flush does nothing unless there was a write since the last one.
func (m *message) flush(ctx context.Context) error {
	m.noticeTruncation()
	if !m.dirty {
		return nil
	}
	return m.conclude(ctx)
}

// read gives the output that is held. When none is, it ends the message and
// gives the rest; after that it gives 0 bytes.
func (m *message) read(ctx context.Context, dest []byte, off int64) ([]byte, error) {
	if m.wrote == 0 && !m.ended {
		return nil, errNothing
	}
	if m.next == len(m.out.bytes()) && !m.ended {
		if err := m.conclude(ctx); errnoFor(err) == syscall.EINTR {
			return nil, err
		}
	}
	if m.ended { // and that was it
		m.stop()
		m.wasRead = true
	}
	if m.err == nil && m.guarded && m.login != m.s.loginGeneration() {
		m.stop()
		m.drop()
		m.fail(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the login ended after the message was written"))
	}
	if m.err != nil {
		return nil, m.err
	}
	n := copy(dest, m.out.bytes()[m.next:])
	m.next += n
	m.end = off + int64(n)
	return dest[:n], nil
}

// noticeTruncation starts anew if the file was cut to length 0 by name.
func (m *message) noticeTruncation() {
	if m.private {
		return
	}
	if n := m.s.truncations(m.path); n != m.truncations {
		m.truncations = n
		if m.wrote > 0 || m.err != nil {
			m.reset()
		}
	}
}

// truncate starts anew.
func (m *message) truncate(context.Context, uint64) error {
	m.reset()
	if !m.private {
		m.s.withdraw(m.path, m.generation)
	}
	return nil
}

// reset forgets the message.
func (m *message) reset() {
	if m.wrote > 0 || m.ended {
		m.stop()
	}
	m.drop()
	m.wrote, m.end, m.dirty, m.ended, m.wasRead, m.err = 0, 0, false, false, false, nil
}

// release ends the open. Nothing is computed or made here.
func (m *message) release(context.Context) {
	m.stop()
	if m.out != nil {
		m.out.release()
	}
	if !m.private {
		m.s.endWriting(m.path)
	}
}
