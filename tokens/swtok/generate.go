package swtok

import (
	"context"
	"crypto/rand"
	"io"
	"math/big"

	"p11fs/p11"
)

// Generic secrets are of 80 to 2048 bits, as stock openCryptoki has it; both
// bounds hold for generated keys only.
const (
	minSecretBits = 80
	maxSecretBits = 2048
)

// expect puts the class and key type that a mechanism makes into the template,
// or finds them there already.
func expect(a p11.Attributes, class p11.ObjectClass, kt p11.KeyType) (p11.Attributes, error) {
	if got, ok := a.Class(); ok && got != class {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a %s, not a %s", class.Short(), got.Short())
	}
	if got, ok := a.KeyType(); ok && got != kt {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes a key of type %s, not %s", kt.Short(), got.Short())
	}
	return a.Merge(p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}), nil
}

// GenerateKey makes a secret key (PKCS#11 v3.1 §5.18.1, C_GenerateKey).
func (c *Crypto) GenerateKey(_ context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	mech, err := c.mechanism(m, p11.CKF_GENERATE)
	if err != nil {
		return nil, err
	}
	if err := noParam(m); err != nil {
		return nil, err
	}
	kt := p11.CKK_GENERIC_SECRET
	if mech.kind == kindGenAES {
		kt = p11.CKK_AES
	}
	a, err := expect(template, p11.CKO_SECRET_KEY, kt)
	if err != nil {
		return nil, err
	}
	n, ok := a.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
	case kt == p11.CKK_AES && (n > 32 || !aesLength(int(n))):
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an AES key has 16, 24 or 32 bytes, not %d", n)
	case kt != p11.CKK_AES && (n < minSecretBits/8 || n > maxSecretBits/8):
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a generated secret has %d to %d bytes, not %d", minSecretBits/8, maxSecretBits/8, n)
	}
	value := make([]byte, n)
	if _, err := io.ReadFull(c.rand, value); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "random bytes: %v", err)
	}
	a.Set(p11.CKA_VALUE, value)
	return a, nil
}

// GenerateKeyPair makes an RSA or EC key (PKCS#11 v3.1 §5.18.2,
// C_GenerateKeyPair).
func (c *Crypto) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	mech, err := c.mechanism(m, p11.CKF_GENERATE_KEY_PAIR)
	if err != nil {
		return nil, nil, err
	}
	if err := noParam(m); err != nil {
		return nil, nil, err
	}
	kt := p11.CKK_RSA
	if mech.kind == kindGenEC {
		kt = p11.CKK_EC
	}
	if public, err = expect(public, p11.CKO_PUBLIC_KEY, kt); err != nil {
		return nil, nil, err
	}
	if private, err = expect(private, p11.CKO_PRIVATE_KEY, kt); err != nil {
		return nil, nil, err
	}
	if kt == p11.CKK_EC {
		return c.generateEC(public, private)
	}
	return c.generateRSA(ctx, mech, public, private)
}

func (c *Crypto) generateEC(public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	params, ok := public.Get(p11.CKA_EC_PARAMS)
	if !ok {
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
	}
	curve, err := curveOf(params)
	if err != nil {
		return nil, nil, err
	}
	scalar, point, err := c.provider.GenerateEC(curve)
	if err != nil {
		return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an EC key: %v", err)
	}
	public.Set(p11.CKA_EC_PARAMS, clone(curve.params))
	public.Set(p11.CKA_EC_POINT, derPoint(point))
	private.Set(p11.CKA_EC_PARAMS, clone(curve.params))
	private.Set(p11.CKA_VALUE, scalar)
	return public, private, nil
}

func (c *Crypto) generateRSA(ctx context.Context, mech *mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
	if !ok {
		return nil, nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
	}
	if bits < mech.MinKeySize || bits > mech.MaxKeySize {
		return nil, nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key has %d to %d bits, not %d", mech.MinKeySize, mech.MaxKeySize, bits)
	}
	e := attributeInt(public, p11.CKA_PUBLIC_EXPONENT)
	if e == nil {
		e = big.NewInt(defaultExponent)
	}
	if e.Bit(0) == 0 || e.BitLen() < 2 || e.BitLen() > 31 {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the public exponent must be odd, from 3 to 2147483647")
	}
	k, err := c.newRSA(ctx, int(bits), e)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an RSA key: %v", err)
	}
	defer k.Wipe()
	public.SetUlong(p11.CKA_MODULUS_BITS, bits)
	public.Set(p11.CKA_MODULUS, k.N.Bytes())
	public.Set(p11.CKA_PUBLIC_EXPONENT, k.E.Bytes())
	private.Set(p11.CKA_MODULUS, k.N.Bytes())
	private.Set(p11.CKA_PUBLIC_EXPONENT, k.E.Bytes())
	private.Set(p11.CKA_PRIVATE_EXPONENT, k.D.Bytes())
	private.Set(p11.CKA_PRIME_1, k.P.Bytes())
	private.Set(p11.CKA_PRIME_2, k.Q.Bytes())
	private.Set(p11.CKA_EXPONENT_1, k.DP.Bytes())
	private.Set(p11.CKA_EXPONENT_2, k.DQ.Bytes())
	private.Set(p11.CKA_COEFFICIENT, k.QInv.Bytes())
	return public, private, nil
}

const defaultExponent = 65537

// newRSA makes a key. The providers know one public exponent; with another the
// primes are found here.
func (c *Crypto) newRSA(ctx context.Context, bits int, e *big.Int) (*RSANumbers, error) {
	if e.Cmp(big.NewInt(defaultExponent)) == 0 {
		return c.provideRSA(ctx, bits)
	}
	one := big.NewInt(1)
	prime := func(n int) (*big.Int, error) {
		for {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p, err := rand.Prime(rand.Reader, n)
			if err != nil {
				return nil, err
			}
			p1 := new(big.Int).Sub(p, one)
			if new(big.Int).GCD(nil, nil, p1, e).Cmp(one) == 0 {
				return p, nil
			}
		}
	}
	for {
		p, err := prime((bits + 1) / 2)
		if err != nil {
			return nil, err
		}
		q, err := prime(bits / 2)
		if err != nil {
			return nil, err
		}
		n := new(big.Int).Mul(p, q)
		// FIPS 186-5 §A.1.3: the primes are not near each other.
		if n.BitLen() != bits || new(big.Int).Sub(p, q).BitLen() <= bits/2-100 {
			continue
		}
		k := &RSANumbers{N: n, E: new(big.Int).Set(e), P: p, Q: q}
		if p.Cmp(q) < 0 {
			k.P, k.Q = q, p
		}
		if err := completeRSA(k); err != nil {
			continue
		}
		return k, nil
	}
}

// provideRSA lets the provider make a key, which takes seconds and cannot be
// stopped. Whoever is interrupted does not wait for it: the key is wiped when
// it comes.
func (c *Crypto) provideRSA(ctx context.Context, bits int) (*RSANumbers, error) {
	type made struct {
		key *RSANumbers
		err error
	}
	done := make(chan made, 1)
	go func() {
		key, err := c.provider.GenerateRSA(bits)
		done <- made{key, err}
	}()
	select {
	case m := <-done:
		return m.key, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.err == nil {
				m.key.Wipe()
			}
		}()
		return nil, ctx.Err()
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
