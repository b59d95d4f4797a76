package fs

import (
	"context"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// fileObjects are the objects of a file that is imported, beside those that the token
// has.
type fileObjects struct {
	s        *session
	template p11.Attributes            // what the caller asks for
	public   map[string]p11.Attributes // the public keys of the file, by CKA_ID
	given    map[string]bool           // the labels that nobody chose: common names
	ids      map[string][]byte         // the CKA_ID in the token of a key that has this one in the file
	exact    bool                      // the file says all of its objects: they are templates
}

func newFileObjects(s *session, objs []p11.Attributes, template p11.Attributes, exact bool) *fileObjects {
	f := &fileObjects{s: s, template: template, exact: exact, public: make(map[string]p11.Attributes), given: make(map[string]bool), ids: make(map[string][]byte)}
	for _, o := range objs {
		switch class, _ := o.Class(); class {
		case p11.CKO_PUBLIC_KEY:
			f.public[idOf(o)] = o
		case p11.CKO_CERTIFICATE:
			f.given[pkix.CommonName(o)] = true
		}
	}
	return f
}

func idOf(o p11.Attributes) string {
	id, _ := o.Get(p11.CKA_ID)
	return string(id)
}

// look returns the whole template of an object, and where the token has it already. A
// certificate takes the CKA_ID of its key, unless the caller gives one.
func (f *fileObjects) look(ctx context.Context, o p11.Attributes) (full p11.Attributes, is placed) {
	class, _ := o.Class()
	full = o.Merge(forClass(f.template, class))
	setDefaults(&full)
	if f.exact {
		there, ok := f.findExact(ctx, full)
		return full, placed{there.Handle, ok}
	}
	if class == p11.CKO_CERTIFICATE && !f.template.Has(p11.CKA_ID) {
		if id := f.keyOf(ctx, o); len(id) > 0 {
			full.Set(p11.CKA_ID, id)
		}
	}
	there, ok := f.find(ctx, o, full)
	if isKey(class) {
		f.ids[idOf(o)] = []byte(idOf(full))
		if ok {
			f.ids[idOf(o)] = []byte(idOf(there.Attrs))
		}
	}
	return full, placed{there.Handle, ok}
}

// find looks for an object of the token that is the same: of the same value, and with
// all that somebody asked for. A secret key is never known again, since its value
// compares with nothing that can be read.
func (f *fileObjects) find(ctx context.Context, o, full p11.Attributes) (engine.ObjectInfo, bool) {
	class, _ := o.Class()
	want := ofClass(class)
	switch class {
	case p11.CKO_CERTIFICATE:
		want = with(want, o, p11.CKA_VALUE)
	case p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY:
		var ok bool
		if want, ok = publicValue(want, f.public[idOf(o)]); !ok {
			return engine.ObjectInfo{}, false
		}
	default:
		return engine.ObjectInfo{}, false
	}
	want = with(want, full, p11.CKA_TOKEN)
	if class == p11.CKO_PRIVATE_KEY {
		want.SetBool(p11.CKA_PRIVATE, true) // not what somebody without a login has put there
	}
	if !f.given[o.Label()] {
		want = with(want, o, p11.CKA_LABEL)
	}
	return f.first(ctx, want.Merge(forClass(f.template, class)))
}

// findExact looks for an object of the same class, value, label and CKA_ID. For the value
// of a secret key its length and check value stand, which with the same name are enough.
func (f *fileObjects) findExact(ctx context.Context, full p11.Attributes) (engine.ObjectInfo, bool) {
	whole := full.Clone()
	defer whole.Wipe()
	if pkix.Complete(&whole) != nil {
		return engine.ObjectInfo{}, false // which the token refuses
	}
	class, _ := full.Class()
	value := map[p11.ObjectClass][]p11.AttributeType{
		p11.CKO_DATA: {p11.CKA_VALUE}, p11.CKO_CERTIFICATE: {p11.CKA_VALUE}, p11.CKO_SECRET_KEY: {p11.CKA_CHECK_VALUE},
		p11.CKO_PUBLIC_KEY: {p11.CKA_PUBLIC_KEY_INFO}, p11.CKO_PRIVATE_KEY: {p11.CKA_PUBLIC_KEY_INFO},
	}[class]
	if len(value) == 0 || !whole.Has(value[0]) {
		return engine.ObjectInfo{}, false
	}
	return f.first(ctx, with(ofClass(class), whole, append(value, p11.CKA_KEY_TYPE, p11.CKA_VALUE_LEN, p11.CKA_LABEL, p11.CKA_ID, p11.CKA_APPLICATION, p11.CKA_TOKEN, p11.CKA_PRIVATE)...))
}

// keyOf is the CKA_ID of the key of a certificate: of one in the file, or of one in the
// token, where a private one goes before what everybody can put there.
func (f *fileObjects) keyOf(ctx context.Context, cert p11.Attributes) []byte {
	if id, ok := f.ids[idOf(cert)]; ok {
		return id
	}
	public, ok := pkix.PublicOf(cert)
	if !ok {
		return nil
	}
	for _, want := range []p11.Attributes{
		ofClass(p11.CKO_PRIVATE_KEY).With(p11.CKA_PRIVATE, []byte{1}), ofClass(p11.CKO_PRIVATE_KEY), ofClass(p11.CKO_PUBLIC_KEY),
	} {
		want, ok := publicValue(want, public)
		if !ok {
			return nil
		}
		if key, ok := f.first(ctx, want); ok {
			return []byte(idOf(key.Attrs))
		}
	}
	return nil
}

// publicValue adds to want what the objects of a key pair have in common. Without any
// it returns false: the rest alone would be that of any other key.
func publicValue(want, public p11.Attributes) (p11.Attributes, bool) {
	want = with(want, public, p11.CKA_KEY_TYPE, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT)
	if want.Has(p11.CKA_MODULUS) || want.Has(p11.CKA_EC_POINT) {
		return want, true // other programs' keys have these, and may have no CKA_PUBLIC_KEY_INFO
	}
	whole := public.Clone()
	if pkix.Complete(&whole) != nil {
		return nil, false
	}
	return with(want, whole, p11.CKA_PUBLIC_KEY_INFO), whole.Has(p11.CKA_PUBLIC_KEY_INFO)
}

// with adds attributes that from has.
func with(to, from p11.Attributes, types ...p11.AttributeType) p11.Attributes {
	for _, t := range types {
		if v, ok := from.Get(t); ok {
			to.Set(t, v)
		}
	}
	return to
}

// first is the oldest object that matches. Where there is none, and where the search
// fails, the object is made, which fails likewise.
func (f *fileObjects) first(ctx context.Context, want p11.Attributes) (found engine.ObjectInfo, ok bool) {
	_ = f.s.app.eng.EachObject(ctx, f.s.slot, want, func(i engine.ObjectInfo) bool {
		found, ok = i, true
		return false
	})
	return found, ok
}
