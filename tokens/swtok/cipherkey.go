package swtok

import (
	"p11fs/p11"
)

// Blocks, in bytes.
const (
	aesBlock = 16
	desBlock = 8
)

// cipherKeys are the types of keys that a BlockCipher is made of, the stream cipher among
// them.
func cipherKeys() []p11.KeyType {
	return []p11.KeyType{p11.CKK_AES, p11.CKK_AES_XTS, p11.CKK_DES, p11.CKK_DES2, p11.CKK_DES3, p11.CKK_CHACHA20}
}

// A cipherKey is a key of a block cipher.
type cipherKey struct {
	BlockCipher
	kt    p11.KeyType
	value []byte // the object's own memory
}

func (c *Crypto) parseCipher(kt p11.KeyType, a p11.Attributes) (any, error) {
	if h, ok := c.holder.(AESHolder); ok && kt == p11.CKK_AES && !a.Has(p11.CKA_VALUE) {
		k, err := h.AES(a)
		return &heldAES{k}, err
	}
	k, err := parseSecret(a)
	if err != nil {
		return nil, err
	}
	if !p11.FitsKey(kt, uint64(len(k.value))) {
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a %s key of %d bytes", kt.Short(), len(k.value))
	}
	b, err := c.provider.NewBlockCipher(kt, k.value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &cipherKey{b, kt, k.value}, nil
}

// Close forgets the key. The key schedules inside the provider's ciphers are the
// collector's.
func (k *cipherKey) Close() {
	if c, ok := k.BlockCipher.(interface{ Close() }); ok {
		c.Close()
	}
	k.BlockCipher, k.value = nil, nil
}

// ivModes are the uses of a mode with an initialisation vector, which is the parameter's.
func ivModes(begin func(u call, k *cipherKey, iv []byte, decrypt bool) (part, error)) uses {
	return cipherModes(func(u call, k *cipherKey, decrypt bool) (part, error) {
		iv, err := param[p11.IV](u)
		if err != nil {
			return nil, err
		}
		return begin(u, k, iv, decrypt)
	})
}

// cipherModes are the uses of a mode of a block cipher. A key in a chip has its own.
func cipherModes(use func(u call, k *cipherKey, decrypt bool) (part, error)) uses {
	of := func(decrypt bool) begin {
		soft := with(func(u call, k *cipherKey) (part, error) { return use(u, k, decrypt) })
		return func(u call, key any) (part, error) {
			if k, ok := key.(*heldAES); ok {
				return k.begin(u, decrypt)
			}
			return soft(u, key)
		}
	}
	return uses{p11.CKF_ENCRYPT: of(false), p11.CKF_DECRYPT: of(true)}
}
