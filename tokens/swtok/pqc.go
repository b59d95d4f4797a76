package swtok

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha3"
	"encoding/asn1"
	"fmt"
	"hash"
	"io"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
)

// pqcRows are the rows of the post-quantum schemes (PKCS#11 v3.2 §6.67 to §6.69), and those
// that openCryptoki has for the same, which are package pqc's with either provider. Their
// sizes are those of public keys.
func pqcRows() []row {
	one := func(t p11.MechanismType, least, most uint64, flags p11.Flags, f family) row {
		return row{p11.MechanismInfo{Type: t, MinKeySize: least, MaxKeySize: most, Flags: flags}, f}
	}
	mlDSA := func(t p11.MechanismType, flags p11.Flags, f family) row { return one(t, 1312, 2592, flags, f) }
	slhDSA := func(t p11.MechanismType, flags p11.Flags, f family) row { return one(t, 32, 64, flags, f) }
	rows := []row{
		mlDSA(p11.CKM_ML_DSA_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generatePQC(p11.CKK_ML_DSA)),
		mlDSA(p11.CKM_ML_DSA, flagsSign, pqcPure()),
		mlDSA(p11.CKM_HASH_ML_DSA, flagsSign, pqcDigest()),
		mlDSA(p11.CKM_HASH_ML_DSA_SHAKE128, flagsSign, pqcHashed(shake128())),
		mlDSA(p11.CKM_HASH_ML_DSA_SHAKE256, flagsSign, pqcHashed(shake256())),
		slhDSA(p11.CKM_SLH_DSA_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generatePQC(p11.CKK_SLH_DSA)),
		slhDSA(p11.CKM_SLH_DSA, flagsSign, pqcPure()),
		slhDSA(p11.CKM_HASH_SLH_DSA, flagsSign, pqcDigest()),
		slhDSA(p11.CKM_HASH_SLH_DSA_SHAKE128, flagsSign, pqcHashed(shake128())),
		slhDSA(p11.CKM_HASH_SLH_DSA_SHAKE256, flagsSign, pqcHashed(shake256())),
		one(p11.CKM_ML_KEM_KEY_PAIR_GEN, 800, 1568, p11.CKF_GENERATE_KEY_PAIR, generatePQC(p11.CKK_ML_KEM)),
		one(p11.CKM_ML_KEM, 800, 1568, p11.CKF_ENCAPSULATE|p11.CKF_DECAPSULATE, mlKEM()),
		mlDSA(p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKF_GENERATE_KEY_PAIR, generatePQC(p11.CKK_IBM_ML_DSA)),
		mlDSA(p11.CKM_IBM_ML_DSA, flagsSign, pqcPure()),
		one(p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, 800, 1568, p11.CKF_GENERATE_KEY_PAIR, generatePQC(p11.CKK_IBM_ML_KEM)),
		one(p11.CKM_IBM_ML_KEM, 800, 1568, p11.CKF_DERIVE, ibmMLKEM()),
		one(p11.CKM_IBM_ML_KEM_WITH_ECDH, 800, 1568, p11.CKF_DERIVE, ibmMLKEMWithECDH()),
	}
	for _, h := range p11.Hashes() {
		if h.Go != 0 && h.MLDSA != 0 {
			rows = append(rows, mlDSA(h.MLDSA, flagsSign, pqcHashed(formOf(h))), slhDSA(h.SLHDSA, flagsSign, pqcHashed(formOf(h))))
		}
	}
	return rows
}

// pqcTypes are their key types.
func pqcTypes() []p11.KeyType {
	return []p11.KeyType{p11.CKK_ML_DSA, p11.CKK_SLH_DSA, p11.CKK_ML_KEM, p11.CKK_IBM_ML_DSA, p11.CKK_IBM_ML_KEM}
}

// parsePQC makes a *pqc.PublicKey or *pqc.PrivateKey of attributes.
func parsePQC(a p11.Attributes, public bool) (any, error) {
	if kt, _ := a.KeyType(); pqc.IsIBM(kt) {
		return parseIBM(a, kt, public)
	}
	s, err := pqc.SetOfKey(a)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	value, _ := a.Get(p11.CKA_VALUE)
	var k any
	if public {
		k, err = s.NewPublicKey(value)
	} else {
		k, err = s.NewPrivateKey(value)
	}
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	return k, nil
}

