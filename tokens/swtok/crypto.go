package swtok

import (
	"context"
	"crypto/rand"
	"io"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// Crypto is the cryptography of a software token over a Provider. It keeps
// nothing of its own but tables and free memory: parsed keys live with their objects
// (tokens.Object.Memo).
type Crypto struct {
	provider Provider
	rand     io.Reader
	holder   Holder // of private keys without numbers; nil: there are none
	list     []p11.MechanismInfo
	rows     map[p11.MechanismType]*row
	busy     turns
	free     freePieces
}

var (
	_ tokens.Crypto       = (*Crypto)(nil)
	_ tokens.KeyGenerator = (*Crypto)(nil)
	_ tokens.KeyWrapper   = (*Crypto)(nil)
	_ tokens.KeyDeriver   = (*Crypto)(nil)
	_ tokens.Encapsulator = (*Crypto)(nil)
	_ tokens.KeyJoiner    = (*Crypto)(nil)
	_ tokens.Adopter      = (*Crypto)(nil)
	_ tokens.Calculator   = (*Crypto)(nil)
)

// NewCrypto returns the cryptography over p. random makes symmetric keys, salts
// and C_GenerateRandom; nil is the system's. Asymmetric keys and nonces
// always come from the generator of the library that makes them.
func NewCrypto(p Provider, random io.Reader) *Crypto {
	if random == nil {
		random = rand.Reader
	}
	c := &Crypto{provider: p, rand: random, rows: make(map[p11.MechanismType]*row), busy: newTurns()}
	for _, r := range table(p) {
		c.list = append(c.list, r.MechanismInfo)
		c.rows[r.Type] = &r
	}
	return c
}

// Arrange has f put the list of mechanisms in another order and flag them, in place.
// Nobody uses c yet.
func (c *Crypto) Arrange(f func([]p11.MechanismInfo)) { f(c.list) }

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

// Arithmetic is tokens.Calculator.
func (c *Crypto) Arithmetic() pkix.Arithmetic { return c.provider }

// Adopt is tokens.Adopter: keys have their values in attributes. What is stored can be
// used.
func (c *Crypto) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	err := c.usable(attrs)
	if kt, _ := attrs.KeyType(); err == nil && slices.Contains([]p11.KeyType{p11.CKK_DH, p11.CKK_DSA, p11.CKK_SLH_DSA}, kt) {
		// Whether primes are some, and the halves of a key belong together, takes long.
		var end func()
		if end, err = tokens.Long(ctx); err == nil {
			defer end()
		}
	}
	if err == nil {
		err = c.completeEC(&attrs)
	}
	if err == nil {
		err = pkix.Complete(&attrs)
	}
	if err != nil {
		attrs.Wipe()
		return nil, translate(err, map[p11.RV]p11.RV{p11.CKR_KEY_SIZE_RANGE: p11.CKR_ATTRIBUTE_VALUE_INVALID})
	}
	return attrs, nil
}

// usable refuses a new key with which no provider could work, or not this one on its
// curve. A public RSA key that
// is too short is kept: other tokens take any, and programs store such keys.
func (c *Crypto) usable(attrs p11.Attributes) error {
	class, _ := attrs.Class()
	n, _ := attrs.Get(p11.CKA_MODULUS)
	e, _ := attrs.Get(p11.CKA_PUBLIC_EXPONENT)
	switch kt, _ := attrs.KeyType(); {
	case class != p11.CKO_PUBLIC_KEY && class != p11.CKO_PRIVATE_KEY:
		return nil
	case kt == p11.CKK_RSA && (class == p11.CKO_PRIVATE_KEY || len(n) > maxRSABits/8 || len(e) > 4):
		return c.checkRSASize(attrs)
	case kt == p11.CKK_EC && attrs.Has(p11.CKA_EC_PARAMS):
		_, err := c.attributeCurve(attrs)
		return err
	}
	return nil
}
