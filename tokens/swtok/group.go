package swtok

import (
	"context"
	"crypto"
	"math/big"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// groupBits are the longest primes of groups by key type.
func groupBits(kt p11.KeyType) uint64 {
	if kt == p11.CKK_DSA {
		return pkix.MaxDSABits
	}
	return pkix.MaxDHBits
}

// A groupPublic is a public key of Diffie-Hellman or DSA.
type groupPublic struct {
	group pkix.Group
	value *big.Int
	dsa   DSAPublicKey // nil for Diffie-Hellman
}

func (k *groupPublic) size() int { return k.group.P.BitLen() }

// A dhPrivate is a private key of Diffie-Hellman.
type dhPrivate struct {
	group pkix.Group
	key   DHPrivateKey
}

func (k *dhPrivate) size() int { return k.group.P.BitLen() }

// Close forgets the key; what the library has of it is the library's to wipe.
func (k *dhPrivate) Close() { closeKey(k.key); k.key = nil }

// A dsaPrivate is a private key of DSA.
type dsaPrivate struct {
	group pkix.Group
	key   DSAPrivateKey
}

func (k *dsaPrivate) size() int { return k.group.P.BitLen() }

// Close forgets the key, as that of a dhPrivate.
func (k *dsaPrivate) Close() { closeKey(k.key); k.key = nil }

func closeKey(key any) {
	if c, ok := key.(interface{ Close() }); ok {
		c.Close()
	}
}

// parseGroupKey makes a key of type CKK_DH or CKK_DSA. That its primes are some was seen
// when it was made.
func (c *Crypto) parseGroupKey(kt p11.KeyType, public bool, a p11.Attributes) (any, error) {
	g, err := pkix.GroupOf(kt, a)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	value, _ := a.Get(p11.CKA_VALUE)
	if public {
		k := &groupPublic{group: g}
		if k.value, err = g.Public(value); err == nil && kt == p11.CKK_DSA {
			k.dsa, err = c.provider.NewDSAPublicKey(g, k.value)
		}
		if err != nil {
			return nil, keyDamaged("%v", err)
		}
		return k, nil
	}
	if h, ok := c.holder.(DSAHolder); ok && kt == p11.CKK_DSA && !a.Has(p11.CKA_VALUE) {
		key, err := h.DSA(a)
		return &dsaPrivate{g, key}, err
	}
	x, err := g.Private(value)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	defer wipeInt(x)
	if kt == p11.CKK_DSA {
		key, err := c.provider.NewDSAPrivateKey(g, x)
		if err != nil {
			return nil, keyDamaged("%v", err)
		}
		return &dsaPrivate{g, key}, nil
	}
	key, err := c.provider.NewDHPrivateKey(g, x)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return &dhPrivate{g, key}, nil
}

// publicOf is the public value of a private one.
func publicOf(g pkix.Group, private *big.Int) (*big.Int, error) {
	b := private.Bytes()
	defer wipe(b)
	y, err := g.Power(g.G, b)
	return new(big.Int).SetBytes(y), err
}

// pairIn makes the values of a pair in a group, the private one of at most bits. They are
// the caller's to wipe.
func pairIn(g pkix.Group, bits int) (private, public *big.Int, err error) {
	end := g.Q
	if end == nil {
		end = new(big.Int).Sub(g.P, big.NewInt(1))
	}
	if private, err = randomBelow(end, bits); err == nil {
		public, err = publicOf(g, private)
	}
	if err != nil {
		return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate a key: %v", err)
	}
	return private, public, nil
}

// generateInGroup is the family of CKM_DH_PKCS_KEY_PAIR_GEN and CKM_DSA_KEY_PAIR_GEN.
func generateInGroup(kt p11.KeyType) family {
	return family{makes: kt, generatePair: func(_ context.Context, u call, public, private *p11.Attributes) error {
		g, err := pkix.GroupOf(kt, *public)
		if err != nil {
			return translate(err, map[p11.RV]p11.RV{p11.CKR_ATTRIBUTE_VALUE_INVALID: p11.CKR_DOMAIN_PARAMS_INVALID})
		}
		bits := g.ShortPrivate()
		if n, ok := private.Ulong(p11.CKA_VALUE_BITS); ok && kt == p11.CKK_DH {
			if n < minPrivateBits || n >= uint64(g.P.BitLen()) {
				return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "value-bits: is %d, and has to be from %d to below the prime's %d", n, minPrivateBits, g.P.BitLen())
			}
			bits = int(n)
		}
		x, y, err := pairIn(g, bits)
		if err != nil {
			return err
		}
		defer wipeInt(x)
		for value, a := range map[*big.Int]*p11.Attributes{x: private, y: public} {
			g.Put(a)
			a.Set(p11.CKA_VALUE, value.Bytes())
		}
		return nil
	}}
}

// minPrivateBits is the shortest private value that is made: who can search one of fewer
// bits finds it.
const minPrivateBits = 160

