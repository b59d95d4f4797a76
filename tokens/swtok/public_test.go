package swtok

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// TestPublicHalf derives public keys, of every curve and of RSA, and compares them with
// what was generated. What the key says of its public half is not believed.
func TestPublicHalf(t *testing.T) {
	m := p11.Mechanism{Type: p11.CKM_PUB_KEY_FROM_PRIV_KEY}
	template := func(kt p11.KeyType) p11.Attributes {
		return p11.Attributes{
			{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
			{Type: p11.CKA_LABEL, Value: []byte("kept")},
		}
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		check := func(name string, kt p11.KeyType, pub, priv *tokens.Object) {
			t.Helper()
			a, err := c.DeriveKey(t.Context(), m, priv, template(kt))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if a.Label() != "kept" {
				t.Errorf("%s: the template is not in the result", name)
			}
			if a, err = c.Adopt(t.Context(), a); err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			was, err := pub.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			defer pub.Release()
			for _, at := range []p11.AttributeType{p11.CKA_EC_PARAMS, p11.CKA_EC_POINT, p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT} {
				got, _ := a.Get(at)
				if want, ok := was.Get(at); ok && !bytes.Equal(got, want) {
					t.Errorf("%s: %s is %x, want %x", name, at.Short(), got, want)
				}
			}
			for _, at := range []p11.AttributeType{p11.CKA_VALUE, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1} {
				if a.Has(at) {
					t.Errorf("%s: %s is in a public key", name, at.Short())
				}
			}
		}
		for _, curve := range p11.Curves() {
			generate := map[p11.KeyType]p11.MechanismType{
				p11.CKK_EC: p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC_EDWARDS: p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKK_EC_MONTGOMERY: p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
			}[curve.KeyType]
			if curve.KeyType == p11.CKK_EC && !c.provider.HasCurve(curve) {
				continue
			}
			pub, priv := generatedPair(t, c, generate, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
			check(curve.Name, curve.KeyType, pub, priv)
		}
		pub, priv := generatedRSA(t, c, 1024)
		check("rsa", p11.CKK_RSA, pub, priv)

		// A public key info of another's.
		pub, priv = generatedEC(t, c, testCurves()[0])
		other, _ := generatedEC(t, c, testCurves()[0])
		a, err := priv.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		b, err := other.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		whole := b.Clone()
		if err := pkix.Complete(&whole); err != nil {
			t.Fatal(err)
		}
		lie := tokentest.Object(t, a.With(p11.CKA_PUBLIC_KEY_INFO, value(t, whole, p11.CKA_PUBLIC_KEY_INFO)))
		priv.Release()
		other.Release()
		check("a lie", p11.CKK_EC, pub, lie)

		for name, base := range map[string]*tokens.Object{"public": pub, "secret": tokentest.Secret(t, p11.CKK_AES, make([]byte, 16))} {
			if _, err := c.DeriveKey(t.Context(), m, base, template(p11.CKK_EC)); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
				t.Errorf("of a %s key: %v", name, err)
			}
		}
	})
}
