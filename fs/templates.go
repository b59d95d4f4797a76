package fs

import "p11fs/p11"

// What keys and certificates are unless the caller says otherwise: token
// objects; private and secret keys private, sensitive, and not to be taken out.
// What a key may be used for is the engine's choice where the caller makes none.

// guardedKey fills in what is not said of a private or secret key.
func guardedKey(t p11.Attributes) p11.Attributes {
	return withDefaults(t,
		p11.Attribute{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		p11.Attribute{Type: p11.CKA_PRIVATE, Value: p11.Bool(true)},
		p11.Attribute{Type: p11.CKA_SENSITIVE, Value: p11.Bool(true)},
		p11.Attribute{Type: p11.CKA_EXTRACTABLE, Value: p11.Bool(false)})
}

// openObject fills in what is not said of a public key or a certificate.
func openObject(t p11.Attributes) p11.Attributes {
	return withDefaults(t,
		p11.Attribute{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		p11.Attribute{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)})
}

func withDefaults(t p11.Attributes, defaults ...p11.Attribute) p11.Attributes {
	t = t.Clone()
	for _, d := range defaults {
		if !t.Has(d.Type) {
			t.Set(d.Type, d.Value)
		}
	}
	return t
}

// half says which of a template's attributes go to an object of that class when
// one template stands for a key pair, or for all that a file holds.
func half(template p11.Attributes, class p11.ObjectClass) p11.Attributes {
	var own p11.Attributes
	for _, a := range template {
		if goesTo(a.Type, class) {
			own = append(own, a)
		}
	}
	return own
}

func goesTo(t p11.AttributeType, class p11.ObjectClass) bool {
	switch t {
	case p11.CKA_CLASS:
		return false
	case p11.CKA_PRIVATE, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_UNWRAP_TEMPLATE:
		return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY
	case p11.CKA_SIGN, p11.CKA_DECRYPT, p11.CKA_UNWRAP, p11.CKA_DERIVE, p11.CKA_SIGN_RECOVER:
		return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY
	case p11.CKA_VERIFY, p11.CKA_ENCRYPT, p11.CKA_WRAP, p11.CKA_VERIFY_RECOVER, p11.CKA_WRAP_TEMPLATE:
		return class == p11.CKO_PUBLIC_KEY || class == p11.CKO_SECRET_KEY
	case p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS:
		return class == p11.CKO_PUBLIC_KEY
	case p11.CKA_ALLOWED_MECHANISMS, p11.CKA_START_DATE, p11.CKA_END_DATE:
		return class != p11.CKO_CERTIFICATE || t != p11.CKA_ALLOWED_MECHANISMS
	case p11.CKA_TRUSTED:
		return class != p11.CKO_PRIVATE_KEY
	}
	return true
}
