package swtok

import (
	"p11fs/p11"
	"p11fs/tokens"
)

// hold acquires o and returns its parsed key, the memo of the object: it is made at
// the first use, shared by the operations that hold the object, and closed when the
// object is wiped. The caller releases o when it is done.
func (c *Crypto) hold(o *tokens.Object) (any, error) {
	if _, err := o.Acquire(); err != nil {
		return nil, err
	}
	k, err := o.Memo(c.parseKey)
	if err != nil {
		o.Release()
		return nil, err
	}
	return k, nil
}

// keyDamaged is the answer for a stored key whose attributes make no key.
func keyDamaged(format string, args ...any) error {
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the key cannot be used: "+format, args...)
}

// A secretKey is a secret key whose bytes alone count.
type secretKey struct {
	value []byte // the object's own memory, which lives as long as the memo
}

func parseSecret(a p11.Attributes) (*secretKey, error) {
	value, ok := a.Get(p11.CKA_VALUE)
	if !ok {
		return nil, keyDamaged("it has no value")
	}
	return &secretKey{value}, nil
}

// Close forgets the value.
func (k *secretKey) Close() { k.value = nil }

// secretOf is the value of a secret key of any type.
func secretOf(key any) ([]byte, error) {
	switch k := key.(type) {
	case *secretKey:
		return k.value, nil
	case *cipherKey:
		return k.value, nil
	}
	return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs a secret key")
}
