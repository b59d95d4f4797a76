package tpm

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/tpm/tpmtest"
)

// TestRefused: a private key that the TPM does not take is refused, made or imported, and
// never becomes one in software; the mechanisms for it are not listed.
func TestRefused(t *testing.T) {
	t.Parallel()
	tok := opened(t, tpmtest.Start(t, nil), place(t, t.TempDir(), DA))
	of := func(key any, err error) p11.Attributes {
		t.Helper()
		must(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		must(t, err)
		list, err := pkix.Parse(pkix.Auto, der, pkix.Options{})
		must(t, err)
		return list[0]
	}
	curve := func(oid ...byte) p11.Attributes {
		a := p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: slices.Clone(oid)}, {Type: p11.CKA_VALUE, Value: append(make([]byte, 31), 7)}}
		a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_PRIVATE_KEY))
		a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_EC))
		return a
	}
	_, edwards, edErr := ed25519.GenerateKey(rand.Reader)
	secp256k1 := []byte{6, 5, 0x2b, 0x81, 4, 0, 10}
	for name, c := range map[string]struct {
		key  p11.Attributes
		want p11.RV
	}{
		"RSA of 1536 bits":      {of(rsa.GenerateKey(rand.Reader, 1536)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"the public exponent 3": {of(exponent3(), nil), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"Ed25519":               {of(edwards, edErr), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"X25519":                {of(ecdh.X25519().GenerateKey(rand.Reader)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
		"secp256k1":             {curve(secp256k1...), p11.CKR_CURVE_NOT_SUPPORTED},
		"brainpoolP256r1":       {curve(6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7), p11.CKR_CURVE_NOT_SUPPORTED},
	} {
		t.Run(name, func(t *testing.T) {
			kept, err := tok.Adopt(t.Context(), c.key)
			if p11.RVOf(err) != c.want || kept != nil {
				t.Errorf("the key becomes %v, %v; want %v", kept, err, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		m      p11.MechanismType
		public p11.Attributes
		want   p11.RV
	}{
		"RSA of 1536 bits": {p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(1536))}}, p11.CKR_KEY_SIZE_RANGE},
		"RSA of 4096 bits": {p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(4096))}}, p11.CKR_KEY_SIZE_RANGE},
		"secp256k1":        {p11.CKM_EC_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: secp256k1}}, p11.CKR_CURVE_NOT_SUPPORTED},
		"Ed25519":          {p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, nil, p11.CKR_MECHANISM_INVALID},
		"ML-DSA":           {p11.CKM_ML_DSA_KEY_PAIR_GEN, nil, p11.CKR_MECHANISM_INVALID},
		"DH":               {p11.CKM_DH_PKCS_KEY_PAIR_GEN, nil, p11.CKR_MECHANISM_INVALID},
	} {
		t.Run("made, "+name, func(t *testing.T) {
			if _, private, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: c.m}, c.public, nil); p11.RVOf(err) != c.want || private.Has(blobAttribute) {
				t.Errorf("the key becomes %v, %v; want %v", private, err, c.want)
			}
		})
	}
	for _, m := range tok.Mechanisms() {
		switch m.Type {
		case p11.CKM_EDDSA, p11.CKM_ML_DSA, p11.CKM_ML_KEM, p11.CKM_DSA, p11.CKM_DH_PKCS_DERIVE, p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN:
			t.Errorf("%s is listed", m.Type)
		}
	}
}

// exponent3 is a key of 1024 bits with the public exponent 3.
func exponent3() *rsa.PrivateKey {
	one := big.NewInt(1)
	for {
		p, _ := rand.Prime(rand.Reader, 512)
		q, _ := rand.Prime(rand.Reader, 512)
		n := new(big.Int).Mul(p, q)
		d := new(big.Int).ModInverse(big.NewInt(3), new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)))
		if d != nil && n.BitLen() == 1024 {
			key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 3}, D: d, Primes: []*big.Int{p, q}}
			key.Precompute()
			return key
		}
	}
}
