package fs

import (
	"bytes"

	"p11fs/secret"
)

// An output is what a message gives. It counts in its session until it is wiped. The
// handle that writes it, the result that waits, and that result's reader share it, and
// the last of them wipes it. It does not change while it is shared.
type output struct {
	s    *session
	data []byte // changed by the handle that made it, while it is the only user

	users int // guarded by session.mu
}

func newOutput(s *session) *output { return &output{s: s, users: 1} }

// add takes b. It fails if the session may hold no more.
func (o *output) add(b []byte) error {
	if err := o.s.reserve(len(b)); err != nil {
		secret.Wipe(b)
		return err
	}
	if cap(o.data) == 0 {
		o.data = b
		return nil
	}
	o.data = secret.Append(o.data, b)
	secret.Wipe(b)
	return nil
}

// cutTo returns an output of the first n bytes that nobody else uses. The caller uses
// it in place of o.
func (o *output) cutTo(n int) (*output, error) {
	o.s.mu.Lock()
	shared := o.users > 1
	if !shared {
		o.s.unreserveLocked(len(o.data) - n)
	}
	o.s.mu.Unlock()
	if !shared {
		secret.Wipe(o.data[n:])
		o.data = o.data[:n]
		return o, nil
	}
	defer o.release()
	own := newOutput(o.s)
	if n == 0 {
		return own, nil
	}
	return own, own.add(bytes.Clone(o.data[:n]))
}

// dropFirst drops the first n bytes. Nobody else may use o.
func (o *output) dropFirst(n int) {
	o.s.mu.Lock()
	o.s.unreserveLocked(n)
	o.s.mu.Unlock()
	left := copy(o.data, o.data[n:])
	secret.Wipe(o.data[left:])
	o.data = o.data[:left]
}

// release is called once by each user.
func (o *output) release() {
	o.s.mu.Lock()
	defer o.s.mu.Unlock()
	o.releaseLocked()
}

func (o *output) releaseLocked() {
	if o.users--; o.users > 0 {
		return
	}
	o.s.unreserveLocked(len(o.data))
	secret.Wipe(o.data)
	o.data = nil
}
