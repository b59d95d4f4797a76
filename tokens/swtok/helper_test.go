package swtok

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// The operations in the forms that tests read best.

func (c *Crypto) Digest(ctx context.Context, m p11.Mechanism) (tokentest.Digest, error) {
	return tokentest.Calls{Crypto: c}.Digest(ctx, m)
}

func (c *Crypto) Sign(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokentest.Signature, error) {
	return tokentest.Calls{Crypto: c}.Sign(ctx, m, key)
}

func (c *Crypto) Verify(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokentest.Verification, error) {
	return tokentest.Calls{Crypto: c}.Verify(ctx, m, key)
}

func (c *Crypto) Encrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokentest.Cipher, error) {
	return tokentest.Calls{Crypto: c}.Encrypt(ctx, m, key)
}

func (c *Crypto) Decrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokentest.Cipher, error) {
	return tokentest.Calls{Crypto: c}.Decrypt(ctx, m, key)
}

func (c *Crypto) SignRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	return tokentest.Calls{Crypto: c}.SignRecover(ctx, m, key, data)
}

func (c *Crypto) VerifyRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, signature []byte) ([]byte, error) {
	return tokentest.Calls{Crypto: c}.VerifyRecover(ctx, m, key, signature)
}

// providers returns every provider of this machine.
func providers(t testing.TB) []Provider {
	t.Helper()
	ps := []Provider{GoProvider()}
	for _, file := range []string{"libcrypto.so.3", "libcrypto.so.1.1"} {
		if p, err := loadLibcrypto(file); err == nil {
			return append(ps, p)
		}
	}
	t.Log("no libcrypto on this machine: only Go's library is tested")
	return ps
}

// eachProvider runs a test with every provider.
func eachProvider(t *testing.T, f func(*testing.T, *Crypto)) {
	for _, p := range providers(t) {
		t.Run(p.Name(), func(t *testing.T) { f(t, NewCrypto(p, nil)) })
	}
}

// step is the length of parts of the helpers below: odd, so that blocks and
// parts never agree.
const step = 23

func parts(b []byte, f func([]byte) error) error {
	for len(b) > step {
		if err := f(b[:step]); err != nil {
			return err
		}
		b = b[step:]
	}
	return f(b)
}

func signAll(c *Crypto, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	s, err := c.Sign(context.Background(), m, key)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := parts(data, s.Update); err != nil {
		return nil, err
	}
	return s.Final()
}

func verifyAll(c *Crypto, m p11.Mechanism, key *tokens.Object, data, sig []byte) error {
	v, err := c.Verify(context.Background(), m, key)
	if err != nil {
		return err
	}
	defer v.Close()
	if err := parts(data, v.Update); err != nil {
		return err
	}
	return v.Final(sig)
}

func cryptAll(op tokentest.Cipher, data []byte) ([]byte, error) {
	defer op.Close()
	var out []byte
	err := parts(data, func(b []byte) error {
		x, err := op.Update(b)
		out = append(out, x...)
		return err
	})
	if err != nil {
		return nil, err
	}
	last, err := op.Final()
	return append(out, last...), err
}

func encryptAll(c *Crypto, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	op, err := c.Encrypt(context.Background(), m, key)
	if err != nil {
		return nil, err
	}
	return cryptAll(op, data)
}

func decryptAll(c *Crypto, m p11.Mechanism, key *tokens.Object, data []byte) ([]byte, error) {
	op, err := c.Decrypt(context.Background(), m, key)
	if err != nil {
		return nil, err
	}
	return cryptAll(op, data)
}

// testCurves are P-256, P-384 and P-521.
func testCurves() []p11.Curve {
	return slices.DeleteFunc(p11.Curves(), func(c p11.Curve) bool {
		return c.ECDH == nil || c.KeyType != p11.CKK_EC
	})
}

// curvesOf are all Weierstrass curves of a provider.
func curvesOf(c *Crypto) []p11.Curve {
	return slices.DeleteFunc(p11.Curves(), func(curve p11.Curve) bool {
		_, err := c.curveOf(curve.Params())
		return err != nil
	})
}

// generatedRSA and generatedEC make a key pair with the token's own mechanism.
func generatedRSA(t testing.TB, c *Crypto, bits int) (pub, priv *tokens.Object) {
	t.Helper()
	return generatedPair(t, c, p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(uint64(bits))}})
}

func generatedEC(t testing.TB, c *Crypto, curve p11.Curve) (pub, priv *tokens.Object) {
	t.Helper()
	return generatedPair(t, c, p11.CKM_EC_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
}

func generatedPair(t testing.TB, c *Crypto, m p11.MechanismType, public p11.Attributes) (pub, priv *tokens.Object) {
	t.Helper()
	a, b, err := c.GenerateKeyPair(context.Background(), p11.Mechanism{Type: m}, public, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tokentest.Object(t, a), tokentest.Object(t, b)
}

// lacks says whether Go's library has nothing for a mechanism, so that it is not listed.
func lacks(c *Crypto, m p11.MechanismType) bool { return c.rows[m] == nil && c.provider.Name() == "go" }

func curveNamed(t *testing.T, name string) p11.Curve {
	c, ok := p11.CurveNamed(name)
	if !ok {
		t.Fatalf("no curve %s", name)
	}
	return c
}

// secretTemplate describes a secret key; a length of 0 is left out.
func secretTemplate(kt p11.KeyType, length uint64) p11.Attributes {
	a := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}
	if length != 0 {
		a.SetUlong(p11.CKA_VALUE_LEN, length)
	}
	return a
}

var errDiffers = errors.New("the result differs")

func same(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		return errDiffers
	}
	return err
}
