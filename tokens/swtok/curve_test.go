package swtok

import (
	"bytes"
	"crypto"
	"os/exec"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// TestCurveHashes signs data with each hash on each curve, and checks the signature over
// the digest, of which the leftmost bits count (FIPS 186-5 §6.4).
func TestCurveHashes(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			pub, priv := generatedEC(t, c, curve)
			for _, h := range p11.Hashes() {
				if h.Go == 0 || h.ECDSA == 0 {
					continue
				}
				sig, err := signAll(c, p11.Mechanism{Type: h.ECDSA}, priv, []byte("data"))
				if err != nil {
					t.Fatalf("%s on %s: %v", h.ECDSA.Short(), curve.Name, err)
				}
				for _, use := range []struct {
					m    p11.MechanismType
					data []byte
				}{{h.ECDSA, []byte("data")}, {p11.CKM_ECDSA, sumOf(h.Go, "data")}} {
					if err := verifyAll(c, p11.Mechanism{Type: use.m}, pub, use.data, sig); err != nil {
						t.Errorf("%s on %s: %s: %v", h.ECDSA.Short(), curve.Name, use.m.Short(), err)
					}
				}
				if err := verifyAll(c, p11.Mechanism{Type: h.ECDSA}, pub, []byte("date"), sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
					t.Errorf("%s on %s: other data: %v", h.ECDSA.Short(), curve.Name, err)
				}
			}
		}
	})
}

func sumOf(h crypto.Hash, data string) []byte {
	d := h.New()
	d.Write([]byte(data))
	return d.Sum(nil)
}

// TestAdoptCurve is the creation of keys on every curve: what belongs to a key is checked
// and added, whether Go's library has the curve or not.
func TestAdoptCurve(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			pub, priv := generatedEC(t, c, curve)
			other, _ := generatedEC(t, c, curve)
			whole, scalar := point(t, pub), attributeOf(t, priv, p11.CKA_VALUE)
			raw := whole[len(whole)-1-2*curve.Size():]
			compressed := slices.Concat([]byte{2 + raw[len(raw)-1]&1}, raw[1:1+curve.Size()])
			off := bytes.Clone(whole)
			off[len(off)-1] ^= 1
			key := func(class p11.ObjectClass, more ...p11.Attribute) p11.Attributes {
				return append(p11.Attributes{
					{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_EC)},
					{Type: p11.CKA_EC_PARAMS, Value: curve.Params()},
				}, more...)
			}
			at := func(b []byte) p11.Attribute { return p11.Attribute{Type: p11.CKA_EC_POINT, Value: b} }
			for _, test := range []struct {
				name string
				key  p11.Attributes
				want p11.RV
			}{
				{"public", key(p11.CKO_PUBLIC_KEY, at(whole)), p11.CKR_OK},
				{"bare point", key(p11.CKO_PUBLIC_KEY, at(raw)), p11.CKR_OK},
				{"compressed point", key(p11.CKO_PUBLIC_KEY, at(pkix.DERPoint(compressed))), p11.CKR_OK},
				{"bare compressed point", key(p11.CKO_PUBLIC_KEY, at(compressed)), p11.CKR_OK},
				{"private", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar)), p11.CKR_OK},
				{"zeros in front", key(p11.CKO_PRIVATE_KEY, tokentest.Value(slices.Concat([]byte{0, 0}, scalar))), p11.CKR_OK},
				{"private with its point", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar), at(raw)), p11.CKR_OK},
				{"point off the curve", key(p11.CKO_PUBLIC_KEY, at(off)), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"point at infinity", key(p11.CKO_PUBLIC_KEY, at([]byte{4, 1, 0})), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"private with another's point", key(p11.CKO_PRIVATE_KEY, tokentest.Value(scalar), at(point(t, other))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"no key", key(p11.CKO_PRIVATE_KEY, tokentest.Value(make([]byte, curve.Size()))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"above the order", key(p11.CKO_PRIVATE_KEY, tokentest.Value(bytes.Repeat([]byte{255}, curve.Size()))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
				{"too long", key(p11.CKO_PRIVATE_KEY, tokentest.Value(slices.Concat([]byte{1}, scalar))), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			} {
				a, err := c.Adopt(t.Context(), test.key)
				if p11.RVOf(err) != test.want {
					t.Errorf("%s, %s: %v, want %v", curve.Name, test.name, err, test.want)
				}
				if err != nil {
					continue
				}
				if got, _ := a.Get(p11.CKA_EC_POINT); !bytes.Equal(got, whole) {
					t.Errorf("%s, %s: the point is %x, want %x", curve.Name, test.name, got, whole)
				}
				if !a.Has(p11.CKA_PUBLIC_KEY_INFO) {
					t.Errorf("%s, %s: no public key info", curve.Name, test.name)
				}
			}
		}
	})
}

// attributeOf is a copy of an attribute of an object.
func attributeOf(t *testing.T, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return bytes.Clone(value(t, a, at))
}

// TestCurvePEM imports the keys that openssl makes, and wraps and unwraps them.
func TestCurvePEM(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, curve := range curvesOf(c) {
			group := map[string]string{"secp192r1": "prime192v1", "secp256r1": "prime256v1"}[curve.Name]
			if group == "" {
				group = curve.Name
			}
			file, err := exec.Command(program, "genpkey", "-algorithm", "EC", "-pkeyopt", "group:"+group).Output()
			if err != nil {
				t.Fatalf("%s: %v", group, err)
			}
			keys, err := pkix.Parse(pkix.Auto, file, pkix.Options{})
			if err != nil || len(keys) != 2 {
				t.Fatalf("%s: %d keys, %v", group, len(keys), err)
			}
			var objects []*tokens.Object
			for _, a := range keys {
				whole, err := c.Adopt(t.Context(), a.Clone())
				if err != nil {
					t.Fatalf("%s: %v", group, err)
				}
				objects = append(objects, tokentest.Object(t, whole))
			}
			sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, objects[0], []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyAll(c, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, objects[1], []byte("data"), sig); err != nil {
				t.Errorf("%s: %v", group, err)
			}
			kek := tokentest.Secret(t, p11.CKK_AES, make([]byte, 32))
			wrapped, err := c.WrapKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, kek, objects[0])
			if err != nil {
				t.Fatal(err)
			}
			back, err := c.UnwrapKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, kek, wrapped, privateTemplate(p11.CKK_EC))
			if err != nil || !bytes.Equal(value(t, back, p11.CKA_VALUE), attributeOf(t, objects[0], p11.CKA_VALUE)) {
				t.Errorf("%s: unwrapped: %v", group, err)
			}
		}
	})
}
