package enginetest

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"p11fs/p11"
	"p11fs/tokens"
)

const (
	signing = p11.CKF_SIGN | p11.CKF_VERIFY
	cipher  = p11.CKF_ENCRYPT | p11.CKF_DECRYPT
	wrap    = p11.CKF_WRAP | p11.CKF_UNWRAP
)

// Mechanisms is tokens.Token's.
func (t *Token) Mechanisms() []p11.MechanismInfo {
	return []p11.MechanismInfo{
		{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN, MinKeySize: 1024, MaxKeySize: 4096, Flags: p11.CKF_GENERATE_KEY_PAIR},
		{Type: p11.CKM_EC_KEY_PAIR_GEN, MinKeySize: 256, MaxKeySize: 521, Flags: p11.CKF_GENERATE_KEY_PAIR},
		{Type: p11.CKM_AES_KEY_GEN, MinKeySize: 16, MaxKeySize: 32, Flags: p11.CKF_GENERATE},
		{Type: p11.CKM_GENERIC_SECRET_KEY_GEN, MinKeySize: 8, MaxKeySize: 4096, Flags: p11.CKF_GENERATE},
		{Type: p11.CKM_RSA_PKCS, MinKeySize: 1024, MaxKeySize: 4096, Flags: signing | cipher | p11.CKF_SIGN_RECOVER | p11.CKF_VERIFY_RECOVER},
		{Type: p11.CKM_SHA256_RSA_PKCS, MinKeySize: 1024, MaxKeySize: 4096, Flags: signing},
		{Type: p11.CKM_SHA256_RSA_PKCS_PSS, MinKeySize: 1024, MaxKeySize: 4096, Flags: signing},
		{Type: p11.CKM_RSA_PKCS_OAEP, MinKeySize: 1024, MaxKeySize: 4096, Flags: cipher},
		{Type: p11.CKM_ECDSA, MinKeySize: 256, MaxKeySize: 521, Flags: signing},
		{Type: p11.CKM_ECDSA_SHA256, MinKeySize: 256, MaxKeySize: 521, Flags: signing},
		{Type: p11.CKM_ECDH1_DERIVE, MinKeySize: 256, MaxKeySize: 521, Flags: p11.CKF_DERIVE},
		{Type: p11.CKM_AES_CBC, MinKeySize: 16, MaxKeySize: 32, Flags: cipher},
		{Type: p11.CKM_AES_CBC_PAD, MinKeySize: 16, MaxKeySize: 32, Flags: cipher | wrap},
		{Type: p11.CKM_AES_CTR, MinKeySize: 16, MaxKeySize: 32, Flags: cipher},
		{Type: p11.CKM_AES_GCM, MinKeySize: 16, MaxKeySize: 32, Flags: cipher},
		{Type: p11.CKM_SHA_1, Flags: p11.CKF_DIGEST},
		{Type: p11.CKM_SHA256, Flags: p11.CKF_DIGEST},
		{Type: p11.CKM_SHA384, Flags: p11.CKF_DIGEST},
		{Type: p11.CKM_SHA512, Flags: p11.CKF_DIGEST},
		{Type: p11.CKM_SHA256_HMAC, Flags: signing},
	}
}

func number(a p11.Attributes, t p11.AttributeType) *big.Int {
	b, _ := a.Get(t)
	return new(big.Int).SetBytes(b)
}

func rsaPublic(a p11.Attributes) (*rsa.PublicKey, error) {
	if kt, _ := a.KeyType(); kt != p11.CKK_RSA {
		return nil, p11.CKR_KEY_TYPE_INCONSISTENT
	}
	return &rsa.PublicKey{N: number(a, p11.CKA_MODULUS), E: int(number(a, p11.CKA_PUBLIC_EXPONENT).Int64())}, nil
}

func rsaPrivate(a p11.Attributes) (*rsa.PrivateKey, error) {
	pub, err := rsaPublic(a)
	if err != nil {
		return nil, err
	}
	k := &rsa.PrivateKey{
		PublicKey: *pub,
		D:         number(a, p11.CKA_PRIVATE_EXPONENT),
		Primes:    []*big.Int{number(a, p11.CKA_PRIME_1), number(a, p11.CKA_PRIME_2)},
	}
	k.Precompute()
	return k, nil
}