// pqcKey is key as one of the type that the mechanism takes.
func pqcKey[K interface{ Type() p11.KeyType }](u call, key any) (K, error) {
	k, err := keyOf[K](key)
	facts, _ := p11.MechanismFacts(u.m.Type)
	if err == nil && k.Type() != facts.KeyTypes[0] {
		err = p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs another type of key")
	}
	return k, err
}

// generatePQC is the family that makes pairs of a type.
func generatePQC(kt p11.KeyType) family {
	return family{makes: kt, generatePair: func(ctx context.Context, u call, public, private *p11.Attributes) error {
		names := *public
		if pqc.IsIBM(kt) && !names.Has(p11.CKA_IBM_PARAMETER_SET) {
			names = *private // either will do
		}
		s, err := pqc.SetOfKey(names)
		if err != nil {
			return err
		}
		make := func() (pqc.Pair, error) { return s.Generate(rand.Reader) }
		var p pqc.Pair
		if s.Slow() {
			p, err = await(ctx, u.busy, make, func(p pqc.Pair) { p.Wipe() })
		} else {
			p, err = make()
		}
		switch {
		case ctx.Err() != nil:
			p.Wipe()
			return ctx.Err()
		case err != nil:
			return p11.Errorf(p11.CKR_FUNCTION_FAILED, "generate a key of %s: %v", s.Name, err)
		}
		if pqc.IsIBM(kt) {
			return putIBM(s, p, public, private)
		}
		public.Set(p11.CKA_VALUE, p.Public)
		private.SetUlong(p11.CKA_PARAMETER_SET, s.Number)
		private.Set(p11.CKA_VALUE, p.Private)
		if p.Seed != nil {
			private.Set(p11.CKA_SEED, p.Seed)
		}
		return nil
	}}
}

// A pqcSigner is one way to sign with ML-DSA or SLH-DSA: what is kept of the data, and
// what is signed then.
type pqcSigner struct {
	message message
	signed  func(context, data []byte) pqc.Message
	context []byte
	hedge   p11.Hedge
}

// read takes the parameter of a signature, which may be left out.
func (s *pqcSigner) read(u call) error {
	switch p := u.m.Param.(type) {
	case nil:
	case *p11.SignContext:
		s.context, s.hedge = p.Context, p.Hedge
	case *p11.HashSignContext:
		s.context, s.hedge = p.Context, p.Hedge
	case *p11.IBMSignContext:
		s.context, s.hedge = p.Context, p11.Hedge(p.Hedge-p11.CKH_IBM_HEDGE_PREFERRED)
	default:
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", u.m.Type.Short())
	}
	if s.hedge > p11.CKH_DETERMINISTIC_REQUIRED {
		return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "there is no hedge variant %s", s.hedge.Short())
	}
	s.context = bytes.Clone(s.context)
	return nil
}

// pqcSigns is the family of a way to sign.
func pqcSigns(way func(u call) (pqcSigner, error)) family {
	with := func(f func(u call, key any, s pqcSigner) (part, error)) begin {
		return func(u call, key any) (part, error) {
			s, err := way(u)
			if err == nil {
				err = s.read(u)
			}
			if err != nil {
				return nil, err
			}
			return f(u, key, s)
		}
	}
	return family{uses: uses{
		p11.CKF_SIGN: with(func(u call, key any, s pqcSigner) (part, error) {
			k, err := pqcKey[*pqc.PrivateKey](u, key)
			if err != nil {
				return nil, err
			}
			return s.message.signingSlowly(k.SignatureSize, func(ctx context.Context, data []byte) ([]byte, error) {
				return u.signPQC(ctx, k, s, data)
			})
		}),
		p11.CKF_VERIFY: with(func(u call, key any, s pqcSigner) (part, error) {
			k, err := pqcKey[*pqc.PublicKey](u, key)
			if err != nil {
				return nil, err
			}
			return s.message.verifying(k.SignatureSize, func(data, signature []byte) bool {
				return k.Verify(s.signed(s.context, data), signature)
			})
		}),
	}}
}

// signPQC signs data. What takes long works on copies, since it may be left alone with
// them.
func (c *Crypto) signPQC(ctx context.Context, k *pqc.PrivateKey, s pqcSigner, data []byte) (signature []byte, err error) {
	random := c.rand
	if s.hedge == p11.CKH_DETERMINISTIC_REQUIRED {
		random = nil
	}
	if k.Slow() {
		own, copied := k.Clone(), bytes.Clone(data)
		signature, err = await(ctx, c.busy, func() ([]byte, error) {
			defer own.Wipe()
			defer wipe(copied)
			return own.Sign(s.signed(s.context, copied), random)
		}, func([]byte) {})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	} else {
		signature, err = k.Sign(s.signed(s.context, data), random)
	}
	if err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %v", k.Name, err)
	}
	return signature, nil
}

