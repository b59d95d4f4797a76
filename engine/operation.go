package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"p11fs/p11"
	"p11fs/secret"
)

// An operation is what all operations in progress have in common: when they
// must stop, and who gives up the token's side.
//
// Every call is between enter and leave, which hold mu, so that calls on one
// operation go one after the other. Nobody else waits for mu: whoever cuts an
// operation that is in a call leaves the closing to the caller's leave.
type operation struct {
	session *Session
	login   *login // that lets the private key be used; nil for a public key or none
	what    string // for errors

	stop atomic.Bool // no more calls; what is held is given up as soon as mu is free

	mu     sync.Mutex           // guards all below; 9th and last in the order of doc.go
	impl   interface{ Close() } // the token's side; nil when ended
	inCall bool                 // a call has not come back: it panicked
	locked bool                 // CKA_ALWAYS_AUTHENTICATE, and not yet authenticated
	parts  bool                 // Update was called
	in     int                  // bytes taken
	out    int                  // bytes given
}

// start registers o with its session. It closes impl when the session or the
// login has ended meanwhile.
func (o *operation) start(impl interface{ Close() }) error {
	o.impl = impl
	s := o.session
	s.mu.Lock()
	// Both ends collect the operations under s.mu after they have said so.
	err := o.stands()
	if err == nil {
		s.operations[o] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil {
		impl.Close()
		return err
	}
	s.standing.app.engine.operations.Add(1)
	return nil
}

// stands checks what may have changed since the operation began. It takes no
// lock.
func (o *operation) stands() error {
	if o.session.closed() {
		return o.session.gone()
	}
	if o.login == nil {
		return nil
	}
	if o.session.standing.login.Load() != o.login || o.login.token.Valid() != nil {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out while the %s was in progress", o.what)
	}
	return nil
}

// ErrPINAgain says that the user is logged in, and has to give the PIN to the
// operation as well (CKA_ALWAYS_AUTHENTICATE).
var ErrPINAgain = errors.New("the key wants the PIN again")

// enter begins a call; without an error leave ends it.
func (o *operation) enter(ctx context.Context) error {
	if err := interrupted(ctx); err != nil {
		return err
	}
	o.mu.Lock()
	err := o.stands()
	switch {
	case err != nil:
		o.stop.Store(true)
	case o.stop.Load() || o.impl == nil || o.inCall:
		o.stop.Store(true)
		err = p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "the %s has ended", o.what)
	case o.locked:
		// The operation goes on: the PIN can still be given.
		err = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "%w for each %s", ErrPINAgain, o.what)
	}
	if err != nil {
		o.unlock()
		return err
	}
	o.inCall = true
	return nil
}

// returned says that the token's call came back: an error ends the operation
// (PKCS#11 v3.1 §5.2).
func (o *operation) returned(err error) error {
	o.inCall = false
	if err != nil {
		o.stop.Store(true)
	}
	return err
}

// answered is returned for a call whose error is of the data so far, and ends
// nothing.
func (o *operation) answered(err error) error {
	o.inCall = false
	return err
}

// leave ends a call, deferred, also after a panic in the token.
func (o *operation) leave() {
	if o.inCall {
		o.stop.Store(true)
	}
	o.unlock()
}

// unlock gives mu back, and the token's side up if the operation is to stop.
func (o *operation) unlock() {
	for {
		var impl interface{ Close() }
		if o.stop.Load() {
			impl, o.impl = o.impl, nil
		}
		o.mu.Unlock()
		if impl != nil {
			o.forget()
			impl.Close()
		}
		// Someone may have cut the operation just before mu was free.
		if !o.stop.Load() || !o.mu.TryLock() {
			return
		}
		if o.impl == nil {
			o.mu.Unlock()
			return
		}
	}
}

// cut ends the operation without waiting for a call in progress.
func (o *operation) cut() {
	o.stop.Store(true)
	if o.mu.TryLock() {
		o.unlock()
	}
}

// Close ends the operation. It may be called again, and while a call is in
// progress.
func (o *operation) Close() { o.cut() }

func (o *operation) forget() {
	s := o.session
	s.mu.Lock()
	delete(s.operations, o)
	s.mu.Unlock()
	s.standing.app.engine.operations.Add(-1)
}

// Authenticate checks the user's PIN for an operation whose key has
// CKA_ALWAYS_AUTHENTICATE: C_Login of CKU_CONTEXT_SPECIFIC for this operation
// alone. A wrong PIN ends nothing.
func (o *operation) Authenticate(ctx context.Context, pin *secret.Bytes) error {
	if err := o.stands(); err != nil {
		return err
	}
	if err := o.session.reauthenticate(ctx, pin); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.unlock()
	o.locked = false
	return nil
}

// keyUse is what a key is wanted for.
type keyUse struct {
	flag    p11.AttributeType // usage attribute that must be true
	mech    p11.Flags         // CKF_ flag that the mechanism must have
	what    string            // for errors: "sign"
	invalid p11.RV            // for a handle that names no key
}

// key returns the key h, held, after checking that it may be used so with m.
func (s *Session) key(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle, use keyUse) (*entry, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if err := s.standing.slot.usable(m.Type, use.mech, use.what); err != nil {
		return nil, err
	}
	e, err := s.openKey(ctx, h, use.invalid)
	if err != nil {
		return nil, err
	}
	if !e.attrs.Bool(use.flag) {
		e.release()
		return nil, p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key may not %s: its %s is not true", use.what, use.flag.Short())
	}
	if !allows(e.attrs, m.Type) {
		e.release()
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the key's allowed-mechanisms do not name %s", m.Type.Short())
	}
	return e, nil
}

// openKey returns the key h, held; invalid is the error for what is no key.
func (s *Session) openKey(ctx context.Context, h p11.ObjectHandle, invalid p11.RV) (*entry, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		if p11.RVOf(err) == p11.CKR_OBJECT_HANDLE_INVALID {
			return nil, p11.Errorf(invalid, "there is no key %#x", uint64(h))
		}
		return nil, err
	}
	switch class, _ := e.attrs.Class(); class {
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY:
		return e, nil
	}
	e.release()
	return nil, p11.Errorf(invalid, "object %#x is no key", uint64(h))
}

// allows applies CKA_ALLOWED_MECHANISMS; absent or empty allows all.
func allows(attrs p11.Attributes, m p11.MechanismType) bool {
	list, ok := attrs.Get(p11.CKA_ALLOWED_MECHANISMS)
	if !ok || len(list) == 0 {
		return true
	}
	for ; len(list) >= 8; list = list[8:] {
		if v, err := p11.ToUlong(list[:8]); err == nil && p11.MechanismType(v) == m {
			return true
		}
	}
	return false
}

// begin makes o an operation of s with the key e, for which impl is the token's
// side.
func (o *operation) begin(s *Session, e *entry, what string, impl interface{ Close() }) error {
	o.session, o.what = s, what
	if e != nil {
		o.login = e.login
		o.locked = e.attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE)
	}
	return o.start(impl)
}
