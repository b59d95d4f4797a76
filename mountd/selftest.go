package mountd

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"p11fs/p11"
	"p11fs/tokens"
)

// selfTest checks known answers of the token's cryptography, the way that
// operations will come to it. It takes a few milliseconds. A token that fails
// it must not be served.
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
	d, err := c.Digest(ctx, p11.Mechanism{Type: p11.CKM_SHA256})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Update([]byte(testMessage)); err != nil {
		return err
	}
	got, err := d.Final()
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
	op, err := c.Encrypt(ctx, m, key)
	got, err := crypt(op, err, []byte(testAESPlain))
	if err := compare(got, want, err); err != nil {
		return err
	}
	op, err = c.Decrypt(ctx, m, key)
	got, err = crypt(op, err, want)
	return compare(got, []byte(testAESPlain), err)
}

func testRSA(ctx context.Context, c tokens.Crypto) error {
	public := map[p11.AttributeType][]byte{
		p11.CKA_MODULUS:         unhex(rsaModulus),
		p11.CKA_PUBLIC_EXPONENT: {1, 0, 1},
	}
	private := map[p11.AttributeType][]byte{
		p11.CKA_MODULUS:          unhex(rsaModulus),
		p11.CKA_PUBLIC_EXPONENT:  {1, 0, 1},
		p11.CKA_PRIVATE_EXPONENT: unhex(rsaPrivateExponent),
		p11.CKA_PRIME_1:          unhex(rsaPrime1),
		p11.CKA_PRIME_2:          unhex(rsaPrime2),
		p11.CKA_EXPONENT_1:       unhex(rsaExponent1),
		p11.CKA_EXPONENT_2:       unhex(rsaExponent2),
		p11.CKA_COEFFICIENT:      unhex(rsaCoefficient),
	}
	m := p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}
	key := testKey(p11.CKO_PRIVATE_KEY, p11.CKK_RSA, private)
	defer key.Drop()
	got, err := sign(ctx, c, m, key)
	if err := compare(got, unhex(rsaSignature), err); err != nil {
		return err
	}
	pub := testKey(p11.CKO_PUBLIC_KEY, p11.CKK_RSA, public)
	defer pub.Drop()
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
	op, err := c.Sign(ctx, m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	if err := op.Update([]byte(testMessage)); err != nil {
		return nil, err
	}
	return op.Final()
}

// verify checks that sig is a signature of testMessage, and that one with
// another bit is not.
func verify(ctx context.Context, c tokens.Crypto, m p11.Mechanism, key *tokens.Object, sig []byte) error {
	check := func(sig []byte) error {
		op, err := c.Verify(ctx, m, key)
		if err != nil {
			return err
		}
		defer op.Close()
		if err := op.Update([]byte(testMessage)); err != nil {
			return err
		}
		return op.Final(sig)
	}
	if err := check(sig); err != nil {
		return err
	}
	bad := bytes.Clone(sig)
	bad[len(bad)-1] ^= 1
	switch err := check(bad); {
	case err == nil:
		return errBadAccepted
	case !errors.Is(err, p11.CKR_SIGNATURE_INVALID):
		return err
	}
	return nil
}

// crypt runs one cipher operation over in.
func crypt(op tokens.Cipher, err error, in []byte) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer op.Close()
	out, err := op.Update(in)
	if err != nil {
		return nil, err
	}
	last, err := op.Final()
	return append(out, last...), err
}

func compare(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		err = errWrongAnswer
	}
	return err
}
