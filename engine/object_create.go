package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// mayStore checks that the session may make an object with these attributes
// (PKCS#11 v3.1 §5.6, table "access to different types of objects"), and
// returns the login that it needs, if it needs one.
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
		token, err := s.tokenLogin()
		if err != nil {
			return nil, err
		}
		if l == nil {
			l = token
		}
	}
	return l, nil
}

// A pending object is an object to be made, with the login that mayStore returned.
// What is not made is disowned.
type pending struct {
	attrs p11.Attributes
	login *login
	life  *lifetime  // ends where it is not made, or is a session object
	ivs   *ivCounter // of the session key that it is a copy of
}

func (s *Session) pending(attrs p11.Attributes, l *login) *pending {
	return &pending{attrs: attrs, login: l, life: s.appSlot.objects.newLifetime()}
}

// adopt has the token take new objects, before any of them is stored: all or none.
// Whatever comes to be, but for a copy, passes here.
func (s *Session) adopt(ctx context.Context, list ...*pending) error {
	err := s.adoptAll(ctx, list)
	if err != nil {
		s.disown(list...)
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
		attrs, err := a.Adopt(s.long(ctx), p.attrs)
		if err != nil {
			p.attrs = nil // the token has wiped them
			return interruptedBy(ctx, err)
		}
		p.attrs = attrs
	}
	return nil
}

// disown gives up objects that are not made after all: the token forgets what it has
// of them, and their attributes are wiped.
func (s *Session) disown(list ...*pending) {
	for _, p := range list {
		newObject(0, p.attrs, p.life).Drop()
	}
}

// store makes objects that the token has adopted: all or none. Once it has begun it
// is not interrupted.
func (s *Session) store(ctx context.Context, list ...*pending) ([]p11.ObjectHandle, error) {
	for _, p := range list {
		err := s.mayStillStore(ctx, p.login)
		if err == nil {
			err = s.mayMake(p.attrs)
		}
		if err == nil && s.appSlot.current() == nil {
			if err = s.appSlot.slot.token.Refresh(ctx); err == nil { // all that are there count
				err = s.mayGrow(nil, p.attrs)
			}
		}
		if err != nil {
			s.disown(list...)
			return nil, err
		}
	}
	var inToken, inSession []int
	for i, p := range list {
		if p.attrs.Bool(p11.CKA_TOKEN) {
			inToken = append(inToken, i)
		} else {
			inSession = append(inSession, i)
		}
	}
	// Session objects can always be taken back, so they come first.
	handles := make([]p11.ObjectHandle, len(list))
	var err error
	for _, i := range inSession {
		p := list[i]
		if err != nil {
			s.disown(p)
			continue
		}
		var o *tokens.Object
		if o, err = s.appSlot.objects.add(s, p.login, p.attrs, p.life, p.ivs); err == nil {
			handles[i] = o.Handle
		}
	}
	if err == nil {
		err = s.storeInToken(ctx, list, inToken, handles)
	} else {
		for _, i := range inToken {
			s.disown(list[i])
		}
	}
	if err == nil {
		return handles, nil
	}
	for _, i := range inSession {
		// What is not there was not made, or has ended with its session or login.
		_ = s.appSlot.objects.destroy(handles[i], anyway)
	}
	return nil, err
}

// storeInToken stores the token objects of the list.
func (s *Session) storeInToken(ctx context.Context, list []*pending, which []int, handles []p11.ObjectHandle) error {
	var attrs []p11.Attributes
	for _, i := range which {
		attrs = append(attrs, list[i].attrs)
	}
	objects, taken, err := createAll(ctx, s.appSlot.slot.token, attrs)
	for j, o := range objects {
		handles[which[j]] = view{login: list[which[j]].login}.handle(o)
	}
	for _, i := range which[taken:] {
		s.disown(list[i])
	}
	if err != nil {
		s.undo(ctx, objects)
	}
	return err
}

// createAll stores token objects. With an error, some of them may be stored: those
// that it returns. The token has taken the first of the list, whatever became of them.
func createAll(ctx context.Context, t tokens.Token, list []p11.Attributes) (made []*tokens.Object, taken int, err error) {
	if b, ok := t.(tokens.BatchCreator); ok && len(list) > 1 {
		made, err = b.CreateAll(ctx, list)
		return made, len(list), err
	}
	for i, attrs := range list {
		o, err := t.Create(ctx, attrs)
		if err != nil {
			return made, i + 1, err
		}
		made = append(made, o)
		ctx = context.WithoutCancel(ctx) // begun is done
	}
	return made, len(list), nil
}

// undo takes back token objects made just now. It is not to be interrupted.
func (s *Session) undo(ctx context.Context, objects []*tokens.Object) {
	slot := s.appSlot.slot
	for _, o := range objects {
		if err := slot.token.Destroy(context.WithoutCancel(ctx), o.Handle, anyway); err != nil {
			s.appSlot.app.engine.log.Error("an object of several that could not be made is left over", "token", slot.Name(), "err", err)
		}
	}
}

// anyway is the check of who destroys an object whatever it is.
func anyway(p11.Attributes) error { return nil }

// make adopts and stores one object.
func (s *Session) make(ctx context.Context, p *pending) (p11.ObjectHandle, error) {
	handles, err := s.makeAll(ctx, p)
	if err != nil {
		return 0, err
	}
	return handles[0], nil
}

