package swtok

import (
	"context"
	"crypto/rand"
	"io"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// Crypto is the cryptography of a software token over a Provider. It keeps
// nothing of its own but tables: parsed keys live with their objects
// (tokens.Object.Memo).
type Crypto struct {
	provider Provider
	rand     io.Reader
	list     []p11.MechanismInfo
	rows     map[p11.MechanismType]*row
}

var (
	_ tokens.Crypto       = (*Crypto)(nil)
	_ tokens.KeyGenerator = (*Crypto)(nil)
	_ tokens.KeyWrapper   = (*Crypto)(nil)
	_ tokens.KeyDeriver   = (*Crypto)(nil)
	_ tokens.Adopter      = (*Crypto)(nil)
)

// NewCrypto returns the cryptography over p. random makes symmetric keys, salts
// and C_GenerateRandom; nil is the system's. Asymmetric keys and nonces
// always come from the provider's own generator.
func NewCrypto(p Provider, random io.Reader) *Crypto {
	if random == nil {
		random = rand.Reader
	}
	c := &Crypto{provider: p, rand: random, rows: make(map[p11.MechanismType]*row)}
	for _, r := range table(p) {
		c.list = append(c.list, r.MechanismInfo)
		c.rows[r.Type] = &r
	}
	return c
}

// Mechanisms returns the list: what stock openCryptoki 3.8 has in its order,
// then the rest.
func (c *Crypto) Mechanisms() []p11.MechanismInfo { return c.list }

// GenerateRandom fills b (PKCS#11 v3.1 §5.19.2, C_GenerateRandom).
func (c *Crypto) GenerateRandom(_ context.Context, b []byte) error {
	if _, err := io.ReadFull(c.rand, b); err != nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "random bytes: %v", err)
	}
	return nil
}

// Adopt is tokens.Adopter: keys have their values in attributes.
func (c *Crypto) Adopt(_ context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	if err := pkix.Complete(&attrs); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return attrs, nil
}
