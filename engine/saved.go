package engine

import (
	"context"
	"crypto/rand"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// What C_GetOperationState gives is the name of a copy of the operations, which stays
// here: no key and no data of a message leaves the token so. It lives as long as its
// session, and as the login that its keys need, and can be restored more than once.

// A savedState is the operations of a session as they stood.
type savedState struct {
	name  [stateSize]byte
	state p11.State // of the session
	list  []*Operation
}

const (
	stateSize = 32 // bytes
	maxSaved  = 16 // of a session; more push out the oldest
)

// saveable are the operations that are saved (PKCS#11 v3.2 §5.6, C_GetOperationState).
var saveable = [...]p11.Flags{p11.CKF_ENCRYPT, p11.CKF_DECRYPT, p11.CKF_DIGEST, p11.CKF_SIGN, p11.CKF_VERIFY} //nolint:gochecknoglobals // a table, never written

// GetOperationState is C_GetOperationState (PKCS#11 v3.2 §5.6). What cannot be in two
// states at once gives CKR_STATE_UNSAVEABLE: a key stream and an authenticated encryption
// would be used twice with one IV, and one authentication for two signatures.
func (s *Session) GetOperationState(ctx context.Context, room int) ([]byte, error) {
	if s.closed() {
		return nil, s.gone()
	}
	var active []*Operation
	s.mu.Lock()
	for _, flag := range saveable {
		if o := s.active[flag]; o != nil {
			active = append(active, o)
		}
	}
	s.mu.Unlock()
	if active == nil {
		return nil, notActive("operation that could be saved")
	}
	for _, o := range active {
		if err := o.mayDuplicate(); err != nil {
			return nil, err
		}
	}
	if err := fits(stateSize, room); err != nil {
		return nil, err
	}
	saved := &savedState{state: s.state(s.appSlot.current())}
	if _, err := rand.Read(saved.name[:]); err != nil {
		return nil, p11.Errorf(p11.CKR_GENERAL_ERROR, "random numbers: %v", err)
	}
	var err error
	if saved.list, err = duplicateAll(ctx, active, s); err != nil {
		return nil, err
	}
	var oldest *savedState
	s.mu.Lock()
	s.saved = append(s.saved, saved)
	if len(s.saved) > maxSaved {
		oldest, s.saved = s.saved[0], slices.Delete(s.saved, 0, 1)
	}
	s.mu.Unlock()
	if oldest != nil {
		closeAll(oldest.list)
	}
	return saved.name[:], nil
}

// SetOperationState is C_SetOperationState (PKCS#11 v3.2 §5.6): whatever is active in the
// session is cancelled. The keys may be given, or be 0.
func (s *Session) SetOperationState(ctx context.Context, name []byte, encryption, authentication p11.ObjectHandle) error {
	if s.closed() {
		return s.gone()
	}
	saved := s.appSlot.savedState(name)
	if saved == nil || saved.state != s.state(s.appSlot.current()) {
		return p11.Errorf(p11.CKR_SAVED_STATE_INVALID, "this is no state of a session like this one that is still there")
	}
	for _, given := range []struct {
		key  p11.ObjectHandle
		uses p11.Flags
	}{{encryption, p11.CKF_ENCRYPT | p11.CKF_DECRYPT}, {authentication, p11.CKF_SIGN | p11.CKF_VERIFY}} {
		if err := s.mayRestore(ctx, saved, given.key, given.uses); err != nil {
			return err
		}
	}
	for _, o := range saved.list {
		if err := o.serves(ctx); err != nil { // a state goes on as often as somebody likes
			return err
		}
	}
	list, err := duplicateAll(ctx, saved.list, s)
	if err != nil {
		return p11.Errorf(p11.CKR_SAVED_STATE_INVALID, "the operation has ended meanwhile: %w", err)
	}
	err = s.SessionCancel(ctx, ^p11.Flags(0))
	for _, o := range list {
		if err == nil {
			err = s.activate(o)
		}
	}
	if err != nil {
		closeAll(list)
	}
	return err
}

// mayRestore checks a key that is given, 0 for none, against that of the operations of
// these uses.
func (s *Session) mayRestore(ctx context.Context, saved *savedState, key p11.ObjectHandle, uses p11.Flags) error {
	i := slices.IndexFunc(saved.list, func(o *Operation) bool { return o.use.flag&uses != 0 })
	switch {
	case key == 0:
		return nil
	case i < 0:
		return p11.Errorf(p11.CKR_KEY_NOT_NEEDED, "the state has no operation with such a key")
	}
	e, err := s.open(ctx, key)
	if err != nil {
		return p11.Errorf(p11.CKR_KEY_CHANGED, "the key is not the one of the state: %w", err)
	}
	defer e.release()
	if e.object.Handle != saved.list[i].keyHandle {
		return p11.Errorf(p11.CKR_KEY_CHANGED, "the key is not the one of the state")
	}
	return nil
}

// savedState finds a state by its name in all sessions of the application.
func (st *appSlot) savedState(name []byte) *savedState {
	for _, s := range st.app.Sessions(st.slot) {
		s.mu.Lock()
		i := slices.IndexFunc(s.saved, func(saved *savedState) bool { return string(saved.name[:]) == string(name) })
		var saved *savedState
		if i >= 0 {
			saved = s.saved[i]
		}
		s.mu.Unlock()
		if saved != nil {
			return saved
		}
	}
	return nil
}

func closeAll(list []*Operation) {
	for _, o := range list {
		o.Close()
	}
}

// duplicateAll makes copies of operations for a session: all or none.
func duplicateAll(ctx context.Context, list []*Operation, s *Session) (copies []*Operation, err error) {
	for _, o := range list {
		c, err := o.duplicate(ctx, s)
		if err != nil {
			closeAll(copies)
			return nil, err
		}
		copies = append(copies, c)
	}
	return copies, nil
}

// mayDuplicate says whether there can be two of the operation.
func (o *Operation) mayDuplicate() error {
	o.mu.Lock()
	defer o.unlock()
	d, ok := o.impl.(tokens.Duplicator)
	if !ok || !d.MayDuplicate() || o.replay != nil || o.key != nil && o.key.attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE) {
		return p11.Errorf(p11.CKR_STATE_UNSAVEABLE, "the state of a %s with %s is not saved", o.use.noun, o.mech.Type.Short())
	}
	return nil
}

// duplicate makes a copy of the operation for a session, in which it is not active yet.
func (o *Operation) duplicate(ctx context.Context, s *Session) (*Operation, error) {
	if err := o.mayDuplicate(); err != nil {
		return nil, err
	}
	c := &Operation{session: s, use: o.use, mech: o.mech, login: o.login, granted: o.granted, fresh: o.fresh, size: o.size, signature: o.signature, once: true}
	_, err := o.run(ctx, never, func(context.Context) ([]byte, error) {
		c.parts = o.parts
		if o.key != nil {
			if _, err := o.key.object.Acquire(); err != nil {
				return nil, p11.Errorf(p11.CKR_STATE_UNSAVEABLE, "the key is gone: %w", err)
			}
			key := *o.key
			c.key, c.keyHandle = &key, key.object.Handle
		}
		c.beside = o.beside
		if err := c.count(max(o.kept(), 0)); err != nil {
			return nil, err
		}
		impl, err := o.impl.(tokens.Duplicator).Duplicate()
		if err == nil {
			c.impl = impl
		}
		return nil, err
	})
	if err != nil {
		c.release()
		return nil, err
	}
	if err := c.register(); err != nil {
		return nil, err
	}
	return c, nil
}
