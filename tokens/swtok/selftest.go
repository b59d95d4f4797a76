package swtok

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"p11fs/p11"
	"p11fs/tokens"
)

var _ tokens.SelfTester = (*Crypto)(nil)

// SelfTest checks known answers, the way that operations will come to the
// cryptography. It takes a few milliseconds.
func (c *Crypto) SelfTest(ctx context.Context) error { return selfTest(ctx, c) }

func selfTest(ctx context.Context, c tokens.Crypto) error {
	for _, test := range []struct {
		name string
		run  func(context.Context, tokens.Crypto) error
	}{
		{"SHA-256", testDigest},
		{"HMAC", testMAC},
		{"AES-CBC", testCBC},
		{"AES-GCM", testGCM},
		{"RSA", testRSA},
		{"ECDSA", testECDSA},
		{"ML-DSA", testMLDSA},
		{"ML-KEM", testMLKEM},
		{"EdDSA", testEdDSA},
		{"random numbers", testRandom},
	} {
		if err := test.run(ctx, c); err != nil {
			return fmt.Errorf("self-test of %s failed: %w", test.name, err)
		}
	}
	return nil
}

var (
	errWrongAnswer = errors.New("the answer is wrong")
	errBadAccepted = errors.New("a wrong signature was accepted")
)

// unhex decodes a constant of this package.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// testKey makes an object of attributes that belongs to nobody.
func testKey(class p11.ObjectClass, kind p11.KeyType, values map[p11.AttributeType][]byte) *tokens.Object {
	var a p11.Attributes
	a.SetUlong(p11.CKA_CLASS, uint64(class))
	a.SetUlong(p11.CKA_KEY_TYPE, uint64(kind))
	for t, v := range values {
		a.Set(t, v)
	}
	return tokens.NewObject(tokens.NewHandle(), "", a)
}

func testDigest(ctx context.Context, c tokens.Crypto) error {
	got, err := do(ctx, c, p11.CKF_DIGEST, p11.Mechanism{Type: p11.CKM_SHA256}, nil, []byte(testMessage), nil)
	return compare(got, unhex(testSHA256), err)
}

func testMAC(ctx context.Context, c tokens.Crypto) error {
	key := testKey(p11.CKO_SECRET_KEY, p11.CKK_GENERIC_SECRET, map[p11.AttributeType][]byte{p11.CKA_VALUE: unhex(testHMACKey)})
	defer key.Drop()
	got, err := sign(ctx, c, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, key)
	return compare(got, unhex(testHMAC), err)
}

func testCBC(ctx context.Context, c tokens.Crypto) error {
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(unhex(testAESIV))}
	return thereAndBack(ctx, c, m, unhex(testAESCBC))
}

func testGCM(ctx context.Context, c tokens.Crypto) error {
	m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: unhex(testGCMIV), AAD: []byte(testMessage), TagBits: 128}}
	return thereAndBack(ctx, c, m, unhex(testAESGCM))
}

// thereAndBack encrypts and decrypts testAESPlain.
func thereAndBack(ctx context.Context, c tokens.Crypto, m p11.Mechanism, want []byte) error {
	key := testKey(p11.CKO_SECRET_KEY, p11.CKK_AES, map[p11.AttributeType][]byte{p11.CKA_VALUE: unhex(testAESKey)})
	defer key.Drop()
	got, err := do(ctx, c, p11.CKF_ENCRYPT, m, key, []byte(testAESPlain), nil)
	if err := compare(got, want, err); err != nil {
		return err
	}
	got, err = do(ctx, c, p11.CKF_DECRYPT, m, key, want, nil)
	return compare(got, []byte(testAESPlain), err)
}

func testRSA(ctx context.Context, c tokens.Crypto) error {
	m := p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}
	values := map[p11.AttributeType][]byte{p11.CKA_MODULUS: unhex(rsaModulus), p11.CKA_PUBLIC_EXPONENT: {1, 0, 1}}
	pub := testKey(p11.CKO_PUBLIC_KEY, p11.CKK_RSA, values)
	defer pub.Drop()
	values[p11.CKA_PRIME_1], values[p11.CKA_PRIME_2] = unhex(rsaPrime1), unhex(rsaPrime2)
	key := testKey(p11.CKO_PRIVATE_KEY, p11.CKK_RSA, values)
	defer key.Drop()
	got, err := sign(ctx, c, m, key)
	if err := compare(got, unhex(rsaSignature), err); err != nil {
		return err
	}
	return verify(ctx, c, m, pub, unhex(rsaSignature))
}

