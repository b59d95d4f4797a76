package engine

import (
	"bytes"
	"context"
	"math"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// Derived is what a derivation made.
type Derived struct {
	Key  p11.ObjectHandle   // 0 if the mechanism makes none of the template
	More []p11.ObjectHandle // keys that the parameter asks for, 0 for those that it leaves out
	Out  []byte             // what comes beside keys: initialisation vectors, a version
}

// DeriveKey is DeriveKeys of a mechanism that makes one key, or one data object.
func (s *Session) DeriveKey(ctx context.Context, m p11.Mechanism, base p11.ObjectHandle, template p11.Attributes) (p11.ObjectHandle, error) {
	if _, more := m.Param.(p11.KeyMaker); more {
		return 0, p11.Errorf(p11.CKR_MECHANISM_INVALID, "%s makes several keys, which this call has no room for", m.Type.Short())
	}
	d, err := s.DeriveKeys(ctx, m, base, template)
	return d.Key, err
}

// DeriveKeys is C_DeriveKey (PKCS#11 v3.1 §5.18.5): all keys are made, or none. Without
// class and key type it makes a generic secret, with CKM_PUB_KEY_FROM_PRIV_KEY the public
// half of the base key. Bytes that the parameter has no room for give a *BufferError, and no
// key.
func (s *Session) DeriveKeys(ctx context.Context, m p11.Mechanism, base p11.ObjectHandle, template p11.Attributes) (d Derived, err error) {
	f := from{flag: p11.CKF_DERIVE, origin: derived, imposing: p11.CKA_DERIVE_TEMPLATE}
	facts, _ := p11.MechanismFacts(m.Type)
	f.data, f.public = facts.Data, m.Type == p11.CKM_PUB_KEY_FROM_PRIV_KEY
	switch {
	case f.public: // and so what the base key says
	case f.data && !template.Has(p11.CKA_CLASS):
		template = template.Clone()
		template.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_DATA))
	case !f.data:
		template = secretTemplate(template)
	}
	if template == nil { // which would be a key that is left out
		template = p11.Attributes{}
	}
	templates, own := []p11.Attributes{template}, true
	if maker, ok := m.Param.(p11.KeyMaker); ok {
		templates, own = maker.Makes(template)
	}
	handles, err := s.makeAllFrom(ctx, f, m, base, templates, func(ctx context.Context, t tokens.Token, keys []*tokens.Object, attrs []p11.Attributes) ([]p11.Attributes, error) {
		if j, ok := t.(tokens.KeyJoiner); ok {
			made, out, err := j.JoinKeys(ctx, m, keys, attrs)
			if g, ok := m.Param.(p11.RoomGiver); ok && err == nil {
				err = fits(len(out), int(min(g.OutRoom(), math.MaxInt32)))
			}
			d.Out = out
			return made, err
		}
		one, ok := t.(tokens.KeyDeriver)
		if !ok || len(keys) > 1 || !own || len(attrs) > 1 {
			return nil, errLacking
		}
		made, err := one.DeriveKey(ctx, m, keys[0], attrs[0])
		return []p11.Attributes{made}, err
	})
	if err != nil {
		return Derived{}, err
	}
	if own {
		d.Key, handles = handles[0], handles[1:]
	}
	d.More = handles
	return d, nil
}

// from says how a key comes out of another.
type from struct {
	flag     p11.Flags         // the use of the other key
	origin   origin            //
	imposing p11.AttributeType // of the other key: a template that the new one has to fit
	data     bool              // it makes data objects
	public   bool              // it makes the public half of the other key
}

// makeFrom makes one key out of another.
func (s *Session) makeFrom(ctx context.Context, f from, m p11.Mechanism, key p11.ObjectHandle, template p11.Attributes,
	compute func(context.Context, tokens.Token, *tokens.Object, p11.Attributes) (p11.Attributes, error)) (p11.ObjectHandle, error) {
	handles, err := s.makeAllFrom(ctx, f, m, key, []p11.Attributes{template}, func(ctx context.Context, t tokens.Token, keys []*tokens.Object, attrs []p11.Attributes) ([]p11.Attributes, error) {
		made, err := compute(ctx, t, keys[0], attrs[0])
		return []p11.Attributes{made}, err
	})
	if err != nil {
		return 0, err
	}
	return handles[0], nil
}

