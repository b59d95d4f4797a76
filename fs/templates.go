package fs

import "p11fs/p11"

// setDefaults fills in what the caller does not say: keys and certificates are token
// objects. All else is the engine's choice (engine.ForPeople).
func setDefaults(t *p11.Attributes) {
	if !t.Has(p11.CKA_TOKEN) {
		t.SetBool(p11.CKA_TOKEN, true)
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
	case p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_PARAMETER_SET, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_ENCAPSULATE, p11.CKA_ENCAPSULATE_TEMPLATE:
		return class == p11.CKO_PUBLIC_KEY
	case p11.CKA_DECAPSULATE, p11.CKA_DECAPSULATE_TEMPLATE, p11.CKA_VALUE_BITS:
		return class == p11.CKO_PRIVATE_KEY
	case p11.CKA_ALLOWED_MECHANISMS:
		return class != p11.CKO_CERTIFICATE
	case p11.CKA_TRUSTED:
		return class != p11.CKO_PRIVATE_KEY
	}
	return true
}
