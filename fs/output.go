package fs

import "p11fs/secret"

// An output is what a message gives, counted in its session until it is wiped.
// It is shared, by the handle that writes it, the result that waits, and that
// result's reader, and wiped by the last of them. What is shared does not change.
type output struct {
	s    *session
	data []byte // changed by the handle that made it, while it is the only user

	users int // guarded by session.mu
}

func newOutput(s *session) *output { return &output{s: s, users: 1} }

// bytes are what there is, of a nil output too.
func (o *output) bytes() []byte {
	if o == nil {
		return nil
	}
	return o.data
}

// add takes b, or says that the session may hold no more.
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

// only returns an output of the first n bytes that nobody else uses, in place of
// o, which is given up.
func (o *output) only(n int) (*output, error) {
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
	return own, own.add(append([]byte(nil), o.data[:n]...))
}

// forget drops the first n bytes, which only the one user has read.
func (o *output) forget(n int) {
	o.s.mu.Lock()
	o.s.unreserveLocked(n)
	o.s.mu.Unlock()
	left := copy(o.data, o.data[n:])
	secret.Wipe(o.data[left:])
	o.data = o.data[:left]
}

// release is the end of one user.
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
