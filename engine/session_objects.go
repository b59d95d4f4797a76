package engine

import (
	"sync"
	"sync/atomic"

	"github.com/google/btree"

	"p11fs/p11"
	"p11fs/tokens"
)

// sessionObjects are the session objects of one application on one slot. All of
// the application's sessions there see them (PKCS#11 v3.1 §4.4).
type sessionObjects struct {
	appSlot *appSlot
	index   *tokens.Index // safe for concurrent use by itself

	mu   sync.Mutex // guards all below, and changes of index; 3rd in the order of doc.go
	made map[p11.ObjectHandle]made
}

// made is how an object came to be.
type made struct {
	by   *Session
	life *lifetime
	size int        // in the account of the uid
	ivs  *ivCounter // of a secret key
}

// A lifetime counts what holds an object that the token has adopted, while it is
// being made, and of a session object all its versions, its copies, and operations
// that go on after the object is gone.
// The last one has the token forget it. A copy in the token holds it for good: what
// becomes of that is the token's matter. It is nil where the token has no use for
// that.
type lifetime struct {
	holders atomic.Int64
	token   tokens.Forgetter
}

func (o *sessionObjects) newLifetime() *lifetime {
	f, ok := o.appSlot.slot.token.(tokens.Forgetter)
	if !ok {
		return nil
	}
	return &lifetime{token: f}
}

// newObject returns a version of an object with that lifetime.
func newObject(h p11.ObjectHandle, attrs p11.Attributes, life *lifetime) *tokens.Object {
	if life == nil {
		return tokens.NewObject(h, "", attrs)
	}
	life.holders.Add(1)
	return tokens.NewSessionObject(h, attrs, func(attrs p11.Attributes) {
		if life.holders.Add(-1) == 0 {
			life.token.Forget(attrs)
		}
	})
}

func (o *sessionObjects) init(st *appSlot) {
	o.appSlot = st
	o.index = tokens.NewIndex()
	o.made = make(map[p11.ObjectHandle]made)
}

// lifetimeOf returns the lifetime that a copy of the session object h shares. The
// caller holds the object.
func (o *sessionObjects) lifetimeOf(h p11.ObjectHandle) (*lifetime, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m, ok := o.made[h]
	if !ok {
		return nil, noObject(h)
	}
	return m.life, nil
}

// hold adds a holder. release takes one away that has nothing to forget, since the
// caller holds a version of the object.
func (l *lifetime) hold() {
	if l != nil {
		l.holders.Add(1)
	}
}

func (l *lifetime) release() {
	if l != nil {
		l.holders.Add(-1)
	}
}

// get returns the object with that handle, or nil.
func (o *sessionObjects) get(h p11.ObjectHandle) *tokens.Object {
	return o.index.Get(h)
}

// add keeps a new object of s. l is the login that lets a private one be made.
// attrs become the object's, and are wiped when it is not made.
// ivs are those that a copy shares, nil for a new object.
func (o *sessionObjects) add(s *Session, l *login, attrs p11.Attributes, life *lifetime, ivs *ivCounter) (*tokens.Object, error) {
	app := o.appSlot.app
	if err := app.engine.quota.take(app.owner.UID, app.engine.limits, 0, 1); err != nil {
		newObject(0, attrs, life).Drop()
		return nil, err
	}
	size := tokens.SizeOf(attrs)
	if err := app.account.Take(size); err != nil {
		app.engine.quota.give(app.owner.UID, 0, 1)
		newObject(0, attrs, life).Drop()
		return nil, err
	}
	slot := o.appSlot.slot
	h := slot.handles.reserve(func(h p11.ObjectHandle) bool {
		_, err := slot.token.ByHandle(h)
		return err == nil
	})
	if class, _ := attrs.Class(); class == p11.CKO_SECRET_KEY && ivs == nil {
		ivs = &ivCounter{}
	}
	obj := newObject(h, attrs, life)
	if err := o.insert(made{s, life, size, ivs}, l, obj); err != nil {
		slot.handles.release(h)
		app.account.Give(size)
		app.engine.quota.give(app.owner.UID, 0, 1)
		obj.Drop()
		return nil, err
	}
	app.engine.countOf(obj).Add(1)
	return obj, nil
}

func (o *sessionObjects) insert(m made, l *login, obj *tokens.Object) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Both ends sweep under mu after they have said so: what comes later is
	// refused here.
	if m.by.closed() {
		return m.by.gone()
	}
	if obj.Private && (l == nil || o.appSlot.login.Load() != l) {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
	}
	o.index.Put(obj)
	o.made[obj.Handle] = m
	return nil
}

// update gives the object a new version.
func (o *sessionObjects) update(h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) error {
	_, err := o.index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.get(h) != old {
			return nil, tokens.ErrChanged
		}
		m := o.made[h]
		was := m.size
		m.size = tokens.SizeOf(attrs)
		if err := o.appSlot.app.account.Take(m.size - was); err != nil {
			return nil, err
		}
		o.made[h] = m
		obj := newObject(h, attrs, m.life)
		o.index.Put(obj).Drop()
		return obj, nil
	})
	return masked(h, err)
}

// destroy removes the object when check agrees.
func (o *sessionObjects) destroy(h p11.ObjectHandle, check func(p11.Attributes) error) error {
	return masked(h, o.index.Destroy(h, check, func(old *tokens.Object) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.get(h) != old {
			return tokens.ErrChanged
		}
		o.removeLocked(h, old)
		return nil
	}))
}

// dropSession removes the objects that s made.
func (o *sessionObjects) dropSession(s *Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for h, m := range o.made {
		if m.by == s {
			o.removeLocked(h, o.get(h))
		}
	}
}

// dropPrivate removes the private objects (PKCS#11 v3.1 §5.6.10, C_Logout).
func (o *sessionObjects) dropPrivate() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for h := range o.made {
		if obj := o.get(h); obj.Private {
			o.removeLocked(h, obj)
		}
	}
}

func (o *sessionObjects) removeLocked(h p11.ObjectHandle, obj *tokens.Object) {
	app := o.appSlot.app
	app.account.Give(o.made[h].size)
	o.index.Remove(h)
	delete(o.made, h)
	obj.Drop()
	o.appSlot.slot.handles.release(h)
	app.engine.quota.give(app.owner.UID, 0, 1)
	app.engine.countOf(obj).Add(-1)
}

// countOf is the count of session objects that has obj.
func (e *Engine) countOf(obj *tokens.Object) *atomic.Int64 {
	if obj.Private {
		return &e.sessionObjects[1]
	}
	return &e.sessionObjects[0]
}

// handleTree is the tree of a slot's session object handles, over all
// applications: a handle names one object.
type handleTree struct {
	mu   sync.Mutex // guards tree; 4th in the order of doc.go
	tree *btree.BTreeG[p11.ObjectHandle]
}

func (t *handleTree) init() {
	t.tree = btree.NewG(treeDegree, func(a, b p11.ObjectHandle) bool { return a < b })
}

// reserve returns a new handle, for which taken is false.
func (t *handleTree) reserve(taken func(p11.ObjectHandle) bool) p11.ObjectHandle {
	for {
		h := tokens.NewHandle()
		if !taken(h) && t.insert(h) {
			return h
		}
	}
}

func (t *handleTree) insert(h p11.ObjectHandle) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tree.Has(h) {
		return false
	}
	t.tree.ReplaceOrInsert(h)
	return true
}

func (t *handleTree) release(h p11.ObjectHandle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tree.Delete(h)
}

func (t *handleTree) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tree.Len()
}
