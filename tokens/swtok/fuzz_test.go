package swtok

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// FuzzECKey parses EC keys as a token directory or a template may give them:
// whatever is taken must also work.
func FuzzECKey(f *testing.F) {
	c := NewCrypto(GoProvider(), nil)
	for _, curve := range testCurves() {
		scalar, point, err := c.provider.GenerateEC(curve)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(curve.Params(), pkix.DERPoint(point), scalar)
		f.Add(append([]byte{0x13, 5}, curve.NIST...), point, append([]byte{0, 0}, scalar...))
	}
	f.Fuzz(func(t *testing.T, params, point, scalar []byte) {
		a := p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)},
			{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_EC)},
			{Type: p11.CKA_EC_PARAMS, Value: params},
			{Type: p11.CKA_EC_POINT, Value: point},
			{Type: p11.CKA_VALUE, Value: scalar},
		}
		if k, err := c.parseECPrivate(a); err == nil {
			sig, err := k.sign([]byte("digest"))
			if err != nil || len(sig) != 2*k.curve.Size() {
				t.Errorf("a key that was taken does not sign: %v", err)
			}
		}
		if k, err := c.parseECPublic(a); err == nil && k.verify([]byte("digest"), make([]byte, 2*k.curve.Size())) {
			t.Errorf("zeros are a signature")
		}
	})
}

// FuzzRSAKey does so for RSA.
func FuzzRSAKey(f *testing.F) {
	c := NewCrypto(GoProvider(), nil)
	_, priv := generatedRSA(f, c, 1024)
	a, err := priv.Acquire()
	if err != nil {
		f.Fatal(err)
	}
	get := func(t p11.AttributeType) []byte { b, _ := a.Get(t); return bytes.Clone(b) }
	f.Add(get(p11.CKA_MODULUS), get(p11.CKA_PUBLIC_EXPONENT), get(p11.CKA_PRIVATE_EXPONENT), get(p11.CKA_PRIME_1), get(p11.CKA_PRIME_2))
	f.Add(get(p11.CKA_MODULUS), get(p11.CKA_PUBLIC_EXPONENT), get(p11.CKA_PRIVATE_EXPONENT), []byte{}, []byte{})
	f.Add(get(p11.CKA_MODULUS), []byte{}, get(p11.CKA_PRIVATE_EXPONENT), []byte{}, []byte{})
	f.Add([]byte{33}, []byte{3}, []byte{7}, []byte{11}, []byte{3})
	priv.Release()
	f.Fuzz(func(t *testing.T, n, e, d, p, q []byte) {
		o := tokens.NewObject(tokens.NewHandle(), "", p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)},
			{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_RSA)},
			{Type: p11.CKA_MODULUS, Value: bytes.Clone(n)},
			{Type: p11.CKA_PUBLIC_EXPONENT, Value: bytes.Clone(e)},
			{Type: p11.CKA_PRIVATE_EXPONENT, Value: bytes.Clone(d)},
			{Type: p11.CKA_PRIME_1, Value: bytes.Clone(p)},
			{Type: p11.CKA_PRIME_2, Value: bytes.Clone(q)},
		})
		defer o.Drop()
		sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS}, o, []byte("x"))
		if err == nil && len(sig) != len(bytes.TrimLeft(n, "\x00")) {
			t.Errorf("a signature of %d bytes by a modulus of %d", len(sig), len(n))
		}
	})
}
