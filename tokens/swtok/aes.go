package swtok

import (
	"sync"

	"p11fs/p11"
)

const aesBlock = 16

// An aesKey is an AES key.
type aesKey struct {
	AES
	value []byte                 // the object's own memory
	gcm   func() (*ghash, error) // made once
}

func (c *Crypto) parseAES(a p11.Attributes) (*aesKey, error) {
	k, err := parseSecret(a)
	if err != nil {
		return nil, err
	}
	if !p11.FitsKey(p11.CKK_AES, uint64(len(k.value))) {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an AES key of %d bytes", len(k.value))
	}
	aes, err := c.provider.NewAES(k.value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &aesKey{aes, k.value, sync.OnceValues(func() (*ghash, error) { return newGHASH(aes.Block()) })}, nil
}

// Close forgets the key. The key schedules inside the provider's ciphers are the
// collector's.
func (k *aesKey) Close() { k.AES, k.value, k.gcm = nil, nil, nil }

// aesModes are the uses of a mode of AES.
func aesModes(begin func(u call, k *aesKey, decrypt bool) (part, error)) uses {
	return uses{
		p11.CKF_ENCRYPT: with(func(u call, k *aesKey) (part, error) { return begin(u, k, false) }),
		p11.CKF_DECRYPT: with(func(u call, k *aesKey) (part, error) { return begin(u, k, true) }),
	}
}
