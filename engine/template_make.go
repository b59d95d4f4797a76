package engine

import (
	"bytes"

	"p11fs/p11"
)

// complete checks the template of a new object and fills in the defaults. so
// says that the security officer makes it, and d which defaults. What it returns shares nothing with
// template.
//
// The codes are those of PKCS#11 v3.1 §4.1.1: CKR_ATTRIBUTE_TYPE_INVALID for an
// attribute that the kind of object has not, CKR_ATTRIBUTE_VALUE_INVALID for
// a malformed value, CKR_ATTRIBUTE_READ_ONLY for what only the token sets,
// CKR_TEMPLATE_INCONSISTENT for what cannot be given together or this way, and
// CKR_TEMPLATE_INCOMPLETE.
func (r *rules) complete(template p11.Attributes, o origin, so bool, d Defaults) (p11.Attributes, error) {
	if err := template.Validate(); err != nil {
		return nil, err
	}
	set, err := r.of(template)
	if err != nil {
		return nil, err
	}
	if err := set.admits(template, o, so); err != nil {
		return nil, err
	}
	attrs := template.Clone()
	for _, one := range set.rules {
		if attrs.Has(one.attr) {
			continue
		}
		switch {
		case one.traits&o.needs() != 0 && !mayLack(one.attr, attrs, o):
			attrs.Wipe()
			return nil, incomplete(one.attr)
		case one.attr == p11.CKA_EXTRACTABLE:
			attrs.SetBool(one.attr, extractable(o, d))
		case r.byDefault(set, one.attr, template, o, d):
			attrs.SetBool(one.attr, true)
		case one.def != nil:
			attrs.Set(one.attr, bytes.Clone(one.def))
		}
	}
	err = consistent(attrs)
	if err == nil {
		err = r.separated(attrs, o)
	}
	if err != nil {
		attrs.Wipe()
		return nil, err
	}
	return attrs, nil
}

// admits checks each attribute of a template by itself.
func (r *ruleset) admits(template p11.Attributes, o origin, so bool) error {
	for _, a := range template {
		one, ok := r.get(a.Type)
		switch {
		case !ok:
			class, _ := template.Class()
			return p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%s: objects of class %s have no such attribute", a.Type.Short(), class.Short())
		case one.traits&computed == computed:
			return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: only the token sets it", a.Type.Short())
		case one.traits&o.forbids() != 0:
			return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s: may not be given when %s", a.Type.Short(), o)
		case one.traits&trueBySO != 0 && !so && template.Bool(a.Type):
			return onlySO(a.Type)
		case one.traits&needCreate != 0 && len(a.Value) == 0 && !mayLack(a.Type, template, o) && p11.KindOf(a.Type) != p11.KindText:
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: is empty", a.Type.Short())
		}
	}
	return nil
}

func onlySO(t p11.AttributeType) error {
	return p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: only the SO sets it to true", t.Short()), "log in as the SO for it, or leave it out")
}

// mayLack says whether a needed attribute may be missing after all.
func mayLack(t p11.AttributeType, attrs p11.Attributes, o origin) bool {
	class, _ := attrs.Class()
	switch {
	case class == p11.CKO_CERTIFICATE && t == p11.CKA_VALUE:
		// PKCS#11 v3.1 §4.6.3: a certificate may be named by its URL.
		url, _ := attrs.Get(p11.CKA_URL)
		return len(url) > 0
	case class == p11.CKO_SECRET_KEY && t == p11.CKA_VALUE_LEN:
		// Of a fixed length, or for the mechanism to know.
		kt, _ := attrs.KeyType()
		return o != generated || len(p11.KeyLengths(kt)) == 1
	}
	return false
}

// consistent checks what the attributes say together.
func consistent(attrs p11.Attributes) error {
	start, _ := attrs.Get(p11.CKA_START_DATE)
	end, _ := attrs.Get(p11.CKA_END_DATE)
	if len(start) == 8 && len(end) == 8 && bytes.Compare(start, end) > 0 {
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "end-date: %s lies before start-date %s", end, start)
	}
	if attrs.Bool(p11.CKA_IBM_ATTRBOUND) {
		// To take it and wrap the key without its attributes would break the promise.
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "ibm-attrbound: no mechanism here binds a key's attributes to it")
	}
	class, _ := attrs.Class()
	if class != p11.CKO_SECRET_KEY {
		return nil
	}
	kt, _ := attrs.KeyType()
	value, hasValue := attrs.Get(p11.CKA_VALUE)
	length, hasLength := attrs.Ulong(p11.CKA_VALUE_LEN)
	if hasValue && hasLength && uint64(len(value)) != length {
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "value-len: is %d, but the value has %d bytes", length, len(value))
	}
	if hasValue {
		if err := p11.CheckKeyLength(p11.CKA_VALUE, kt, uint64(len(value))); err != nil {
			return err
		}
	}
	if hasLength {
		return p11.CheckKeyLength(p11.CKA_VALUE_LEN, kt, length)
	}
	return nil
}

// impose adds a wrapping key's unwrap template, or a base key's derive template,
// to the template of a new key (PKCS#11 v3.1 §4.9, §4.10). Disagreement gives
// CKR_TEMPLATE_INCONSISTENT.
func impose(template p11.Attributes, key p11.Attributes, from p11.AttributeType) (p11.Attributes, error) {
	encoded, ok := key.Get(from)
	if !ok || len(encoded) == 0 {
		return template, nil
	}
	wanted, err := p11.DecodeTemplate(encoded)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s of the key: %v", from.Short(), err)
	}
	for _, w := range wanted {
		if v, ok := template.Get(w.Type); ok && !bytes.Equal(v, w.Value) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s: the key's %s says otherwise", w.Type.Short(), from.Short())
		}
	}
	return template.Merge(wanted), nil
}
