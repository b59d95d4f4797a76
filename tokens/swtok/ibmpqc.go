package swtok

import (
	"slices"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/p11/pqc"
)

// openCryptoki had mechanisms of its own for ML-DSA and ML-KEM before the standard had any,
// and has them still: CK_IBM_... in its usr/include/pkcs11types.h. Their keys are those of
// the standard in other attributes (pkix.StandardPQC); signatures are the same, and
// encapsulation is a derivation.

// parseIBM is parsePQC for keys of openCryptoki's types.
func parseIBM(a p11.Attributes, kt p11.KeyType, public bool) (any, error) {
	std, err := pkix.StandardPQC(a)
	if err != nil {
		return nil, keyDamaged("%v", err)
	}
	k, err := parsePQC(std, public)
	if err != nil {
		std.Wipe()
		return nil, err
	}
	switch k := k.(type) {
	case *pqc.PublicKey:
		k.KeyType = kt
	case *pqc.PrivateKey:
		k.KeyType = kt
		k.Own()
		seed, _ := std.Get(p11.CKA_SEED)
		wipe(seed)
	}
	return k, nil
}

// putIBM puts a new pair into templates of openCryptoki's types.
func putIBM(s pqc.Set, p pqc.Pair, public, private *p11.Attributes) error {
	std := func(class p11.ObjectClass, value, seed []byte) (a p11.Attributes) {
		a.SetUlong(p11.CKA_CLASS, uint64(class))
		a.SetUlong(p11.CKA_KEY_TYPE, uint64(pqc.Standard(s.KeyType)))
		a.SetUlong(p11.CKA_PARAMETER_SET, s.Number)
		a.Set(p11.CKA_VALUE, value)
		if seed != nil {
			a.Set(p11.CKA_SEED, seed)
		}
		return a
	}
	defer p.Wipe()
	pkcs8, err := pkix.EncodePrivateKey(std(p11.CKO_PRIVATE_KEY, p.Private, p.Seed))
	if err != nil {
		return err
	}
	half := std(p11.CKO_PUBLIC_KEY, p.Public, nil)
	if err := pkix.Complete(&half); err != nil {
		wipe(pkcs8)
		return err
	}
	spki, _ := half.Get(p11.CKA_PUBLIC_KEY_INFO)
	for a, der := range map[*p11.Attributes][]byte{public: spki, private: pkcs8} {
		if n, ok := a.Ulong(p11.CKA_IBM_PARAMETER_SET); ok && n != s.Number {
			wipe(pkcs8)
			return p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "ibm-parameter-set: the halves of a pair have one")
		}
		a.SetUlong(p11.CKA_IBM_PARAMETER_SET, s.Number)
		a.Set(p11.CKA_VALUE, der)
	}
	return nil
}

// ibmKEM is encapsulation with a public key, or decapsulation with a private one, as the
// mode says.
func ibmKEM(u call, key any, mode p11.IBMKEMMode, ciphertext []byte) (shared, made []byte, err error) {
	if mode == p11.CK_IBM_ML_KEM_ENCAPSULATE {
		k, err := pqcKey[*pqc.PublicKey](u, key)
		if err != nil {
			return nil, nil, err
		}
		made, shared, err = k.Encapsulate()
		if err != nil {
			return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %v", k.Name, err)
		}
		return shared, made, nil
	}
	k, err := pqcKey[*pqc.PrivateKey](u, key)
	switch {
	case err != nil:
		return nil, nil, err
	case len(ciphertext) != k.CiphertextSize:
		return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "ciphertext= of %s has %d bytes, not %d", k.Name, k.CiphertextSize, len(ciphertext))
	}
	if shared, err = k.Decapsulate(ciphertext); err != nil {
		return nil, nil, p11.Errorf(p11.CKR_FUNCTION_FAILED, "%s: %v", k.Name, err)
	}
	return shared, nil, nil
}

// ibmKey makes the key of secrets one behind the other. Without a key derivation function
// it is their beginning, where that of ECDH alone is the end.
func ibmKey(kdf p11.KDF, shared []byte, want wanted, secrets ...[]byte) ([]byte, error) {
	s, err := stretcherOf(kdf, shared)
	if err != nil {
		return nil, err
	}
	z := slices.Concat(secrets...)
	if s.hash == 0 {
		return leading(z, want.n, want.kt)
	}
	defer wipe(z)
	return s.key(z, want.n, want.kt)
}

// ibmMLKEM is the family of CKM_IBM_ML_KEM, whose secret may have that of another key
// behind it or before it.
func ibmMLKEM() family {
	return family{deriveAll: func(u call, base any, wants []wanted) ([][]byte, []byte, error) {
		p, err := param[*p11.IBMMLKEMParams](u)
		if err != nil {
			return nil, nil, err
		}
		var other []byte
		if u.others[0] != nil {
			if other, err = secretOf(u.others[0]); err != nil {
				return nil, nil, err
			}
		}
		shared, made, err := ibmKEM(u, base, p.Mode, p.Ciphertext)
		if err != nil {
			return nil, nil, err
		}
		defer wipe(shared)
		first, second := other, shared
		if p.Prepend {
			first, second = shared, other
		}
		value, err := ibmKey(p.KDF, p.SharedData, wants[0], first, second)
		return [][]byte{value}, made, err
	}}
}

// ibmMLKEMWithECDH is the family of CKM_IBM_ML_KEM_WITH_ECDH: before the secret of ML-KEM
// is that of ECDH, with cofactor 1 as everywhere here.
func ibmMLKEMWithECDH() family {
	return family{deriveAll: func(u call, base any, wants []wanted) ([][]byte, []byte, error) {
		p, err := param[*p11.IBMMLKEMECDHParams](u)
		if err != nil {
			return nil, nil, err
		}
		k, err := keyOf[ecAgreer](u.others[0])
		if err != nil {
			return nil, nil, err
		}
		z, err := k.agree(u.provider, p.PublicData)
		if err != nil {
			return nil, nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public: %v", err)
		}
		defer wipe(z)
		shared, made, err := ibmKEM(u, base, p.Mode, p.Ciphertext)
		if err != nil {
			return nil, nil, err
		}
		defer wipe(shared)
		value, err := ibmKey(p.KDF, p.SharedData, wants[0], z, shared)
		return [][]byte{value}, made, err
	}}
}
