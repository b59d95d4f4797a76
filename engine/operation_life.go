package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
)

// register has the operation end with its session and login. If they have ended
// meanwhile, so does the operation.
func (o *Operation) register() error {
	s := o.session
	s.mu.Lock()
	// Both ends collect the operations under s.mu after they have said so.
	err := o.stands()
	if err == nil {
		o.open = true
		s.operations[o] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil {
		o.release()
		return err
	}
	s.appSlot.app.engine.operations.Add(1)
	return nil
}

// release gives up what a call or an operation holds.
func (o *Operation) release() {
	if o.impl != nil {
		o.impl.Close()
		o.impl = nil
	}
	if o.message != nil {
		o.endMessage()
	}
	if o.replay != nil {
		secret.Wipe(o.replay.data)
		o.replay = nil
	}
	o.session.appSlot.app.account.Give(o.held)
	o.held = 0
	if o.key != nil {
		o.key.release()
		o.key = nil
	}
}

// stands checks what may have changed since the operation began. It takes no
// lock.
func (o *Operation) stands() error {
	if o.session.closed() {
		return o.session.gone()
	}
	if o.granted != nil {
		return o.granted.stands(o)
	}
	if o.login == nil {
		return nil
	}
	if o.session.appSlot.login.Load() != o.login || o.login.token.Valid() != nil {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out while the %s was in progress", o.use.noun)
	}
	return nil
}

// enter begins a call; without an error leave ends it.
func (o *Operation) enter(ctx context.Context) error {
	if err := interrupted(ctx); err != nil {
		return err
	}
	o.mu.Lock()
	err := o.stands()
	switch {
	case err != nil:
		o.stop.Store(true)
	case o.stop.Load() || !o.open || o.inCall:
		o.stop.Store(true)
		err = p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "the %s has ended", o.use.noun)
	case o.locked:
		// An open file's goes on: the PIN can still be given. PKCS#11 v3.1
		// §5.13.2: C_Sign "always terminates the active signing operation".
		o.stop.Store(o.once)
		err = p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the key wants the PIN again for each %s", o.use.noun),
			"write context-specific:PIN to the file login, then the data")
	}
	if err != nil {
		o.unlock()
		return err
	}
	o.inCall = true
	return nil
}

// leave ends a call, deferred, also after a panic in the token.
func (o *Operation) leave() {
	o.call.Store(nil)
	if o.inCall {
		o.stop.Store(true)
	}
	o.unlock()
}

// unlock gives mu back, and what the operation holds if it is to stop.
func (o *Operation) unlock() {
	for {
		ended := o.open && o.stop.Load()
		if ended {
			o.open = false // no call begins any more
		}
		o.mu.Unlock()
		if ended {
			o.unregister()
			o.release()
		}
		// Someone may have cut the operation just before mu was free.
		if !o.stop.Load() || !o.mu.TryLock() {
			return
		}
		if !o.open {
			o.mu.Unlock()
			return
		}
	}
}

// Close ends the operation without waiting for a call in progress, which is
// interrupted, and gives up what it holds when it comes back. It may be called
// again.
func (o *Operation) Close() {
	o.stop.Store(true)
	if c := o.call.Load(); c != nil {
		c.interrupt()
	}
	if o.mu.TryLock() {
		o.unlock()
	}
}

func (o *Operation) unregister() {
	s := o.session
	s.mu.Lock()
	delete(s.operations, o)
	s.mu.Unlock()
	s.appSlot.app.engine.operations.Add(-1)
}

// lock has the next use of the key want the PIN, if the key does.
func (o *Operation) lock() {
	if o.key.attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE) {
		o.locked, o.asked = true, o.session.asked.Add(1)
	}
}

// Authenticate checks the user's PIN for an operation whose key has
// CKA_ALWAYS_AUTHENTICATE: C_Login of CKU_CONTEXT_SPECIFIC for this operation
// alone. A wrong PIN ends nothing.
func (o *Operation) Authenticate(ctx context.Context, pin *secret.Bytes) error {
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
