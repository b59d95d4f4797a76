package swtok

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// UnwrapKey makes a key of what WrapKey gave (PKCS#11 v3.1 §5.18.4,
// C_UnwrapKey).
func (c *Crypto) UnwrapKey(_ context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	mech, err := c.mechanism(m, p11.CKF_UNWRAP)
	if err != nil {
		return nil, err
	}
	class, kt, err := templateKey(template)
	if err != nil {
		return nil, err
	}
	if class == p11.CKO_PRIVATE_KEY && !mech.wrapsPrivate() {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%s unwraps secret keys only", m.Type.Short())
	}
	plain, err := c.unwrapBytes(mech, m, unwrapping, wrapped)
	if err != nil {
		return nil, translate(err, unwrapAnswers())
	}
	defer wipe(plain)
	if class == p11.CKO_PRIVATE_KEY {
		a, err := decodePrivateKey(plain, kt)
		if err != nil {
			return nil, err
		}
		defer a.Wipe() // Merge copies
		return template.Merge(a), nil
	}
	value, err := unwrappedValue(mech, template, kt, plain)
	if err != nil {
		return nil, err
	}
	return withValue(template, kt, clone(value)), nil
}

// templateKey reads which key a template describes.
func templateKey(a p11.Attributes) (p11.ObjectClass, p11.KeyType, error) {
	class, okClass := a.Class()
	kt, okType := a.KeyType()
	switch {
	case !okClass || !okType:
		return 0, 0, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs class and key-type")
	case class != p11.CKO_SECRET_KEY && class != p11.CKO_PRIVATE_KEY:
		return 0, 0, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the template must describe a secret or private key")
	}
	return class, kt, nil
}

// unwrappedValue cuts an unwrapped secret to the key's length. The standard has
// tokens cut whatever came out to CKA_VALUE_LEN; cutting real key bytes
// would let a caller shorten a key that it may use until it can be
// guessed, so only padding that wrapping put there comes off.
func unwrappedValue(mech *mechanism, template p11.Attributes, kt p11.KeyType, plain []byte) ([]byte, error) {
	n, err := secretLength(template, kt)
	if err != nil {
		return nil, err
	}
	if n < 0 {
		if mech.kind == kindRSAX509 {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len: rsa-x-509 does not keep the length of the key")
		}
		n = len(plain)
	}
	spare := len(plain) - n
	value, pad := plain, []byte(nil)
	switch {
	case spare < 0:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has %d bytes, fewer than value-len", len(plain))
	case mech.kind == kindRSAX509:
		pad, value = plain[:spare], plain[spare:]
	case spare < aesBlock && (mech.kind == kindECB || mech.kind == kindCBC):
		value, pad = plain[:n], plain[n:]
	case spare > 0:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the wrapped key has %d bytes, more than value-len", len(plain))
	}
	var any byte
	for _, b := range pad {
		any |= b
	}
	if any != 0 {
		return nil, p11.CKR_WRAPPED_KEY_INVALID
	}
	if len(value) == 0 || kt == p11.CKK_AES && !aesLength(len(value)) {
		return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "a wrapped key of %d bytes does not suit the key type", len(value))
	}
	return value, nil
}

// maxSecret is the longest secret key, in bytes, that a template may ask for.
const maxSecret = 64 << 10

// secretLength is the length of the key that a template describes: by its type
// or by CKA_VALUE_LEN; -1 if it says neither.
func secretLength(a p11.Attributes, kt p11.KeyType) (int, error) {
	switch kt {
	case p11.CKK_DES:
		return 8, nil
	case p11.CKK_DES2:
		return 16, nil
	case p11.CKK_DES3:
		return 24, nil
	}
	n, ok := a.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return -1, nil
	case n == 0 || n > maxSecret || kt == p11.CKK_AES && !aesLength(int(n)):
		return 0, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value-len %d does not suit the key type", n)
	}
	return int(n), nil
}

// withValue adds the value of a secret key to its template.
func withValue(a p11.Attributes, kt p11.KeyType, value []byte) p11.Attributes {
	out := a.Clone()
	out.Set(p11.CKA_VALUE, value)
	switch kt {
	case p11.CKK_DES, p11.CKK_DES2, p11.CKK_DES3:
		return out
	}
	out.SetUlong(p11.CKA_VALUE_LEN, uint64(len(value)))
	return out
}
