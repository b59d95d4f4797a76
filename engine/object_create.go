package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// mayStore checks that the session may make an object with these attributes
// (PKCS#11 v3.1 §5.6, table "access to different types of objects"), and
// returns the login that a private one needs.
func (s *Session) mayStore(attrs p11.Attributes) (*login, error) {
	if s.closed() {
		return nil, s.gone()
	}
	var l *login
	if attrs.Bool(p11.CKA_PRIVATE) {
		if l = s.appSlot.user(); l == nil {
			return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "private: is true, so the user must be logged in")
		}
	}
	if attrs.Bool(p11.CKA_TOKEN) {
		if err := s.writable(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// A pending object is an object to be made, with the login that mayStore returned. Its
// attributes are wiped when it is not made.
type pending struct {
	attrs p11.Attributes
	login *login
	life  *lifetime // of a session object
}

// adopt has the token take new objects, before any of them is stored: all or none.
// Whatever comes to be, but for a copy, passes here.
func (s *Session) adopt(ctx context.Context, list ...*pending) error {
	err := s.adoptAll(ctx, list)
	if err != nil {
		for _, p := range list {
			s.disown(p)
		}
	}
	return err
}

func (s *Session) adoptAll(ctx context.Context, list []*pending) error {
	a, adopts := s.appSlot.slot.token.(tokens.Adopter)
	for _, p := range list {
		if err := s.mayStillStore(ctx, p.login); err != nil {
			return err
		}
		if !adopts {
			continue
		}
		attrs, err := a.Adopt(ctx, p.attrs)
		p.attrs = attrs
		if err != nil {
			p.attrs = nil // the token has wiped them
			return interruptedBy(ctx, err)
		}
		if !attrs.Bool(p11.CKA_TOKEN) {
			p.life = s.appSlot.objects.newLifetime()
		}
	}
	return nil
}

// disown gives up an object that is not made after all.
func (s *Session) disown(p *pending) {
	if p.life != nil {
		newObject(0, p.attrs, p.life).Drop()
		return
	}
	p.attrs.Wipe()
}

// store makes the object.
func (s *Session) store(ctx context.Context, p *pending) (p11.ObjectHandle, error) {
	if err := s.mayStillStore(ctx, p.login); err != nil {
		s.disown(p)
		return 0, err
	}
	as := s.appSlot
	if !p.attrs.Bool(p11.CKA_TOKEN) {
		o, err := as.objects.add(s, p.login, p.attrs, p.life)
		if err != nil {
			return 0, err
		}
		return o.Handle, nil
	}
	o, err := as.slot.token.Create(ctx, p.attrs)
	if err != nil {
		return 0, err
	}
	return view{login: p.login}.handle(o), nil
}

// make adopts and stores one object.
func (s *Session) make(ctx context.Context, p *pending) (p11.ObjectHandle, error) {
	if err := s.adopt(ctx, p); err != nil {
		return 0, err
	}
	return s.store(ctx, p)
}

func (s *Session) mayStillStore(ctx context.Context, l *login) error {
	if s.closed() {
		return s.gone()
	}
	if l != nil && s.appSlot.user() != l {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
	}
	return interrupted(ctx)
}

// isSO says whether the security officer is logged in.
func (s *Session) isSO() bool {
	l := s.appSlot.current()
	return l != nil && l.user == p11.CKU_SO
}

// CreateObject is C_CreateObject (PKCS#11 v3.1 §5.7.1): an import, without trust
// in where the key has been.
func (s *Session) CreateObject(ctx context.Context, template p11.Attributes) (p11.ObjectHandle, error) {
	attrs, err := s.appSlot.app.engine.rules.complete(template, created, s.isSO())
	if err != nil {
		return 0, err
	}
	l, err := s.mayStore(attrs)
	if err == nil {
		err = finish(&attrs, created, 0, nil)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	return s.make(ctx, &pending{attrs: attrs, login: l})
}

// CopyObject is C_CopyObject (PKCS#11 v3.1 §5.7.2). The copy differs in what
// template says.
func (s *Session) CopyObject(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return 0, err
	}
	defer e.release()
	if err := mayCopy(e.attrs); err != nil {
		return 0, err
	}
	rules := s.appSlot.app.engine.rules
	if mayModify(e.attrs) != nil {
		if err := rules.existing(e.attrs).leavesAlone(e.attrs, template); err != nil {
			return 0, err
		}
	}
	attrs, err := rules.change(e.attrs, template, true, s.isSO())
	if err != nil {
		return 0, err
	}
	l, err := s.mayStore(attrs)
	if err == nil {
		err = setUniqueID(&attrs)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	p := &pending{attrs: attrs, login: l}
	if e.session() && !attrs.Bool(p11.CKA_TOKEN) {
		p.life = s.appSlot.objects.lifetimeOf(h)
	}
	return s.store(ctx, p)
}

// leavesAlone refuses a template that changes in the copy what cannot be changed
// in the object.
func (r *ruleset) leavesAlone(attrs, template p11.Attributes) error {
	for _, a := range template {
		if one, _ := r.get(a.Type); one.traits&modifiable != 0 && !attrs.Match(p11.Attributes{a}) {
			return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "%s: the object's modifiable is false", a.Type.Short())
		}
	}
	return nil
}

// DestroyObject is C_DestroyObject (PKCS#11 v3.1 §5.7.3). Operations that use
// the object go on to their end.
func (s *Session) DestroyObject(ctx context.Context, h p11.ObjectHandle) error {
	o, err := s.mine(ctx, h)
	if err != nil {
		return err
	}
	if o.Name == "" {
		return s.appSlot.objects.destroy(h, mayDestroy)
	}
	return masked(h, s.appSlot.slot.token.Destroy(ctx, o.Handle, mayDestroy))
}

// mine returns an object that the session may change.
func (s *Session) mine(ctx context.Context, h p11.ObjectHandle) (*tokens.Object, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer e.release()
	if !e.session() {
		if err := s.writable(); err != nil {
			return nil, err
		}
	}
	return e.object, nil
}

// masked keeps the token's own handle of a private object out of the error.
func masked(h p11.ObjectHandle, err error) error {
	if err != nil && p11.RVOf(err) == p11.CKR_OBJECT_HANDLE_INVALID {
		return noObject(h)
	}
	return err
}

// ObjectSize is C_GetObjectSize (PKCS#11 v3.1 §5.7.4): the bytes of all
// attributes with their types and lengths.
func (s *Session) ObjectSize(ctx context.Context, h p11.ObjectHandle) (uint64, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return 0, err
	}
	defer e.release()
	var n uint64
	for _, a := range e.attrs {
		n += 12 + uint64(len(a.Value))
	}
	return n, nil
}
