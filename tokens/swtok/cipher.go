package swtok

import (
	"p11fs/p11"
	"p11fs/tokens"
)

// encrypt begins an encryption (PKCS#11 v3.1 §5.8.1, C_EncryptInit).
func (c *Crypto) encrypt(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	switch mech.kind {
	case kindRSAPKCS, kindRSAX509, kindOAEP:
		return c.encryptRSA(mech, m, key)
	}
	return c.cipherAES(mech, m, key, false)
}

// decrypt begins a decryption (PKCS#11 v3.1 §5.10.1, C_DecryptInit).
func (c *Crypto) decrypt(mech *mechanism, m p11.Mechanism, key *tokens.Object) (part, error) {
	switch mech.kind {
	case kindRSAPKCS, kindRSAX509, kindOAEP:
		return c.decryptRSA(mech, m, key)
	}
	return c.cipherAES(mech, m, key, true)
}

// cipherAES begins any AES mode.
func (c *Crypto) cipherAES(mech *mechanism, m p11.Mechanism, key *tokens.Object, decrypt bool) (part, error) {
	k, err := c.holdAES(key)
	if err != nil {
		return nil, err
	}
	op, err := newAESCipher(mech, m, key, k, decrypt)
	if err != nil {
		key.Release()
		return nil, err
	}
	return op, nil
}

func newAESCipher(mech *mechanism, m p11.Mechanism, key *tokens.Object, k *secretKey, decrypt bool) (part, error) {
	switch mech.kind {
	case kindECB, kindCBC, kindCBCPad:
		return newBlockCipher(mech, m, key, k, decrypt)
	case kindCTR:
		return newCTRCipher(m, key, k, decrypt)
	case kindGCM:
		return newGCMCipher(m, key, k, decrypt)
	}
	run, err := keyWrapper(mech, m, k, decrypt)
	if err != nil {
		return nil, err
	}
	return newCollector(key, maxHeld, decrypt, run), nil
}

// maxHeld bounds what an operation that must see all of its input before it
// answers holds in memory.
const maxHeld = 64 << 20

// A collector is a cipher that works on all of its input at once.
type collector struct {
	key  *tokens.Object // held; nil after Close
	data []byte
	max  int
	over p11.RV
	run  func([]byte) ([]byte, error)
	err  error
}

func newCollector(key *tokens.Object, limit int, decrypt bool, run func([]byte) ([]byte, error)) *collector {
	return &collector{key: key, max: limit, over: lenRange(decrypt), run: run}
}

// lenRange is the answer to data of a wrong length.
func lenRange(decrypt bool) p11.RV {
	if decrypt {
		return p11.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	return p11.CKR_DATA_LEN_RANGE
}

func (c *collector) update(part []byte) ([]byte, error) {
	switch {
	case c.key == nil:
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	case c.err != nil:
		return nil, c.err
	case len(part) > c.max-len(c.data):
		c.err = p11.Errorf(c.over, "the data is longer than the %d bytes that the mechanism and key take", c.max)
		return nil, c.err
	}
	c.data = append(c.data, part...)
	return nil, nil
}

func (c *collector) result([]byte) ([]byte, error) {
	switch {
	case c.key == nil:
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	case c.err != nil:
		return nil, c.err
	}
	return c.run(c.data)
}

func (c *collector) size() int { return 0 }

func (c *collector) close() {
	if c.key == nil {
		return
	}
	c.key.Release()
	c.key = nil
	wipe(c.data)
	c.data = nil
}
