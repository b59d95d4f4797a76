package swtok

import (
	"math/big"

	"p11fs/p11"
	"p11fs/tokens"
)

// rsaPublic and rsaPrivate are the halves of an RSA key of k bytes.
type rsaPublic struct {
	bits, k int
	n       *big.Int
	key     RSAPublicKey
}

type rsaPrivate struct {
	bits, k int
	n       *big.Int
	key     RSAPrivateKey
}

// Close forgets the key. libcrypto wipes its copy when the collector finds it
// unused.
func (k *rsaPrivate) Close() {
	if c, ok := k.key.(interface{ Close() }); ok {
		c.Close()
	}
	k.key = nil
}

func (c *Crypto) checkRSA(n, e *big.Int) error {
	if bits := n.BitLen(); bits < c.provider.MinRSABits() || bits > maxRSABits {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key of %d bits; %d to %d can be used", bits, c.provider.MinRSABits(), maxRSABits)
	}
	if n.Bit(0) == 0 || e.Bit(0) == 0 || e.Cmp(big.NewInt(3)) < 0 || e.Cmp(n) >= 0 {
		return keyDamaged("its modulus or public exponent is impossible")
	}
	return nil
}

func attributeInt(a p11.Attributes, t p11.AttributeType) *big.Int {
	b, ok := a.Get(t)
	if !ok || len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

func (c *Crypto) parseRSAPublic(a p11.Attributes) (*rsaPublic, error) {
	n, e := attributeInt(a, p11.CKA_MODULUS), attributeInt(a, p11.CKA_PUBLIC_EXPONENT)
	if n == nil || e == nil {
		return nil, keyDamaged("it lacks the modulus or the public exponent")
	}
	if err := c.checkRSA(n, e); err != nil {
		return nil, err
	}
	key, err := c.provider.NewRSAPublicKey(n, e)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &rsaPublic{bits: n.BitLen(), k: (n.BitLen() + 7) / 8, n: n, key: key}, nil
}

func (c *Crypto) parseRSAPrivate(a p11.Attributes) (*rsaPrivate, error) {
	k, err := rsaNumbers(a)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	if err := c.checkRSA(k.N, k.E); err != nil {
		return nil, err
	}
	key, err := c.provider.NewRSAPrivateKey(k)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &rsaPrivate{bits: k.N.BitLen(), k: (k.N.BitLen() + 7) / 8, n: k.N, key: key}, nil
}

// rsaNumbers reads a private key and completes it: PKCS#11 asks only for the
// modulus and the private exponent (v3.1 §6.1.3), while computing fast needs
// the primes and checking a result needs the public exponent. It is done once a
// key; the arithmetic is not constant in time, and out of reach of a caller
// who could repeat and measure it.
func rsaNumbers(a p11.Attributes) (*RSANumbers, error) {
	k := &RSANumbers{
		N: attributeInt(a, p11.CKA_MODULUS), E: attributeInt(a, p11.CKA_PUBLIC_EXPONENT),
		D: attributeInt(a, p11.CKA_PRIVATE_EXPONENT),
		P: attributeInt(a, p11.CKA_PRIME_1), Q: attributeInt(a, p11.CKA_PRIME_2),
	}
	if err := completeRSA(k); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

func completeRSA(k *RSANumbers) error {
	one := big.NewInt(1)
	switch {
	case k.N == nil || k.N.Bit(0) == 0:
		return keyDamaged("its modulus is missing or even")
	case k.N.BitLen() < 16 || k.N.BitLen() > maxRSABits:
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key of %d bits", k.N.BitLen())
	}
	for _, x := range []*big.Int{k.E, k.D, k.P, k.Q} {
		// A number from a file that others can write must not keep us busy.
		if x != nil && x.Cmp(k.N) >= 0 {
			return keyDamaged("its numbers are larger than the modulus")
		}
	}
	if k.P == nil || k.Q == nil {
		if k.D == nil {
			return keyDamaged("it has neither its primes nor its private exponent")
		}
		if k.E == nil && !guessExponent(k) {
			return keyDamaged("it lacks the public exponent")
		}
		if !factorRSA(k) {
			return keyDamaged("its numbers do not fit together")
		}
	}
	if k.P.Cmp(one) <= 0 || k.Q.Cmp(one) <= 0 || new(big.Int).Mul(k.P, k.Q).Cmp(k.N) != 0 {
		return keyDamaged("its primes are not those of the modulus")
	}
	p1, q1 := new(big.Int).Sub(k.P, one), new(big.Int).Sub(k.Q, one)
	order := new(big.Int).Mul(p1, q1)
	order.Div(order, new(big.Int).GCD(nil, nil, p1, q1))
	defer wipeInt(p1)
	defer wipeInt(q1)
	defer wipeInt(order)
	if k.D == nil {
		if k.E == nil {
			return keyDamaged("it has neither exponent")
		}
		k.D = new(big.Int).ModInverse(k.E, order)
		if k.D == nil {
			return keyDamaged("its public exponent has no inverse")
		}
	}
	if k.E == nil {
		if k.E = new(big.Int).ModInverse(new(big.Int).Mod(k.D, order), order); k.E == nil {
			return keyDamaged("its private exponent has no inverse")
		}
	}
	k.DP, k.DQ = new(big.Int).Mod(k.D, p1), new(big.Int).Mod(k.D, q1)
	check := new(big.Int)
	defer wipeInt(check)
	if check.Mul(k.DP, k.E).Mod(check, p1).Cmp(one) != 0 || check.Mul(k.DQ, k.E).Mod(check, q1).Cmp(one) != 0 {
		return keyDamaged("its exponents do not fit together")
	}
	if k.QInv = new(big.Int).ModInverse(k.Q, k.P); k.QInv == nil {
		return keyDamaged("its primes are no primes")
	}
	return nil
}

// guessExponent finds the public exponent of n and d among those in use.
func guessExponent(k *RSANumbers) bool {
	two := big.NewInt(2)
	for _, e := range [...]int64{65537, 3, 17, 35, 257} {
		x := big.NewInt(e)
		y := new(big.Int).Mul(x, k.D)
		ok := y.Exp(two, y, k.N).Cmp(two) == 0
		wipeInt(y)
		if ok {
			k.E = x
			return true
		}
	}
	return false
}

// factorRSA finds the primes from n, e and d (NIST SP 800-56B rev. 2 §C.1,
// with small bases in place of random ones: half of all bases do).
func factorRSA(k *RSANumbers) bool {
	one := big.NewInt(1)
	r := new(big.Int).Mul(k.D, k.E)
	defer wipeInt(r)
	r.Sub(r, one)
	if r.Sign() <= 0 || r.Bit(0) == 1 {
		return false
	}
	t := r.TrailingZeroBits()
	r.Rsh(r, t)
	last := new(big.Int).Sub(k.N, one)
	for base := int64(2); base < 32; base++ {
		x := new(big.Int).Exp(big.NewInt(base), r, k.N)
		for range t {
			y := new(big.Int).Exp(x, big.NewInt(2), k.N)
			if y.Cmp(one) == 0 {
				if x.Cmp(one) == 0 || x.Cmp(last) == 0 {
					break
				}
				p := new(big.Int).GCD(nil, nil, x.Sub(x, one), k.N)
				q := new(big.Int).Div(k.N, p)
				if p.Cmp(q) < 0 {
					p, q = q, p
				}
				k.P, k.Q = p, q
				return true
			}
			x = y
		}
	}
	return false
}

// holdRSAPublic and holdRSAPrivate hold a key whose size the mechanism takes.
func (c *Crypto) holdRSAPublic(mech *mechanism, o *tokens.Object) (*rsaPublic, error) {
	k, err := hold[*rsaPublic](c, o)
	if err != nil {
		return nil, err
	}
	if err := mech.checkBits(k.bits); err != nil {
		o.Release()
		return nil, err
	}
	return k, nil
}

func (c *Crypto) holdRSAPrivate(mech *mechanism, o *tokens.Object) (*rsaPrivate, error) {
	k, err := hold[*rsaPrivate](c, o)
	if err != nil {
		return nil, err
	}
	if err := mech.checkBits(k.bits); err != nil {
		o.Release()
		return nil, err
	}
	return k, nil
}

func (m *mechanism) checkBits(bits int) error {
	if uint64(bits) < m.MinKeySize || uint64(bits) > m.MaxKeySize {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%s takes RSA keys of %d to %d bits, not %d", m.Type.Short(), m.MinKeySize, m.MaxKeySize, bits)
	}
	return nil
}