// pqcPure is the family of CKM_ML_DSA and CKM_SLH_DSA. The message is kept: what is
// hashed before it depends on the key or on the signature.
func pqcPure() family {
	return pqcSigns(func(call) (pqcSigner, error) {
		return pqcSigner{
			message: given(0, maxHeld, fmt.Sprintf("the mechanism signs at most %d bytes; one that hashes them signs data of any length", maxHeld)),
			signed:  pqc.Pure,
		}, nil
	})
}

// pqcHashed is the family of HashML-DSA and HashSLH-DSA over a hash.
func pqcHashed(h hashForm) family {
	return pqcSigns(func(call) (pqcSigner, error) {
		return pqcSigner{
			message: message{h: h.begin()},
			signed:  func(context, digest []byte) pqc.Message { return pqc.Prehashed(context, h.oid, digest) },
		}, nil
	})
}

// pqcDigest is the family of CKM_HASH_ML_DSA and CKM_HASH_SLH_DSA, which sign a digest as
// given. Hashes are those that FIPS 204 and 205 approve of.
func pqcDigest() family {
	return pqcSigns(func(u call) (pqcSigner, error) {
		p, err := param[*p11.HashSignContext](u)
		if err != nil {
			return pqcSigner{}, err
		}
		h, ok := p11.HashOf(p.Hash)
		if !ok || h.MLDSA == 0 || h.Go == 0 {
			return pqcSigner{}, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "hash=%s is none of this mechanism's; sha256 is one", p.Hash.Short())
		}
		form, n := formOf(h), int(h.Size)
		return pqcSigner{
			message: given(n, n, fmt.Sprintf("the mechanism signs a digest, here of %d bytes", n)),
			signed:  func(context, digest []byte) pqc.Message { return pqc.Prehashed(context, form.oid, digest) },
		}, nil
	})
}

// A hashForm is a hash and its object identifier.
type hashForm struct {
	oid   asn1.ObjectIdentifier
	begin func() hash.Hash
}

func formOf(h p11.Hash) hashForm { return hashForm{pkix.ParseOID(h.OID), h.Go.New} }

// shake128 and shake256 are these functions, with the lengths of FIPS 204 §5.4.1.
func shake128() hashForm {
	return hashForm{pkix.ParseOID("2.16.840.1.101.3.4.2.11"), func() hash.Hash { return &shake{sha3.NewSHAKE128(), 32} }}
}

func shake256() hashForm {
	return hashForm{pkix.ParseOID("2.16.840.1.101.3.4.2.12"), func() hash.Hash { return &shake{sha3.NewSHAKE256(), 64} }}
}

// shake is an extendable output function as a hash of one length.
type shake struct {
	*sha3.SHAKE
	size int
}

func (s *shake) Size() int { return s.size }

// Sum reads from a copy: the message may go on.
func (s *shake) Sum(b []byte) []byte {
	read := *s.SHAKE
	out := make([]byte, s.size)
	_, _ = io.ReadFull(&read, out)
	return append(b, out...)
}

// mlKEM is the family of CKM_ML_KEM.
func mlKEM() family {
	return family{
		encapsulate: func(u call, public any, kt p11.KeyType, n int) (ciphertext, value []byte, err error) {
			k, err := pqcKey[*pqc.PublicKey](u, public)
			if err != nil {
				return nil, nil, err
			}
			ciphertext, shared, err := k.Encapsulate()
			if err != nil {
				return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %v", k.Name, err)
			}
			value, err = leading(shared, n, kt)
			return ciphertext, value, err
		},
		decapsulate: func(u call, private any, ciphertext []byte, kt p11.KeyType, n int) ([]byte, error) {
			k, err := pqcKey[*pqc.PrivateKey](u, private)
			switch {
			case err != nil:
				return nil, err
			case len(ciphertext) != k.CiphertextSize:
				return nil, p11.Errorf(p11.CKR_WRAPPED_KEY_LEN_RANGE, "a ciphertext of %s has %d bytes, not %d", k.Name, k.CiphertextSize, len(ciphertext))
			}
			shared, err := k.Decapsulate(ciphertext)
			if err != nil {
				return nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %v", k.Name, err)
			}
			return leading(shared, n, kt)
		},
	}
}
