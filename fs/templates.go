package fs

import "p11fs/p11"

// setDefaults fills in what the caller does not say of an object of a known class:
// keys and certificates are token objects; private and secret keys are private,
// sensitive, and not to be taken out. What a key may be used for is the engine's
// choice.
func setDefaults(t *p11.Attributes) {
	class, _ := t.Class()
	guarded := class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY
	set := func(a p11.AttributeType, v bool) {
		if !t.Has(a) {
			t.SetBool(a, v)
		}
	}
	set(p11.CKA_TOKEN, true)
	set(p11.CKA_PRIVATE, guarded)
	if guarded {
		set(p11.CKA_SENSITIVE, true)
		set(p11.CKA_EXTRACTABLE, false)
	}
}

// forClass returns the attributes that an object of that class gets, where one
// template is for a key pair, or for all that a file holds.
func forClass(template p11.Attributes, class p11.ObjectClass) p11.Attributes {
	var own p11.Attributes
	for _, a := range template {
		if belongsTo(a.Type, class) {
			own = append(own, a)
		}
	}
	return own
}

func belongsTo(t p11.AttributeType, class p11.ObjectClass) bool {
	switch t {
	case p11.CKA_CLASS:
		return false
	case p11.CKA_PRIVATE, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_UNWRAP_TEMPLATE,
		p11.CKA_SIGN, p11.CKA_DECRYPT, p11.CKA_UNWRAP, p11.CKA_DERIVE, p11.CKA_SIGN_RECOVER:
		return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY
	case p11.CKA_VERIFY, p11.CKA_ENCRYPT, p11.CKA_WRAP, p11.CKA_VERIFY_RECOVER, p11.CKA_WRAP_TEMPLATE:
		return class == p11.CKO_PUBLIC_KEY || class == p11.CKO_SECRET_KEY
	case p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS:
		return class == p11.CKO_PUBLIC_KEY
	case p11.CKA_ALLOWED_MECHANISMS:
		return class != p11.CKO_CERTIFICATE
	case p11.CKA_TRUSTED:
		return class != p11.CKO_PRIVATE_KEY
	}
	return true
}