func testECDSA(ctx context.Context, c tokens.Crypto) error {
	m := p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}
	pub := testKey(p11.CKO_PUBLIC_KEY, p11.CKK_EC, map[p11.AttributeType][]byte{
		p11.CKA_EC_PARAMS: unhex(ecParams), p11.CKA_EC_POINT: unhex(ecPoint),
	})
	defer pub.Drop()
	if err := verify(ctx, c, m, pub, unhex(ecSignature)); err != nil {
		return err
	}
	// A signature differs every time, so what is made is checked by verifying.
	key := testKey(p11.CKO_PRIVATE_KEY, p11.CKK_EC, map[p11.AttributeType][]byte{
		p11.CKA_EC_PARAMS: unhex(ecParams), p11.CKA_EC_POINT: unhex(ecPoint), p11.CKA_VALUE: unhex(ecScalar),
	})
	defer key.Drop()
	sig, err := sign(ctx, c, m, key)
	if err != nil {
		return err
	}
	return verify(ctx, c, m, pub, sig)
}

func testEdDSA(ctx context.Context, c tokens.Crypto) error {
	m := p11.Mechanism{Type: p11.CKM_EDDSA}
	values := map[p11.AttributeType][]byte{p11.CKA_EC_PARAMS: unhex(edParams), p11.CKA_EC_POINT: unhex(edPoint)}
	pub := testKey(p11.CKO_PUBLIC_KEY, p11.CKK_EC_EDWARDS, values)
	defer pub.Drop()
	values[p11.CKA_VALUE] = unhex(edSeed)
	key := testKey(p11.CKO_PRIVATE_KEY, p11.CKK_EC_EDWARDS, values)
	defer key.Drop()
	got, err := sign(ctx, c, m, key)
	if err := compare(got, unhex(edSignature), err); err != nil {
		return err
	}
	return verify(ctx, c, m, pub, unhex(edSignature))
}

// testRandom only finds a source that is stuck; its quality cannot be seen
// from what it gives.
func testRandom(ctx context.Context, c tokens.Crypto) error {
	var a, b [32]byte
	if err := errors.Join(c.GenerateRandom(ctx, a[:]), c.GenerateRandom(ctx, b[:])); err != nil {
		return err
	}
	if a == b || a == [32]byte{} {
		return errors.New("the generator repeats itself")
	}
	return nil
}

// sign signs testMessage.
func sign(ctx context.Context, c tokens.Crypto, m p11.Mechanism, key *tokens.Object) ([]byte, error) {
	return do(ctx, c, p11.CKF_SIGN, m, key, []byte(testMessage), nil)
}

// verify checks that sig is a signature of testMessage, and that one with
// another bit is not.
func verify(ctx context.Context, c tokens.Crypto, m p11.Mechanism, key *tokens.Object, sig []byte) error {
	if _, err := do(ctx, c, p11.CKF_VERIFY, m, key, []byte(testMessage), sig); err != nil {
		return err
	}
	bad := bytes.Clone(sig)
	bad[len(bad)-1] ^= 1
	switch _, err := do(ctx, c, p11.CKF_VERIFY, m, key, []byte(testMessage), bad); {
	case err == nil:
		return errBadAccepted
	case !errors.Is(err, p11.CKR_SIGNATURE_INVALID):
		return err
	}
	return nil
}

// do is one whole operation.
func do(ctx context.Context, c tokens.Crypto, use p11.Flags, m p11.Mechanism, key *tokens.Object, data, sig []byte) ([]byte, error) {
	op, err := c.Begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	out, err := op.Update(ctx, data)
	if err != nil {
		return nil, err
	}
	last, err := op.Final(ctx, sig)
	return append(out, last...), err
}

func compare(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		err = errWrongAnswer
	}
	return err
}
