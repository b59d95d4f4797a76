package pkix

import (
	"math/big"

	"p11fs/p11"
)

// completeRSAPrivate checks the numbers of an RSA private key and computes the primes
// and what belongs to them where they were not given: tokens, and other
// programs on the same token directory, count on them.
func completeRSAPrivate(attrs *p11.Attributes, n, e *big.Int) error {
	if n.BitLen() < 16 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "modulus: is too small")
	}
	if e.Cmp(n) >= 0 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "public-exponent: is larger than the modulus")
	}
	d, err := positive(*attrs, p11.CKA_PRIVATE_EXPONENT)
	if err != nil {
		return err
	}
	if d.Cmp(n) >= 0 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "private-exponent: is larger than the modulus")
	}
	p, q, err := primes(*attrs, n, e, d)
	if err != nil {
		return err
	}
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	ed := new(big.Int).Mul(e, d)
	ed.Sub(ed, one)
	if new(big.Int).Mod(ed, p1).Sign() != 0 || new(big.Int).Mod(ed, q1).Sign() != 0 {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "private-exponent: does not belong to the public exponent")
	}
	coefficient := new(big.Int).ModInverse(q, p)
	if coefficient == nil {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "prime-1: is no prime")
	}
	for _, part := range []struct {
		attr  p11.AttributeType
		value *big.Int
	}{
		{p11.CKA_PRIME_1, p},
		{p11.CKA_PRIME_2, q},
		{p11.CKA_EXPONENT_1, new(big.Int).Mod(d, p1)},
		{p11.CKA_EXPONENT_2, new(big.Int).Mod(d, q1)},
		{p11.CKA_COEFFICIENT, coefficient},
	} {
		given, ok := attrs.Get(part.attr)
		if !ok || len(given) == 0 {
			attrs.Set(part.attr, part.value.Bytes())
			continue
		}
		if new(big.Int).SetBytes(given).Cmp(part.value) != 0 {
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: does not belong to the key", part.attr.Short())
		}
	}
	return nil
}

// primes returns the two primes, given or computed.
func primes(attrs p11.Attributes, n, e, d *big.Int) (p, q *big.Int, err error) {
	b1, _ := attrs.Get(p11.CKA_PRIME_1)
	b2, _ := attrs.Get(p11.CKA_PRIME_2)
	if len(b1) > 0 && len(b2) > 0 {
		p, q = new(big.Int).SetBytes(b1), new(big.Int).SetBytes(b2)
	} else if p, q = factor(n, e, d); p == nil {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "private-exponent: does not belong to the modulus")
	}
	if p.BitLen() < 2 || q.BitLen() < 2 || new(big.Int).Mul(p, q).Cmp(n) != 0 {
		return nil, nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "prime-1: the primes do not make the modulus")
	}
	return p, q, nil
}

// factor splits n, knowing both exponents: a square root of 1 other than ±1 has
// a factor in common with n. Half of all bases lead to one; nil says that none
// of many did, so that the numbers are no RSA key.
func factor(n, e, d *big.Int) (p, q *big.Int) {
	one := big.NewInt(1)
	minusOne := new(big.Int).Sub(n, one)
	odd := new(big.Int).Mul(e, d)
	odd.Sub(odd, one)
	if odd.Sign() <= 0 {
		return nil, nil
	}
	twos := odd.TrailingZeroBits()
	odd.Rsh(odd, twos)
	for base := int64(2); base < 66; base++ {
		x := new(big.Int).Exp(big.NewInt(base), odd, n)
		for range twos {
			if x.Cmp(one) == 0 || x.Cmp(minusOne) == 0 {
				break
			}
			square := new(big.Int).Mul(x, x)
			square.Mod(square, n)
			if square.Cmp(one) == 0 {
				p = new(big.Int).GCD(nil, nil, new(big.Int).Sub(x, one), n)
				q = new(big.Int).Div(n, p)
				if p.Cmp(q) < 0 {
					p, q = q, p
				}
				return p, q
			}
			x = square
		}
	}
	return nil, nil
}

// rsaPublicKeyInfo makes CKA_PUBLIC_KEY_INFO of an RSA key.
func rsaPublicKeyInfo(attrs p11.Attributes) ([]byte, error) {
	n, err := positive(attrs, p11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	e, err := positive(attrs, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	return buildSPKI(oidRSA, []byte{0x05, 0x00}, rsaPublicDER(n, e))
}
