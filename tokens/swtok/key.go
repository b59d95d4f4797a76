package swtok

import (
	"crypto"
	"sync"

	"p11fs/p11"
	"p11fs/tokens"
)

// A parsed key is the memo of its object: made at the first use, shared by the
// operations that hold the object, closed when the object is wiped.

// hold acquires o and returns its parsed key, which must be a T; else it gives
// CKR_KEY_TYPE_INCONSISTENT. The caller releases o when it is done.
func hold[T any](c *Crypto, o *tokens.Object) (T, error) {
	var none T
	if _, err := o.Acquire(); err != nil {
		return none, err
	}
	v, err := o.Memo(c.parseKey)
	if err != nil {
		o.Release()
		return none, err
	}
	k, ok := v.(T)
	if !ok {
		o.Release()
		return none, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs another type of key")
	}
	return k, nil
}

// parseKey makes the key of an object's attributes.
func (c *Crypto) parseKey(a p11.Attributes) (any, error) {
	class, _ := a.Class()
	kt, _ := a.KeyType()
	switch {
	case class == p11.CKO_SECRET_KEY:
		return c.parseSecret(a, kt)
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_RSA:
		return c.parseRSAPublic(a)
	case class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_RSA:
		return c.parseRSAPrivate(a)
	case class == p11.CKO_PUBLIC_KEY && kt == p11.CKK_EC:
		return c.parseECPublic(a)
	case class == p11.CKO_PRIVATE_KEY && kt == p11.CKK_EC:
		return c.parseECPrivate(a)
	case class == p11.CKO_PUBLIC_KEY || class == p11.CKO_PRIVATE_KEY:
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the token does nothing with keys of type %s", kt)
	}
	return nil, p11.Errorf(p11.CKR_KEY_HANDLE_INVALID, "the object is not a key")
}

// keyDamaged is the answer for a stored key whose attributes make no key.
func keyDamaged(format string, args ...any) error {
	return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the key cannot be used: "+format, args...)
}

// secretKey is a secret key.
type secretKey struct {
	// value is the object's own memory, which lives as long as the memo.
	value []byte
	kind  p11.KeyType
	aes   AES // for CKK_AES
	gcm   func() (*ghash, error)
}

func (c *Crypto) parseSecret(a p11.Attributes, kt p11.KeyType) (*secretKey, error) {
	value, ok := a.Get(p11.CKA_VALUE)
	if !ok {
		return nil, keyDamaged("it has no value")
	}
	k := &secretKey{value: value, kind: kt}
	if kt != p11.CKK_AES {
		return k, nil
	}
	if !aesLength(len(value)) {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an AES key of %d bytes", len(value))
	}
	aes, err := c.provider.NewAES(value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	k.aes = aes
	k.gcm = sync.OnceValues(func() (*ghash, error) { return newGHASH(aes.Block()) })
	return k, nil
}

// Close forgets the value. The key schedules inside the provider's ciphers are
// the collector's.
func (k *secretKey) Close() {
	k.value, k.aes, k.gcm = nil, nil, nil
}

func aesLength(n int) bool { return n == 16 || n == 24 || n == 32 }

// macKey says whether the key may make HMACs with h: generic secrets with all,
// and the HMAC key types with their own (PKCS#11 v3.1 §6.21).
func (k *secretKey) macKey(h crypto.Hash) bool {
	switch k.kind {
	case p11.CKK_GENERIC_SECRET:
		return true
	case p11.CKK_MD5_HMAC:
		return h == crypto.MD5
	case p11.CKK_SHA_1_HMAC:
		return h == crypto.SHA1
	case p11.CKK_SHA224_HMAC:
		return h == crypto.SHA224
	case p11.CKK_SHA256_HMAC:
		return h == crypto.SHA256
	case p11.CKK_SHA384_HMAC:
		return h == crypto.SHA384
	case p11.CKK_SHA512_HMAC:
		return h == crypto.SHA512
	case p11.CKK_SHA512_256_HMAC:
		return h == crypto.SHA512_256
	}
	return false
}

// holdAES holds a key that must be an AES key.
func (c *Crypto) holdAES(o *tokens.Object) (*secretKey, error) {
	k, err := hold[*secretKey](c, o)
	if err != nil {
		return nil, err
	}
	if k.aes == nil {
		o.Release()
		return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs an AES key")
	}
	return k, nil
}

// ecPublic and ecPrivate are the halves of an EC key.
type ecPublic struct {
	curve *Curve
	key   ECPublicKey
}

type ecPrivate struct {
	curve *Curve
	key   ECPrivateKey
}

// Close forgets the key; the provider's memory is the collector's.
func (k *ecPrivate) Close() { k.key = nil }

func attributeCurve(a p11.Attributes) (*Curve, error) {
	params, ok := a.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, keyDamaged("it has no EC parameters")
	}
	return curveOf(params)
}

func (c *Crypto) parseECPublic(a p11.Attributes) (*ecPublic, error) {
	curve, err := attributeCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_EC_POINT)
	point, ok := curve.rawPoint(value)
	if !ok {
		return nil, keyDamaged("CKA_EC_POINT is no uncompressed point")
	}
	if _, err := curve.ecdh.NewPublicKey(point); err != nil {
		return nil, keyDamaged("CKA_EC_POINT is not on the curve")
	}
	key, err := c.provider.NewECPublicKey(curve, point)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &ecPublic{curve, key}, nil
}

func (c *Crypto) parseECPrivate(a p11.Attributes) (*ecPrivate, error) {
	curve, err := attributeCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_VALUE)
	for len(value) > curve.Size && value[0] == 0 {
		value = value[1:]
	}
	if len(value) == 0 || len(value) > curve.Size {
		return nil, keyDamaged("its value does not fit the curve")
	}
	scalar := leftPad(value, curve.Size)
	defer wipe(scalar)
	whole, err := curve.ecdh.NewPrivateKey(scalar)
	if err != nil {
		return nil, keyDamaged("its value does not fit the curve")
	}
	key, err := c.provider.NewECPrivateKey(curve, scalar, whole.PublicKey().Bytes())
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &ecPrivate{curve, key}, nil
}