func ecCurve(a p11.Attributes) (elliptic.Curve, error) {
	if kt, _ := a.KeyType(); kt != p11.CKK_EC {
		return nil, p11.CKR_KEY_TYPE_INCONSISTENT
	}
	params, _ := a.Get(p11.CKA_EC_PARAMS)
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(params, &oid); err != nil {
		return nil, p11.CKR_DOMAIN_PARAMS_INVALID
	}
	switch oid.String() {
	case "1.2.840.10045.3.1.7":
		return elliptic.P256(), nil
	case "1.3.132.0.34":
		return elliptic.P384(), nil
	case "1.3.132.0.35":
		return elliptic.P521(), nil
	}
	return nil, p11.CKR_CURVE_NOT_SUPPORTED
}

func ecPrivate(a p11.Attributes) (*ecdsa.PrivateKey, error) {
	c, err := ecCurve(a)
	if err != nil {
		return nil, err
	}
	value, _ := a.Get(p11.CKA_VALUE)
	k, err := ecdsa.ParseRawPrivateKey(c, padLeft(value, (c.Params().BitSize+7)/8))
	if err != nil {
		return nil, p11.CKR_FUNCTION_FAILED
	}
	return k, nil
}

func ecPublic(a p11.Attributes) (*ecdsa.PublicKey, error) {
	c, err := ecCurve(a)
	if err != nil {
		return nil, err
	}
	der, _ := a.Get(p11.CKA_EC_POINT)
	var point []byte
	if _, err := asn1.Unmarshal(der, &point); err != nil {
		return nil, p11.CKR_FUNCTION_FAILED
	}
	k, err := ecdsa.ParseUncompressedPublicKey(c, point)
	if err != nil {
		return nil, p11.CKR_FUNCTION_FAILED
	}
	return k, nil
}

func padLeft(b []byte, n int) []byte {
	if len(b) >= n {
		return b
	}
	return append(make([]byte, n-len(b)), b...)
}

// GenerateKey is tokens.Crypto's.
func (t *Token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if err := t.enter(ctx, "GenerateKey"); err != nil {
		return nil, err
	}
	n, _ := template.Ulong(p11.CKA_VALUE_LEN)
	value := make([]byte, n)
	if _, err := rand.Read(value); err != nil {
		return nil, err
	}
	return template.With(p11.CKA_VALUE, value), nil
}

// GenerateKeyPair is tokens.Crypto's.
func (t *Token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	if err := t.enter(ctx, "GenerateKeyPair"); err != nil {
		return nil, nil, err
	}
	if m.Type == p11.CKM_RSA_PKCS_KEY_PAIR_GEN {
		bits, _ := public.Ulong(p11.CKA_MODULUS_BITS)
		if bits < 1024 || bits > 4096 {
			return nil, nil, p11.CKR_KEY_SIZE_RANGE
		}
		k, err := rsa.GenerateKey(rand.Reader, int(bits))
		if err != nil {
			return nil, nil, p11.CKR_FUNCTION_FAILED
		}
		return public.With(p11.CKA_MODULUS, k.N.Bytes()), private.Merge(RSAPrivate(k)), nil
	}
	c, err := ecCurve(public)
	if err != nil {
		return nil, nil, err
	}
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		return nil, nil, p11.CKR_FUNCTION_FAILED
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, nil, p11.CKR_FUNCTION_FAILED
	}
	value, err := k.Bytes()
	if err != nil {
		return nil, nil, p11.CKR_FUNCTION_FAILED
	}
	der, err := asn1.Marshal(point)
	if err != nil {
		return nil, nil, p11.CKR_FUNCTION_FAILED
	}
	params, _ := public.Get(p11.CKA_EC_PARAMS)
	return public.With(p11.CKA_EC_POINT, der),
		private.With(p11.CKA_EC_PARAMS, params).With(p11.CKA_VALUE, value), nil
}

// RSAPrivate returns the attributes that hold an RSA private key.
func RSAPrivate(k *rsa.PrivateKey) p11.Attributes {
	k.Precompute()
	return p11.Attributes{
		{Type: p11.CKA_MODULUS, Value: k.N.Bytes()},
		{Type: p11.CKA_PUBLIC_EXPONENT, Value: big.NewInt(int64(k.E)).Bytes()},
		{Type: p11.CKA_PRIVATE_EXPONENT, Value: k.D.Bytes()},
		{Type: p11.CKA_PRIME_1, Value: k.Primes[0].Bytes()},
		{Type: p11.CKA_PRIME_2, Value: k.Primes[1].Bytes()},
		{Type: p11.CKA_EXPONENT_1, Value: k.Precomputed.Dp.Bytes()},
		{Type: p11.CKA_EXPONENT_2, Value: k.Precomputed.Dq.Bytes()},
		{Type: p11.CKA_COEFFICIENT, Value: k.Precomputed.Qinv.Bytes()},
	}
}