// groups is the family that makes domain parameters.
func groups(kt p11.KeyType) family {
	return family{
		makes: kt,
		needs: func(p Provider) bool { return p.MakesGroups(kt) },
		generateGroup: func(ctx context.Context, u call, a *p11.Attributes) error {
			bits, ok := a.Ulong(p11.CKA_PRIME_BITS)
			if !ok {
				return p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs prime-bits")
			}
			if bits > uint64(u.row.MaxKeySize) || u.fits(int(bits)) != nil {
				return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a prime has %d to %d bits, not %d", u.row.MinKeySize, u.row.MaxKeySize, bits)
			}
			subprime := 256
			if n, ok := a.Ulong(p11.CKA_SUBPRIME_BITS); ok {
				subprime = int(min(n, bits))
			} else if bits < 2048 {
				subprime = 160
			}
			if kt == p11.CKK_DSA && !pkix.SubprimeFits(subprime) {
				return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "a subprime has 160, 224 or 256 bits, not %d", subprime)
			}
			busy := u.busy
			if kt == p11.CKK_DH { // it takes hours, and libcrypto stops
				busy = nil
			}
			g, err := await(ctx, busy, func() (pkix.Group, error) { return u.provider.GenerateGroup(ctx, kt, int(bits), subprime) }, func(pkix.Group) {})
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate a group: %v", err)
			}
			g.Put(a)
			if kt == p11.CKK_DSA {
				a.SetUlong(p11.CKA_SUBPRIME_BITS, uint64(subprime))
			}
			return nil
		},
	}
}

// agree is the shared secret of the private key and another's public value.
func (k *dhPrivate) agree(u call, public []byte) ([]byte, error) {
	if err := u.fits(k.size()); err != nil {
		return nil, err
	}
	y, err := k.group.Public(public)
	var z []byte
	if err == nil {
		z, err = k.key.Agree(y)
	}
	if err != nil {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public: is no public value of the key's group")
	}
	return z, nil
}

// dhDerive is the family of CKM_DH_PKCS_DERIVE (PKCS#11 v3.1 §6.4.8): the secret of PKCS
// #3, less bytes from its leading end.
func dhDerive() family {
	return family{
		derive: func(u call, base any, kt p11.KeyType, n int) ([]byte, error) {
			public, err := param[p11.RawParam](u)
			if err != nil {
				return nil, err
			}
			k, err := keyOf[*dhPrivate](base)
			if err != nil {
				return nil, err
			}
			return k.secret(u, public, kt, n)
		},
		encapsulate: func(u call, public any, kt p11.KeyType, n int) (ciphertext, value []byte, err error) {
			to, err := keyOf[*groupPublic](public)
			if err != nil {
				return nil, nil, err
			}
			x, y, err := pairIn(to.group, to.group.ShortPrivate())
			if err != nil {
				return nil, nil, err
			}
			defer wipeInt(x)
			key, err := u.provider.NewDHPrivateKey(to.group, x)
			if err != nil {
				return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "dh: %v", err)
			}
			k := &dhPrivate{to.group, key}
			defer k.Close()
			if value, err = k.secret(u, to.value.Bytes(), kt, n); err != nil {
				return nil, nil, err
			}
			return y.FillBytes(make([]byte, bytesOf(k.size()))), value, nil
		},
		decapsulate: func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error) {
			k, err := keyOf[*dhPrivate](private)
			if err != nil {
				return nil, err
			}
			if size := bytesOf(k.size()); len(ciphertext) != size {
				return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "the ciphertext has %d bytes, not %d", len(ciphertext), size)
			}
			value, err := k.secret(u, ciphertext, kt, n)
			return value, translate(err, map[p11.RV]p11.RV{p11.CKR_MECHANISM_PARAM_INVALID: p11.CKR_WRAPPED_KEY_INVALID})
		},
	}
}

// secret is a key's value made of what agree gives.
func (k *dhPrivate) secret(u call, public []byte, kt p11.KeyType, n int) ([]byte, error) {
	z, err := k.agree(u, public)
	if err != nil {
		return nil, err
	}
	defer wipe(z)
	return stretcher{}.key(z, n, kt)
}

// dsaOf is the family of DSA over data, or, if h is 0, over a digest as given (PKCS#11
// v3.1 §6.2). r and s are as long as the subprime.
func dsaOf(h crypto.Hash) family {
	begin := func() message {
		if h != 0 {
			return hashed(h)
		}
		return given(1, maxDSADigest, "dsa signs a digest of 1 to 64 bytes; dsa-sha256 signs data of any length")
	}
	return family{uses: uses{
		p11.CKF_SIGN: with(func(_ call, k *dsaPrivate) (part, error) {
			size := 2 * bytesOf(k.group.Q.BitLen())
			return begin().signingSlowly(size, func(ctx context.Context, digest []byte) ([]byte, error) {
				der, err := k.within(ctx).key.Sign(digest)
				var sig []byte
				if err == nil {
					sig, err = pkix.ECDSADERToRaw(der, size)
				}
				switch {
				case held(err):
					return nil, err
				case err != nil:
					return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "dsa: %v", err)
				}
				return sig, nil
			})
		}),
		p11.CKF_VERIFY: with(func(_ call, k *groupPublic) (part, error) {
			if k.dsa == nil {
				return nil, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs a DSA key")
			}
			return begin().verifying(2*bytesOf(k.group.Q.BitLen()), func(digest, sig []byte) bool {
				der, err := pkix.ECDSARawToDER(sig)
				return err == nil && k.dsa.Verify(digest, der)
			})
		}),
	}}
}

// maxDSADigest is the longest input of CKM_DSA, that of SHA-512.
const maxDSADigest = 64
