package engine

import (
	"bytes"

	"p11fs/p11"
)

// change returns the attributes of an existing object after C_SetAttributeValue
// (PKCS#11 v3.1 §5.7.6) or, with copying, of its copy (§5.7.2). It changes
// neither attrs nor template.
func (r *rules) change(attrs, template p11.Attributes, copying, so bool) (p11.Attributes, error) {
	if err := template.Validate(); err != nil {
		return nil, err
	}
	set := r.existing(attrs)
	for _, a := range template {
		if err := set.mayChange(attrs, a, copying, so); err != nil {
			return nil, err
		}
	}
	changed := attrs.Merge(template)
	err := consistent(changed)
	if err == nil {
		err = r.staysSeparated(attrs, changed)
	}
	if err != nil {
		changed.Wipe()
		return nil, err
	}
	return changed, nil
}

func (r *ruleset) mayChange(attrs p11.Attributes, a p11.Attribute, copying, so bool) error {
	one, ok := r.get(a.Type)
	old, has := attrs.Get(a.Type)
	if !ok && !has {
		return p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "%s: the object has no such attribute", a.Type.Short())
	}
	if !has {
		old = one.def
	}
	same := bytes.Equal(old, a.Value)
	allowed := modifiable | trueBySO
	if copying {
		allowed |= onCopy
	}
	switch {
	case one.traits&allowed == 0 && (!copying || !same):
		return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: cannot be changed", a.Type.Short())
	case same:
		return nil
	case one.traits&trueBySO != 0 && !so:
		return onlySO(a.Type)
	case one.traits&staysTrue != 0 && isTrue(old):
		return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: stays true", a.Type.Short())
	case one.traits&staysFalse != 0 && !isTrue(old):
		return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s: stays false", a.Type.Short())
	case a.Type == p11.CKA_PRIVATE && isTrue(old):
		// A public copy would show everyone what the user keeps private.
		return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "private: a private object has private copies only")
	case a.Type == p11.CKA_PUBLIC_KEY_INFO && len(old) > 0:
		return p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "public-key-info: belongs to the key")
	}
	return nil
}

func isTrue(v []byte) bool { return len(v) == 1 && v[0] != p11.CK_FALSE }

// flagSet reads a flag of an object whose default, where others stored none, is
// true.
func flagSet(attrs p11.Attributes, t p11.AttributeType) bool {
	v, ok := attrs.Get(t)
	return !ok || isTrue(v)
}

// mayModify refuses changes of objects that are not CKA_MODIFIABLE.
func mayModify(attrs p11.Attributes) error {
	if !flagSet(attrs, p11.CKA_MODIFIABLE) {
		return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object's modifiable is false")
	}
	return nil
}

// mayCopy refuses copies of objects that are not CKA_COPYABLE.
func mayCopy(attrs p11.Attributes) error {
	if !flagSet(attrs, p11.CKA_COPYABLE) {
		return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object's copyable is false")
	}
	return nil
}

// mayDestroy refuses to destroy objects that are not CKA_DESTROYABLE.
func mayDestroy(attrs p11.Attributes) error {
	if !flagSet(attrs, p11.CKA_DESTROYABLE) {
		return p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object's destroyable is false")
	}
	return nil
}
