package swtok

import (
	"context"
	"math/big"
	"math/bits"
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
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

// GenerateKey makes a secret key or domain parameters (PKCS#11 v3.1 §5.18.1,
// C_GenerateKey).
func (c *Crypto) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_GENERATE)
	if err != nil {
		return nil, err
	}
	if u.row.generateGroup != nil {
		a, err := expect(template, p11.CKO_DOMAIN_PARAMETERS, u.row.makes)
		if err != nil {
			return nil, err
		}
		return a, u.row.generateGroup(ctx, u, &a)
	}
	makes := u.row.makes
	if kt, ok := template.KeyType(); ok && makes == 0 {
		makes = kt
	}
	a, err := expect(template, p11.CKO_SECRET_KEY, makes)
	if err != nil {
		return nil, err
	}
	return a, u.row.generate(ctx, u, &a)
}

// GenerateKeyPair makes a key pair (PKCS#11 v3.1 §5.18.2, C_GenerateKeyPair).
func (c *Crypto) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_GENERATE_KEY_PAIR)
	if err != nil {
		return nil, nil, err
	}
	if public, err = expect(public, p11.CKO_PUBLIC_KEY, u.row.makes); err != nil {
		return nil, nil, err
	}
	if private, err = expect(private, p11.CKO_PRIVATE_KEY, u.row.makes); err != nil {
		return nil, nil, err
	}
	return public, private, u.row.generatePair(ctx, u, &public, &private)
}

// generateSecret is the family that makes secret keys of type kt. A byte is perByte
// of the units in which the row has its sizes. fit, unless nil, makes a good key of
// random bytes, or says that it cannot.
func generateSecret(kt p11.KeyType, perByte uint64, fit func(value []byte) bool) family {
	return family{makes: kt, generate: func(ctx context.Context, u call, a *p11.Attributes) error {
		n, ok := a.Ulong(p11.CKA_VALUE_LEN)
		if fixed := fixedLength(kt); fixed != 0 && (!ok || n == uint64(fixed)) {
			n, ok = uint64(fixed), true
			a.Delete(p11.CKA_VALUE_LEN) // such keys do not have it
		}
		least, most := u.row.MinKeySize/perByte, u.row.MaxKeySize/perByte
		switch {
		case !ok:
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
		case n < least || n > most || !p11.FitsKey(kt, n):
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a generated %s key has %d to %d bytes, and %d is no length of one", kt.Short(), least, most, n)
		}
		value := make([]byte, n)
		for {
			if err := u.GenerateRandom(ctx, value); err != nil {
				return err
			}
			if fit == nil || fit(value) {
				break
			}
		}
		a.Set(p11.CKA_VALUE, value)
		return nil
	}}
}

// oddParity makes value a key of DES: a byte has an odd number of bits set (FIPS 46-3).
// Two of the keys in it that are the same make it a weaker cipher.
func oddParity(value []byte) bool {
	setParity(value)
	return differ(value, desBlock) && !weakDES(value)
}

// setParity gives each byte of a key of DES an odd number of bits.
func setParity(value []byte) {
	for i, b := range value {
		value[i] = b&^1 | byte(bits.OnesCount8(b>>1)+1)&1
	}
}

// weakDES says whether one of the keys is its own inverse, or another's (NIST SP 800-67
// §3.3.2): such a key has in each half of its schedule one pattern of bits.
func weakDES(value []byte) bool {
	for k := range slices.Chunk(value, desBlock) {
		seen := 0
		for _, b := range k {
			if b == 0x01 || b == 0xfe || b == 0x1f || b == 0xe0 || b == 0x0e || b == 0xf1 {
				seen++
			}
		}
		if seen == len(k) {
			return true
		}
	}
	return false
}

// differ says whether all parts of n bytes of value are different ones.
func differ(value []byte, n int) bool {
	seen := make(map[string]bool)
	for part := range slices.Chunk(value, n) {
		if seen[string(part)] {
			return false
		}
		seen[string(part)] = true
	}
	return true
}

// halvesDiffer is what a key of XTS must fulfil (IEEE Std 1619 §5.1, FIPS 140-3 IG C.I).
func halvesDiffer(value []byte) bool { return differ(value, len(value)/2) }

// generateEC is the family of CKM_EC_KEY_PAIR_GEN.
func generateEC() family {
	return family{makes: p11.CKK_EC, generatePair: func(_ context.Context, u call, public, private *p11.Attributes) error {
		params, ok := public.Get(p11.CKA_EC_PARAMS)
		if !ok {
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs ec-params, the curve")
		}
		curve, err := u.curveOf(params)
		if err != nil {
			return err
		}
		scalar, point, err := u.provider.GenerateEC(curve)
		if err != nil {
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an EC key: %v", err)
		}
		public.Set(p11.CKA_EC_PARAMS, curve.Params())
		public.Set(p11.CKA_EC_POINT, pkix.DERPoint(point))
		private.Set(p11.CKA_EC_PARAMS, curve.Params())
		private.Set(p11.CKA_VALUE, scalar)
		return nil
	}}
}

// generateRSA is the family of CKM_RSA_PKCS_KEY_PAIR_GEN.
func generateRSA() family {
	return family{makes: p11.CKK_RSA, generatePair: func(ctx context.Context, u call, public, private *p11.Attributes) error {
		bits, ok := public.Ulong(p11.CKA_MODULUS_BITS)
		switch {
		case !ok:
			return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the public template needs modulus-bits")
		case bits < u.row.MinKeySize || bits > u.row.MaxKeySize:
			return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "an RSA key has %d to %d bits, not %d", u.row.MinKeySize, u.row.MaxKeySize, bits)
		}
		e := big.NewInt(defaultExponent)
		if given, ok := public.Get(p11.CKA_PUBLIC_EXPONENT); ok && len(given) > 0 {
			e.SetBytes(given)
		}
		if most := u.provider.MaxExponentBits(int(bits)); e.Bit(0) == 0 || e.BitLen() < 2 || e.BitLen() > most {
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the public exponent must be odd, from 3, and have at most %d bits", most)
		}
		k, err := u.newRSA(ctx, int(bits), e)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate an RSA key: %v", err)
		}
		defer k.Wipe()
		public.Set(p11.CKA_MODULUS, k.N.Bytes())
		public.Set(p11.CKA_PUBLIC_EXPONENT, k.E.Bytes())
		return k.Put(private)
	}}
}

const defaultExponent = 65537

// newRSA lets the provider make a key, which takes seconds, or minutes.
func (c *Crypto) newRSA(ctx context.Context, bits int, e *big.Int) (*pkix.RSANumbers, error) {
	return await(ctx, nil, func() (*pkix.RSANumbers, error) { return c.provider.GenerateRSA(ctx, bits, e) }, (*pkix.RSANumbers).Wipe)
}