// with calls f with the attributes of key, held.
func with(key *tokens.Object, f func(p11.Attributes) error) error {
	a, err := key.Acquire()
	if err != nil {
		return err
	}
	defer key.Release()
	return f(a)
}

// WrapKey is tokens.Crypto's: AES-CBC-PAD over the value, or PKCS#8.
func (t *Token) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) (out []byte, err error) {
	if err := t.enter(ctx, "WrapKey"); err != nil {
		return nil, err
	}
	var plain []byte
	err = with(key, func(a p11.Attributes) error {
		switch class, _ := a.Class(); class {
		case p11.CKO_SECRET_KEY:
			plain, _ = a.Get(p11.CKA_VALUE)
			return nil
		}
		var k any
		var err error
		if kt, _ := a.KeyType(); kt == p11.CKK_RSA {
			k, err = rsaPrivate(a)
		} else {
			k, err = ecPrivate(a)
		}
		if err != nil {
			return err
		}
		plain, err = x509.MarshalPKCS8PrivateKey(k)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t.crypt(ctx, m, wrapping, plain, true)
}

// UnwrapKey is tokens.Crypto's.
func (t *Token) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	if err := t.enter(ctx, "UnwrapKey"); err != nil {
		return nil, err
	}
	plain, err := t.crypt(ctx, m, unwrapping, wrapped, false)
	if err != nil {
		return nil, p11.CKR_WRAPPED_KEY_INVALID
	}
	if class, _ := template.Class(); class == p11.CKO_SECRET_KEY {
		return template.With(p11.CKA_VALUE, plain), nil
	}
	k, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, p11.CKR_WRAPPED_KEY_INVALID
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		return template.Merge(RSAPrivate(k)), nil
	case *ecdsa.PrivateKey:
		params, _ := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
		value, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		return template.With(p11.CKA_EC_PARAMS, params).With(p11.CKA_VALUE, value), nil
	}
	return nil, p11.CKR_WRAPPED_KEY_INVALID
}

func (t *Token) crypt(ctx context.Context, m p11.Mechanism, key *tokens.Object, in []byte, encrypt bool) ([]byte, error) {
	begin := t.Decrypt
	if encrypt {
		begin = t.Encrypt
	}
	c, err := begin(ctx, m, key)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out, err := c.Update(in)
	if err != nil {
		return nil, err
	}
	rest, err := c.Final()
	return append(out, rest...), err
}

// DeriveKey is tokens.Crypto's: ECDH without a key derivation function.
func (t *Token) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (out p11.Attributes, err error) {
	if err := t.enter(ctx, "DeriveKey"); err != nil {
		return nil, err
	}
	params, ok := m.Param.(*p11.ECDH1Params)
	if !ok {
		return nil, p11.CKR_MECHANISM_PARAM_INVALID
	}
	err = with(base, func(a p11.Attributes) error {
		k, err := ecPrivate(a)
		if err != nil {
			return err
		}
		own, err := k.ECDH()
		if err != nil {
			return p11.CKR_KEY_TYPE_INCONSISTENT
		}
		var other *ecdh.PublicKey
		if other, err = own.Curve().NewPublicKey(params.PublicData); err != nil {
			return p11.CKR_MECHANISM_PARAM_INVALID
		}
		shared, err := own.ECDH(other)
		if err != nil {
			return p11.CKR_MECHANISM_PARAM_INVALID
		}
		if n, ok := template.Ulong(p11.CKA_VALUE_LEN); ok && n < uint64(len(shared)) {
			shared = shared[uint64(len(shared))-n:]
		}
		out = template.With(p11.CKA_VALUE, shared)
		return nil
	})
	return out, err
}

// digests says which hash a digest mechanism is.
func digests(m p11.MechanismType) (crypto.Hash, bool) {
	switch m {
	case p11.CKM_SHA_1:
		return crypto.SHA1, true
	case p11.CKM_SHA256:
		return crypto.SHA256, true
	case p11.CKM_SHA384:
		return crypto.SHA384, true
	case p11.CKM_SHA512:
		return crypto.SHA512, true
	}
	return 0, false
}
