package foreign

import (
	"slices"

	"p11fs/p11"
)

// Types are the attributes that an object of the class takes with it from one token to
// another: what it is, its names, and what it may be used for. None are those of another
// class, such as that of a maker of tokens. What only says where a key was made, or
// follows from others, each token says itself.
func Types(class p11.ObjectClass) []p11.AttributeType {
	common := []p11.AttributeType{p11.CKA_CLASS, p11.CKA_PRIVATE, p11.CKA_LABEL, p11.CKA_MODIFIABLE, p11.CKA_COPYABLE, p11.CKA_DESTROYABLE}
	key := append(common, p11.CKA_KEY_TYPE, p11.CKA_ID, p11.CKA_START_DATE, p11.CKA_END_DATE, p11.CKA_DERIVE, p11.CKA_ALLOWED_MECHANISMS)
	switch class {
	case p11.CKO_DATA:
		return append(common, p11.CKA_APPLICATION, p11.CKA_OBJECT_ID, p11.CKA_VALUE)
	case p11.CKO_CERTIFICATE:
		return append(common, p11.CKA_CERTIFICATE_TYPE, p11.CKA_CERTIFICATE_CATEGORY, p11.CKA_ID, p11.CKA_SUBJECT, p11.CKA_ISSUER, p11.CKA_SERIAL_NUMBER,
			p11.CKA_START_DATE, p11.CKA_END_DATE, p11.CKA_URL, p11.CKA_VALUE)
	case p11.CKO_DOMAIN_PARAMETERS:
		return append(common, p11.CKA_KEY_TYPE, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE)
	case p11.CKO_PUBLIC_KEY:
		return slices.Concat(key, []p11.AttributeType{p11.CKA_SUBJECT, p11.CKA_ENCRYPT, p11.CKA_VERIFY, p11.CKA_VERIFY_RECOVER, p11.CKA_WRAP, p11.CKA_ENCAPSULATE,
			p11.CKA_WRAP_TEMPLATE, p11.CKA_PARAMETER_SET, p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE,
			p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT, p11.CKA_VALUE})
	case p11.CKO_PRIVATE_KEY:
		return slices.Concat(key, []p11.AttributeType{p11.CKA_SUBJECT, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_SIGN_RECOVER, p11.CKA_UNWRAP, p11.CKA_DECAPSULATE,
			p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_UNWRAP_TEMPLATE, p11.CKA_DERIVE_TEMPLATE, p11.CKA_PARAMETER_SET,
			p11.CKA_PRIME, p11.CKA_SUBPRIME, p11.CKA_BASE, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS}, Values(class))
	case p11.CKO_SECRET_KEY:
		return slices.Concat(key, []p11.AttributeType{p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKA_WRAP, p11.CKA_UNWRAP,
			p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_WRAP_TEMPLATE, p11.CKA_UNWRAP_TEMPLATE, p11.CKA_DERIVE_TEMPLATE, p11.CKA_CHECK_VALUE}, Values(class))
	}
	return nil
}

// Values are those of them that hold the secret.
func Values(class p11.ObjectClass) []p11.AttributeType {
	switch class {
	case p11.CKO_PRIVATE_KEY:
		return []p11.AttributeType{p11.CKA_VALUE, p11.CKA_SEED, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT}
	case p11.CKO_SECRET_KEY:
		return []p11.AttributeType{p11.CKA_VALUE}
	}
	return nil
}

// Portable returns the attributes that go to another token, as a template for it. They
// share the memory of a. What is empty says nothing.
func Portable(a p11.Attributes) p11.Attributes {
	class, _ := a.Class()
	var to p11.Attributes
	for _, t := range Types(class) {
		v, ok := a.Get(t)
		switch t {
		case p11.CKA_MODIFIABLE, p11.CKA_COPYABLE, p11.CKA_DESTROYABLE: // true unless said otherwise
			ok = ok && !a.Bool(t)
		case p11.CKA_CHECK_VALUE: // of other keys, tokens differ
			kt, _ := a.KeyType()
			ok = ok && kt == p11.CKK_AES
		}
		if class == p11.CKO_DATA && t == p11.CKA_VALUE || ok && len(v) > 0 {
			to = append(to, p11.Attribute{Type: t, Value: v})
		}
	}
	return to
}
