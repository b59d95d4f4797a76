package swtok

import (
	"bytes"
	"context"
	"crypto/sha256"

	"p11fs/p11"
	"p11fs/p11/pqc"
	"p11fs/tokens"
)

// The known answers are those of OpenSSL 3.5, too: the seed's public key takes the
// signature, and its private key gives the secret.
const (
	pqcSeed      = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	mldsaSigned  = "9c09f0ef1a6d60a7329bd31373d9c8db1257a154b55dc7c9201562e0a9d86585" // SHA-256 of the signature of testMessage
	mlkemRefused = "750a66946dd1a6bd6297724e59a789ad38f85ca4cd9e3e67bc1cc7a979fb0cf6" // secret of a ciphertext of zeros, with a seed of twice those bytes
)

// pqcTestPair makes a pair of a seed. The caller drops both.
func pqcTestPair(name string, seed []byte) (pub, priv *tokens.Object, err error) {
	s, _ := pqc.SetNamed(name)
	p, err := s.Expand(seed)
	if err != nil {
		return nil, nil, err
	}
	set := p11.Ulong(s.Number)
	pub = testKey(p11.CKO_PUBLIC_KEY, s.KeyType, map[p11.AttributeType][]byte{p11.CKA_PARAMETER_SET: set, p11.CKA_VALUE: p.Public})
	priv = testKey(p11.CKO_PRIVATE_KEY, s.KeyType, map[p11.AttributeType][]byte{p11.CKA_PARAMETER_SET: bytes.Clone(set), p11.CKA_VALUE: p.Private})
	return pub, priv, nil
}

func testMLDSA(ctx context.Context, c tokens.Crypto) error {
	pub, priv, err := pqcTestPair("ml-dsa-44", unhex(pqcSeed))
	if err != nil {
		return err
	}
	defer pub.Drop()
	defer priv.Drop()
	m := p11.Mechanism{Type: p11.CKM_ML_DSA, Param: &p11.SignContext{Hedge: p11.CKH_DETERMINISTIC_REQUIRED}}
	sig, err := sign(ctx, c, m, priv)
	sum := sha256.Sum256(sig)
	if err := compare(sum[:], unhex(mldsaSigned), err); err != nil {
		return err
	}
	return verify(ctx, c, m, pub, sig)
}

func testMLKEM(ctx context.Context, c tokens.Crypto) error {
	k, ok := c.(tokens.Encapsulator)
	if !ok {
		return nil
	}
	pub, priv, err := pqcTestPair("ml-kem-512", unhex(pqcSeed+pqcSeed))
	if err != nil {
		return err
	}
	defer pub.Drop()
	defer priv.Drop()
	m := p11.Mechanism{Type: p11.CKM_ML_KEM}
	template := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
	}
	open := func(ciphertext []byte) ([]byte, error) {
		a, err := k.DecapsulateKey(ctx, m, priv, ciphertext, template)
		value, _ := a.Get(p11.CKA_VALUE)
		return value, err
	}
	got, err := open(make([]byte, 768))
	if err := compare(got, unhex(mlkemRefused), err); err != nil {
		return err
	}
	ciphertext, a, err := k.EncapsulateKey(ctx, m, pub, template)
	if err != nil {
		return err
	}
	want, _ := a.Get(p11.CKA_VALUE)
	got, err = open(ciphertext)
	return compare(got, want, err)
}