// makeAllFrom makes keys out of another, and of those that the parameter names: compute
// gets them all, nil for those that it leaves out, and returns the complete attributes.
// The handle for a template that is nil is 0.
func (s *Session) makeAllFrom(ctx context.Context, f from, m p11.Mechanism, key p11.ObjectHandle, templates []p11.Attributes,
	compute func(context.Context, tokens.Token, []*tokens.Object, []p11.Attributes) ([]p11.Attributes, error)) ([]p11.ObjectHandle, error) {
	o, err := s.begin(ctx, useOf(f.flag), m, key)
	if err != nil {
		return nil, err
	}
	others, err := s.openOthers(ctx, o.use, m)
	if err != nil {
		o.release()
		return nil, err
	}
	defer releaseAll(others)
	base := o.key.attrs
	facts, _ := p11.MechanismFacts(m.Type)
	if facts.Keeps {
		base = together(base, others)
	}
	made := make([]*pending, len(templates))
	for i, t := range templates {
		switch teller, ok := m.Param.(p11.Teller); {
		case err != nil || t == nil:
		case facts.Keeps:
			t, err = keep(t, base)
		case ok && teller.Tells():
			t, err = keep(t, together(others[0].attrs, others[1:]))
		}
		if err == nil && t != nil {
			made[i], err = s.prepareFrom(t, o.key.attrs, f)
		}
	}
	if f.public {
		o.locked = false // nothing is done with the secret
	}
	if err == nil && o.locked {
		// There is no moment at which the PIN could be given.
		err = p11.Advise(p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a key that wants the PIN each time cannot %s", o.use.verb), "use another key")
	}
	there := slices.DeleteFunc(slices.Clone(made), func(p *pending) bool { return p == nil })
	if err != nil {
		s.disown(there...)
		o.release()
		return nil, err
	}
	_, err = o.oneCall(ctx, func(ctx context.Context, key *tokens.Object) ([]byte, error) {
		keys := append([]*tokens.Object{key}, objectsOf(others)...)
		attrs := make([]p11.Attributes, len(made))
		for i, p := range made {
			if p != nil {
				attrs[i] = p.attrs
			}
		}
		attrs, err := compute(s.long(ctx), o.token(), keys, attrs)
		if err == nil {
			err = s.seesAll(others)
		}
		for i, p := range made {
			if p == nil {
				continue
			}
			p.attrs = nil // the token has taken them
			if i < len(attrs) {
				p.attrs = attrs[i]
			}
			if err == nil {
				err = finish(&p.attrs, f.origin, 0, base)
			}
		}
		return nil, err
	})
	if err != nil {
		s.disown(there...)
		return nil, err
	}
	stored, err := s.makeAll(ctx, there...)
	if err != nil {
		return nil, err
	}
	handles := make([]p11.ObjectHandle, len(made))
	for i, p := range made {
		if p != nil {
			handles[i], stored = stored[0], stored[1:]
		}
	}
	return handles, nil
}

// seesAll is sees of all entries that there are.
func (s *Session) seesAll(list []*entry) error {
	for _, e := range list {
		if e == nil {
			continue
		}
		if err := s.sees(e); err != nil {
			return err
		}
	}
	return nil
}

// objectsOf are the objects of entries, nil for nil.
func objectsOf(list []*entry) []*tokens.Object {
	objects := make([]*tokens.Object, len(list))
	for i, e := range list {
		if e != nil {
			objects[i] = e.object
		}
	}
	return objects
}

// openOthers holds the keys that the parameter names, which must allow the use too, and are
// secret keys, or private ones to agree with; nil for those that it leaves out.
func (s *Session) openOthers(ctx context.Context, u *use, m p11.Mechanism) ([]*entry, error) {
	var list []*entry
	for _, h := range m.Keys() {
		if h == 0 {
			list = append(list, nil)
			continue
		}
		e, err := s.openKey(ctx, h, p11.CKR_KEY_HANDLE_INVALID)
		if err != nil {
			releaseAll(list)
			return nil, err
		}
		list = append(list, e)
		wanted := p11.ObjectClass(p11.CKO_SECRET_KEY)
		if m.Type == p11.CKM_IBM_ML_KEM_WITH_ECDH {
			wanted = p11.CKO_PRIVATE_KEY
		}
		// openCryptoki has this for keys that go into others.
		asData := m.Type == p11.CKM_IBM_ML_KEM && e.attrs.Bool(p11.CKA_IBM_USE_AS_DATA)
		switch class, _ := e.attrs.Class(); {
		case e.granted != nil:
			err = e.granted.otherwise("be made part of another")
		case class != wanted:
			err = p11.Errorf(u.unfit, "the other key is no %s", wanted.Short())
		case !e.attrs.Bool(u.usage) && !asData:
			err = p11.Errorf(p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the other key may not %s: its %s is not true", u.verb, u.usage.Short())
		case !allows(e.attrs, m.Type):
			err = p11.Errorf(p11.CKR_MECHANISM_INVALID, "the other key's allowed-mechanisms do not name %s", m.Type.Short())
		case e.attrs.Bool(p11.CKA_ALWAYS_AUTHENTICATE):
			err = p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the other key wants the PIN each time")
		}
		if err != nil {
			releaseAll(list)
			return nil, err
		}
	}
	return list, nil
}

func releaseAll(list []*entry) {
	for _, e := range list {
		if e != nil {
			e.release()
		}
	}
}

// together has what the key and the others say of their secrecy: all of them are as
// safe as the least safe has always been, and what is made of them must be as safe as
// the safest is.
func together(key p11.Attributes, others []*entry) p11.Attributes {
	all := []p11.Attributes{key}
	for _, e := range others {
		if e != nil {
			all = append(all, e.attrs)
		}
	}
	is := func(t p11.AttributeType, v bool) func(p11.Attributes) bool {
		return func(a p11.Attributes) bool { return a.Bool(t) == v }
	}
	var t p11.Attributes
	t.SetBool(p11.CKA_SENSITIVE, slices.ContainsFunc(all, is(p11.CKA_SENSITIVE, true)))
	t.SetBool(p11.CKA_EXTRACTABLE, !slices.ContainsFunc(all, is(p11.CKA_EXTRACTABLE, false)))
	t.SetBool(p11.CKA_ALWAYS_SENSITIVE, !slices.ContainsFunc(all, is(p11.CKA_ALWAYS_SENSITIVE, false)))
	t.SetBool(p11.CKA_NEVER_EXTRACTABLE, !slices.ContainsFunc(all, is(p11.CKA_NEVER_EXTRACTABLE, false)))
	return t
}

// keep makes a template as safe as base, of whose value the new key may tell all
// (PKCS#11 v3.1 §6.43.2 to §6.43.6).
func keep(template, base p11.Attributes) (p11.Attributes, error) {
	for _, a := range []struct {
		t    p11.AttributeType
		safe bool
	}{{p11.CKA_SENSITIVE, true}, {p11.CKA_EXTRACTABLE, false}} {
		if base.Bool(a.t) != a.safe {
			continue
		}
		if template.Has(a.t) && template.Bool(a.t) != a.safe {
			return nil, p11.Advise(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s: must be %t, as that of a key that it is made of", a.t.Short(), a.safe), "leave it out")
		}
		template = template.Clone()
		template.SetBool(a.t, a.safe)
	}
	return template, nil
}

// prepareFrom completes the template of a key that comes out of another, which
// may impose attributes on it.
func (s *Session) prepareFrom(template, key p11.Attributes, f from) (*pending, error) {
	if f.public {
		var err error
		if template, err = publicHalf(template, key); err != nil {
			return nil, err
		}
	}
	matches := f.flag == p11.CKF_ENCAPSULATE // and imposes nothing
	if !matches {
		var err error
		if template, err = impose(template, key, f.imposing); err != nil {
			return nil, err
		}
	}
	// Data objects have no such attribute, but the mechanism must know it.
	length, ok := template.Get(p11.CKA_VALUE_LEN)
	ok = ok && f.data
	if ok {
		template = template.Clone()
		template.Delete(p11.CKA_VALUE_LEN)
	}
	attrs, err := s.complete(template, f.origin)
	if err != nil {
		return nil, err
	}
	if matches && !matchesTemplate(key, f.imposing, attrs) {
		attrs.Wipe()
		return nil, p11.Advise(p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the new key is not what the public key's encapsulate-template asks for"), "change its template, or use another public key")
	}
	if class, _ := attrs.Class(); !isSecretClass(class) && (class != p11.CKO_DATA || !f.data) && !f.public {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "class: %s a %s is not possible", f.origin, class.Short())
	}
	if ok {
		attrs.Set(p11.CKA_VALUE_LEN, bytes.Clone(length))
	}
	l, err := s.mayStore(attrs)
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return s.pending(attrs, l), nil
}
