package engine

import (
	"bytes"
	"context"
	"iter"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// ObjectInfo is what an application may know of an object.
type ObjectInfo struct {
	Handle  p11.ObjectHandle
	Name    string // stored name; empty for a session object
	Class   p11.ObjectClass
	KeyType p11.KeyType // of keys and domain parameters
	Label   string
	ID      []byte
	Token   bool
	Private bool
	Changed time.Time      // see tokens.Object
	Dated   time.Time      // likewise
	Length  int            // of CKA_VALUE in bytes; -1 where there is none that may be revealed
	Attrs   p11.Attributes // a copy, without what may not be revealed, and from a search without any secret value
}

// Wipe wipes the secret values among the attributes (p11.Attributes.Secret).
func (i ObjectInfo) Wipe() {
	for _, a := range i.Attrs {
		if i.Attrs.Secret(a.Type) {
			secret.Wipe(a.Value)
		}
	}
}

// An entry is an object as one application sees it, held (tokens.Object.Acquire)
// until release.
type entry struct {
	handle  p11.ObjectHandle // the application's
	object  *tokens.Object
	slot    *Slot
	attrs   p11.Attributes // not to be changed
	login   *login         // what lets a private object be seen; nil for a public one, and by grants
	granted *granted       // what does so by grants
}

func (e *entry) release() { e.object.Release() }

func (e *entry) session() bool { return e.object.Name == "" }

// noObject is the one answer for a handle that names nothing, whatever the
// reason: before login a private object does not exist.
func noObject(h p11.ObjectHandle) error {
	return p11.Errorf(p11.CKR_OBJECT_HANDLE_INVALID, "there is no object %#x", uint64(h))
}

// A view is what an application sees on a slot at one moment.
type view struct {
	app      *Application
	slot     *Slot
	appSlot  *appSlot  // nil when the application never had a session there
	login    *login    // nil unless CKU_USER is logged in
	granting *granting // nil but for who is not logged in, and has grants
}

func (a *Application) view(slot *Slot) view {
	return a.viewWith(slot, a.on(slot))
}

func (s *Session) view() view { return s.appSlot.app.viewWith(s.appSlot.slot, s.appSlot) }

func (a *Application) viewWith(slot *Slot, st *appSlot) view {
	v := view{app: a, slot: slot, appSlot: st}
	var in *login
	if st != nil {
		in = st.current()
	}
	switch {
	case in != nil && in.user == p11.CKU_USER:
		v.login = in
	case in == nil && slot.holding() != nil:
		v.granting = a.granting(slot)
	}
	return v
}

// handle returns what the application calls the object.
func (v view) handle(o *tokens.Object) p11.ObjectHandle {
	if o.Name != "" && o.Private {
		return o.Handle ^ v.mask()
	}
	return o.Handle
}

// mask is that of handles of private token objects. It is asked only where they are seen.
func (v view) mask() p11.ObjectHandle {
	if v.login != nil {
		return v.login.mask
	}
	return v.granting.mask
}

// find returns the object that the application calls h. Whether a private one is seen by a
// grant hold says.
func (v view) find(h p11.ObjectHandle) (*tokens.Object, error) {
	if o := v.slot.builtin(h); o != nil {
		return o, nil
	}
	if v.appSlot != nil {
		if o := v.appSlot.objects.get(h); o != nil {
			if o.Private && v.login == nil {
				return nil, noObject(h)
			}
			return o, nil
		}
	}
	if o, err := v.slot.token.ByHandle(h); err == nil && !o.Private {
		return o, nil
	}
	if v.login != nil || v.granting != nil {
		if o, err := v.slot.token.ByHandle(h ^ v.mask()); err == nil && o.Private {
			return o, nil
		}
	}
	return nil, noObject(h)
}

// open returns the object, held.
func (v view) open(h p11.ObjectHandle) (*entry, error) {
	o, err := v.find(h)
	if err != nil {
		return nil, err
	}
	e, err := v.hold(o)
	if err != nil {
		return nil, noObject(h)
	}
	return e, nil
}

// hold holds o, or the version that has replaced it since it was found: an
// object that is changed meanwhile is there all the time.
func (v view) hold(o *tokens.Object) (*entry, error) {
	attrs, err := o.Acquire()
	for err != nil {
		newest := v.newest(o)
		if newest == nil || newest == o {
			return nil, err
		}
		o = newest
		attrs, err = o.Acquire()
	}
	e := &entry{object: o, slot: v.slot, attrs: attrs}
	if o.Private {
		if e.login = v.login; e.login == nil {
			if e.granted, e.attrs = v.grant(attrs); e.granted == nil {
				o.Release()
				return nil, noObject(o.Handle)
			}
		}
	}
	e.handle = v.handle(o)
	return e, nil
}

// newest returns the newest version of o, nil if it is gone.
func (v view) newest(o *tokens.Object) *tokens.Object {
	if o.Name == "" {
		if v.appSlot == nil {
			return nil
		}
		return v.appSlot.objects.get(o.Handle)
	}
	newest, err := v.slot.token.ByHandle(o.Handle)
	if err != nil || newest.Private != o.Private {
		return nil
	}
	return newest
}

// holdFound is hold for what a search for template found. A version that has
// replaced it may not match any more.
func (v view) holdFound(o *tokens.Object, template p11.Attributes) (*entry, error) {
	e, err := v.hold(o)
	if err != nil || e.object == o || e.attrs.Match(template) || matchesStoredName(e.object, e.attrs, template) {
		return e, err
	}
	e.release()
	return nil, noObject(e.handle)
}

// holds says whether what the view rests on still stands: a logout meanwhile
// must not let private objects out.
func (v view) holds() bool {
	switch {
	case v.granting != nil:
		return v.app.granting(v.slot) == v.granting
	case v.login == nil:
		return true
	}
	return v.appSlot.user() == v.login
}

// open returns the object that the session's application calls h, held, after
// bringing in what other processes changed.
func (s *Session) open(ctx context.Context, h p11.ObjectHandle) (*entry, error) {
	if err := s.refresh(ctx, h); err != nil {
		return nil, err
	}
	return s.view().open(h)
}

// refresh brings in what other processes changed, if they can change h: a session object
// they cannot.
func (s *Session) refresh(ctx context.Context, h p11.ObjectHandle) error {
	if s.closed() {
		return s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	if s.appSlot.objects.get(h) != nil {
		return nil
	}
	return s.appSlot.slot.token.Refresh(ctx)
}

// isStill says whether an object that is held is what its handle names, and in the same
// version, whose attributes never change.
func (s *Session) isStill(ctx context.Context, e *entry) bool {
	if s.refresh(ctx, e.handle) != nil {
		return false
	}
	now, err := s.view().find(e.handle)
	return err == nil && now == e.object
}

// Objects returns the objects that match template and that the application may
// see, in the order in which they were made, token objects first: the public
// ones, the private ones while the user is logged in, and its session objects.
// It needs no session.
func (a *Application) Objects(ctx context.Context, slot *Slot, template p11.Attributes) ([]ObjectInfo, error) {
	if slot.token == nil {
		return nil, slot.absent()
	}
	if err := slot.token.Refresh(ctx); err != nil {
		return nil, err
	}
	v := a.view(slot)
	found, err := v.search(ctx, template, true)
	if err != nil {
		return nil, err
	}
	list := make([]ObjectInfo, 0, len(found))
	for _, o := range found {
		if err := interrupted(ctx); err != nil {
			return nil, err
		}
		e, err := v.holdFound(o, template)
		if err != nil {
			continue // destroyed meanwhile
		}
		list = append(list, e.info(false))
		e.release()
	}
	if v.holds() {
		return list, nil
	}
	public := list[:0]
	for _, i := range list {
		if !i.Private {
			public = append(public, i)
		}
	}
	return public, nil
}

// Object returns what the application may know of the object, or
// CKR_OBJECT_HANDLE_INVALID when it may not see it or there is none.
func (a *Application) Object(ctx context.Context, slot *Slot, h p11.ObjectHandle) (ObjectInfo, error) {
	return a.object(ctx, slot, h, true)
}

// DescribeObject is Object without secret values: who asks how long a value is has no
// copy made of it.
func (a *Application) DescribeObject(ctx context.Context, slot *Slot, h p11.ObjectHandle) (ObjectInfo, error) {
	return a.object(ctx, slot, h, false)
}

func (a *Application) object(ctx context.Context, slot *Slot, h p11.ObjectHandle, whole bool) (ObjectInfo, error) {
	if slot.token == nil {
		return ObjectInfo{}, slot.absent()
	}
	if err := slot.token.Refresh(ctx); err != nil {
		return ObjectInfo{}, err
	}
	v := a.view(slot)
	e, err := v.open(h)
	if err != nil {
		return ObjectInfo{}, err
	}
	defer e.release()
	info := e.info(whole)
	if info.Private && !v.holds() {
		info.Wipe()
		return ObjectInfo{}, noObject(h)
	}
	return info, nil
}

// info copies what may be revealed, with secret values if it is to be whole.
func (e *entry) info(whole bool) ObjectInfo {
	visible := e.copyReadable(whole)
	if len(uniqueID(e.attrs)) == 0 {
		visible.Set(p11.CKA_UNIQUE_ID, e.uniqueID())
	}
	info := e.outline(visible)
	info.Attrs = visible
	info.KeyType, _ = visible.KeyType()
	if v, ok := e.attrs.Get(p11.CKA_VALUE); ok && e.visibility(p11.CKA_VALUE) == tokens.Readable {
		info.Length = len(v)
	}
	return info
}

// names is what info has of the object's names.
func (e *entry) names() ObjectInfo {
	var readable p11.Attributes
	for _, t := range []p11.AttributeType{p11.CKA_CLASS, p11.CKA_LABEL, p11.CKA_ID} {
		if v, ok := e.attrs.Get(t); ok && e.visibility(t) == tokens.Readable {
			readable = append(readable, p11.Attribute{Type: t, Value: v})
		}
	}
	info := e.outline(readable)
	info.ID = bytes.Clone(info.ID)
	return info
}

// peek is what names has of an object whose every attribute may be seen, without holding it:
// what is packed stays so. It is false if the object has gone, or another version has come.
func (v view) peek(o *tokens.Object) (ObjectInfo, bool) {
	e := entry{handle: v.handle(o), object: o}
	info := e.outline(nil)
	there := o.Look(func(attrs iter.Seq[p11.Attribute]) {
		for a := range attrs {
			switch a.Type {
			case p11.CKA_CLASS:
				class, _ := p11.ToUlong(a.Value)
				info.Class = p11.ObjectClass(class)
			case p11.CKA_LABEL:
				info.Label = string(a.Value)
			case p11.CKA_ID:
				info.ID = bytes.Clone(a.Value)
			}
		}
	})
	return info, there
}

// outline is what does not depend on the values of most attributes.
func (e *entry) outline(visible p11.Attributes) ObjectInfo {
	info := ObjectInfo{
		Handle:  e.handle,
		Name:    e.object.Name,
		Label:   visible.Label(),
		Token:   !e.session(),
		Private: e.object.Private,
		Changed: e.object.Changed,
		Dated:   e.object.Dated,
		Length:  -1,
	}
	info.Class, _ = visible.Class()
	info.ID, _ = visible.Get(p11.CKA_ID)
	return info
}

// copyReadable copies the attributes that may be revealed, in one piece of memory:
// listings of many objects are made of these.
func (e *entry) copyReadable(whole bool) p11.Attributes {
	size := 0
	visible := make(p11.Attributes, 0, len(e.attrs)+1)
	for _, a := range e.attrs {
		if e.visibility(a.Type) == tokens.Readable && (whole || !e.attrs.Secret(a.Type)) {
			visible = append(visible, a)
			size += len(a.Value)
		}
	}
	values := make([]byte, 0, size)
	for i, a := range visible {
		start := len(values)
		values = append(values, a.Value...)
		visible[i].Value = values[start:len(values):len(values)]
	}
	return visible
}

// visibility tells whether the attribute may be revealed: not the secret ones of
// keys that are sensitive or cannot be extracted (PKCS#11 v3.1 §4.9 and §4.10, note
// 7), and not what the token keeps to itself (tokens.Hider).
func (e *entry) visibility(t p11.AttributeType) tokens.Visibility {
	v := tokens.Readable
	if h, ok := e.slot.token.(tokens.Hider); ok {
		v = h.Visibility(e.attrs, t)
	}
	switch {
	case v == tokens.Shown:
		return tokens.Readable
	case p11.SecretValue(t) && closed(e.attrs):
		return tokens.Withheld
	}
	return v
}

// shows refuses a template with attributes that are hidden: they are not there.
func (e *entry) shows(template p11.Attributes) error {
	for _, a := range template {
		if e.visibility(a.Type) == tokens.Hidden {
			return p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%s: the object has no such attribute", a.Type.Short())
		}
	}
	return nil
}

// closed tells whether an object is a key that is sensitive or cannot be
// extracted. A key that does not say is taken to be both.
func closed(attrs p11.Attributes) bool {
	switch class, _ := attrs.Class(); class {
	case p11.CKO_PRIVATE_KEY, p11.CKO_SECRET_KEY, p11.CKO_OTP_KEY:
	default:
		return false
	}
	return !attrs.Has(p11.CKA_SENSITIVE) || attrs.Bool(p11.CKA_SENSITIVE) || !attrs.Bool(p11.CKA_EXTRACTABLE)
}

func uniqueID(attrs p11.Attributes) []byte {
	id, _ := attrs.Get(p11.CKA_UNIQUE_ID)
	return id
}

// uniqueID returns CKA_UNIQUE_ID. Objects of older formats have none: their
// stored name does it, which is used once only.
func (e *entry) uniqueID() []byte {
	if id := uniqueID(e.attrs); len(id) > 0 {
		return id
	}
	return []byte(e.object.Name)
}