// makeAll adopts and stores objects: all or none.
func (s *Session) makeAll(ctx context.Context, list ...*pending) ([]p11.ObjectHandle, error) {
	if err := s.adopt(ctx, list...); err != nil {
		return nil, err
	}
	return s.store(ctx, list...)
}

func (s *Session) mayStillStore(ctx context.Context, l *login) error {
	if s.closed() {
		return s.gone()
	}
	if l != nil && s.appSlot.current() != l {
		return p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user logged out meanwhile")
	}
	return interrupted(ctx)
}

// isSO says whether the security officer is logged in.
func (s *Session) isSO() bool {
	l := s.appSlot.current()
	return l != nil && l.user == p11.CKU_SO
}

// complete is rules.complete as the session has it.
func (s *Session) complete(template p11.Attributes, o origin) (p11.Attributes, error) {
	app := s.appSlot.app
	attrs, err := app.engine.rules.complete(template, o, s.isSO(), app.defaults)
	if err == nil {
		if err = s.appSlot.slot.worksWith(attrs); err != nil {
			attrs.Wipe()
		}
	}
	return attrs, err
}

// CreateObject is C_CreateObject (PKCS#11 v3.1 §5.7.1): an import, without trust
// in where the key has been.
func (s *Session) CreateObject(ctx context.Context, template p11.Attributes) (p11.ObjectHandle, error) {
	handles, err := s.CreateObjects(ctx, []p11.Attributes{template})
	if err != nil {
		return 0, err
	}
	return handles[0], nil
}

// CreateObjects is C_CreateObject for several objects: all are made or none. There
// is one handle for each, in their order.
func (s *Session) CreateObjects(ctx context.Context, templates []p11.Attributes) ([]p11.ObjectHandle, error) {
	var list []*pending
	for _, template := range templates {
		p, err := s.prepareCreated(template)
		if err != nil {
			s.disown(list...)
			return nil, err
		}
		list = append(list, p)
	}
	return s.makeAll(ctx, list...)
}

func (s *Session) prepareCreated(template p11.Attributes) (*pending, error) {
	attrs, err := s.complete(template, created)
	if err != nil {
		return nil, err
	}
	l, err := s.mayStore(attrs)
	if err == nil {
		err = finish(&attrs, created, 0, nil)
	}
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return s.pending(attrs, l), nil
}

// CopyObject is C_CopyObject (PKCS#11 v3.1 §5.7.2). The copy differs in what
// template says.
func (s *Session) CopyObject(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return 0, err
	}
	defer e.release()
	if e.granted != nil {
		return 0, e.granted.otherwise("be copied")
	}
	if err := mayCopy(e.attrs); err != nil {
		return 0, err
	}
	if err := e.shows(template); err != nil {
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
	if told, err := s.tell(ctx, e.attrs, attrs); err != nil || told != nil {
		attrs.Wipe()
		if attrs = told; err != nil {
			return 0, err
		}
	}
	l, err := s.mayStore(attrs)
	if err == nil {
		err = setUniqueID(&attrs)
	}
	if err != nil {
		attrs.Wipe()
		return 0, err
	}
	return s.storeCopy(ctx, e, &pending{attrs: attrs, login: l})
}

// storeCopy stores a copy of e, with which it shares what the token has adopted.
func (s *Session) storeCopy(ctx context.Context, e *entry, p *pending) (p11.ObjectHandle, error) {
	var kept *lifetime
	if e.session() {
		life, err := s.appSlot.objects.lifetimeOf(e.handle)
		if err != nil {
			p.attrs.Wipe()
			return 0, err
		}
		if p.attrs.Bool(p11.CKA_TOKEN) {
			kept = life
			kept.hold()
		} else {
			p.life, p.ivs = life, s.appSlot.objects.ivsOf(e.handle)
		}
	}
	handles, err := s.store(ctx, p)
	if err != nil {
		kept.release()
		return 0, err
	}
	return handles[0], nil
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

// DestroyObject is C_DestroyObject (PKCS#11 v3.1 §5.7.3). An operation that
// has taken data goes on to its end: no other one, and no other message, begins with the key.
func (s *Session) DestroyObject(ctx context.Context, h p11.ObjectHandle) error {
	o, err := s.mine(ctx, h, nil)
	if err != nil {
		return err
	}
	if o.Name == "" {
		return s.appSlot.objects.destroy(h, mayDestroy)
	}
	return masked(h, s.appSlot.slot.token.Destroy(ctx, o.Handle, mayDestroy))
}

// mine returns an object that the session may change, in what template names.
func (s *Session) mine(ctx context.Context, h p11.ObjectHandle, template p11.Attributes) (*tokens.Object, error) {
	e, err := s.open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer e.release()
	if err := e.shows(template); err != nil {
		return nil, err
	}
	switch {
	case e.granted != nil:
		return nil, e.granted.otherwise("be changed or destroyed")
	case isBuiltin(h):
		return nil, p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object tells of the token itself")
	case !e.session():
		if err := s.MayChangeToken(); err != nil {
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
		if e.visibility(a.Type) != tokens.Hidden {
			n += 12 + uint64(len(a.Value))
		}
	}
	return n, nil
}
