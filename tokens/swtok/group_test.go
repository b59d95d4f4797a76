package swtok

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// groupTemplate is what a pair is generated of.
func groupTemplate(g pkix.Group) (a p11.Attributes) {
	g.Put(&a)
	return a
}

// generatedIn makes a pair in a group.
func generatedIn(t *testing.T, c *Crypto, kt p11.KeyType, g pkix.Group) (pub, priv *tokens.Object) {
	t.Helper()
	m := p11.CKM_DH_PKCS_KEY_PAIR_GEN
	if kt == p11.CKK_DSA {
		m = p11.CKM_DSA_KEY_PAIR_GEN
	}
	return generatedPair(t, c, m, groupTemplate(g))
}

// Two keys agree on one secret, of each library with each; and who encapsulates for one
// is understood.
func TestDH(t *testing.T) {
	eachProvider(t, func(t *testing.T, a *Crypto) {
		for _, p := range providers(t) {
			b := NewCrypto(p, nil)
			for _, name := range []string{"modp1536", "ffdhe2048"} {
				g, _ := pkix.GroupNamed(name)
				pubA, privA := generatedIn(t, a, p11.CKK_DH, g)
				pubB, privB := generatedIn(t, b, p11.CKK_DH, g)
				for _, n := range []uint64{0, 16, 40} {
					template := secretTemplate(p11.CKK_GENERIC_SECRET, n)
					one, two := derivedDH(t, a, privA, publicValue(t, pubB), template), derivedDH(t, b, privB, publicValue(t, pubA), template)
					if want := cmp.Or(int(n), bytesOf(g.P.BitLen())); !bytes.Equal(one, two) || len(one) != want {
						t.Errorf("%s to %s, %s: %x and %x", a.provider.Name(), p.Name(), name, one, two)
					}
				}
				m, template := p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE}, secretTemplate(p11.CKK_AES, 32)
				ct, sent, err := a.EncapsulateKey(t.Context(), m, pubB, template)
				if err != nil {
					t.Fatal(err)
				}
				got, err := b.DecapsulateKey(t.Context(), m, privB, ct, template)
				if err != nil || !bytes.Equal(value(t, sent, p11.CKA_VALUE), value(t, got, p11.CKA_VALUE)) {
					t.Errorf("encapsulated: another key, %v", err)
				}
				if _, err := b.DecapsulateKey(t.Context(), m, privB, ct[1:], template); !errors.Is(err, p11.CKR_WRAPPED_KEY_LEN_RANGE) {
					t.Errorf("a short ciphertext: %v", err)
				}
				if _, err := b.DecapsulateKey(t.Context(), m, privB, make([]byte, len(ct)), template); !errors.Is(err, p11.CKR_WRAPPED_KEY_INVALID) {
					t.Errorf("a ciphertext of zeros: %v", err)
				}
			}
		}
	})
}

func publicValue(t *testing.T, o *tokens.Object) []byte {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	return bytes.Clone(value(t, a, p11.CKA_VALUE))
}

func derivedDH(t *testing.T, c *Crypto, key *tokens.Object, public []byte, template p11.Attributes) []byte {
	t.Helper()
	a, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam(public)}, key, template)
	if err != nil {
		t.Fatal(err)
	}
	return value(t, a, p11.CKA_VALUE)
}

// Public values that would tell of the private one, or are none, are refused.
func TestDHRefuses(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		g := tokentest.Group(p11.CKK_DH)
		_, priv := generatedIn(t, c, p11.CKK_DH, g)
		less := new(big.Int).Sub(g.P, big.NewInt(1))
		for name, public := range map[string][]byte{
			"nothing": {}, "0": {0}, "1": {1}, "-1": less.Bytes(), "the prime": g.P.Bytes(), "too long": bytes.Repeat([]byte{1}, 5000),
		} {
			m := p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam(public)}
			if _, err := c.DeriveKey(t.Context(), m, priv, secretTemplate(p11.CKK_AES, 16)); !errors.Is(err, p11.CKR_MECHANISM_PARAM_INVALID) {
				t.Errorf("%s: %v", name, err)
			}
		}
		m := p11.Mechanism{Type: p11.CKM_DH_PKCS_DERIVE, Param: p11.RawParam{5}}
		for name, test := range map[string]struct {
			template p11.Attributes
			want     p11.RV
		}{
			"too long": {secretTemplate(p11.CKK_GENERIC_SECRET, 193), p11.CKR_KEY_SIZE_RANGE},
			"AES":      {secretTemplate(p11.CKK_AES, 0), p11.CKR_TEMPLATE_INCOMPLETE},
		} {
			if _, err := c.DeriveKey(t.Context(), m, priv, test.template); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, test := range map[string]struct {
			change func(public, private *p11.Attributes)
			want   p11.RV
		}{
			"tiny prime":      {func(a, _ *p11.Attributes) { a.Set(p11.CKA_PRIME, []byte{23}) }, p11.CKR_DOMAIN_PARAMS_INVALID},
			"no base":         {func(a, _ *p11.Attributes) { a.Delete(p11.CKA_BASE) }, p11.CKR_TEMPLATE_INCOMPLETE},
			"base 1":          {func(a, _ *p11.Attributes) { a.Set(p11.CKA_BASE, []byte{1}) }, p11.CKR_DOMAIN_PARAMS_INVALID},
			"few value-bits":  {func(_, b *p11.Attributes) { b.SetUlong(p11.CKA_VALUE_BITS, 64) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
			"many value-bits": {func(_, b *p11.Attributes) { b.SetUlong(p11.CKA_VALUE_BITS, 1536) }, p11.CKR_ATTRIBUTE_VALUE_INVALID},
			"value-bits":      {func(_, b *p11.Attributes) { b.SetUlong(p11.CKA_VALUE_BITS, 200) }, p11.CKR_OK},
		} {
			a, b := groupTemplate(g), p11.Attributes{}
			test.change(&a, &b)
			_, made, err := c.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_DH_PKCS_KEY_PAIR_GEN}, a, b)
			if got := p11.RVOf(err); got != test.want {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil && new(big.Int).SetBytes(value(t, made, p11.CKA_VALUE)).BitLen() > 200 {
				t.Errorf("%s: the private value is longer", name)
			}
		}
	})
}

// What one library signs, the other and openssl(1) verify, and the reverse.
func TestDSA(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	g := tokentest.Group(p11.CKK_DSA)
	data := []byte("signed by one, verified by the other")
	m := p11.Mechanism{Type: p11.CKM_DSA_SHA256}
	eachProvider(t, func(t *testing.T, a *Crypto) {
		pub, priv := generatedIn(t, a, p11.CKK_DSA, g)
		dir := t.TempDir()
		file := func(name string, b []byte) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		attrs, err := priv.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		defer priv.Release()
		der, err := pkix.EncodePrivateKey(attrs)
		if err != nil {
			t.Fatal(err)
		}
		key, msg := file("key", der), file("msg", data)
		for range 20 {
			sig, err := signAll(a, m, priv, data)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range providers(t) {
				if err := verifyAll(NewCrypto(p, nil), m, copyKey(t, pub), data, sig); err != nil {
					t.Errorf("%s: %v", p.Name(), err)
				}
			}
			whole, err := pkix.ECDSARawToDER(sig)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), openssl, "dgst", "-sha256", "-prverify", key, "-keyform", "DER", "-signature", file("sig", whole), msg).CombinedOutput(); err != nil {
				t.Fatalf("openssl: %s, %v", out, err)
			}
			sig[3] ^= 1
			if err := verifyAll(a, m, pub, data, sig); !errors.Is(err, p11.CKR_SIGNATURE_INVALID) {
				t.Errorf("another signature: %v", err)
			}
		}
		their, err := exec.CommandContext(t.Context(), openssl, "dgst", "-sha256", "-sign", key, "-keyform", "DER", msg).Output()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := pkix.ECDSADERToRaw(their, 2*bytesOf(g.Q.BitLen()))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAll(a, m, pub, data, raw); err != nil {
			t.Errorf("what openssl signed: %v", err)
		}
	})
}

// A digest longer than the subprime counts by its leading bits, in both libraries.
func TestDSADigests(t *testing.T) {
	g := tokentest.Group(p11.CKK_DSA)
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedIn(t, c, p11.CKK_DSA, g)
		for _, n := range []int{1, 20, 28, 29, 64} {
			digest := bytes.Repeat([]byte{0xa5}, n)
			sig, err := signAll(c, p11.Mechanism{Type: p11.CKM_DSA}, priv, digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range providers(t) {
				if err := verifyAll(NewCrypto(p, nil), p11.Mechanism{Type: p11.CKM_DSA}, copyKey(t, pub), digest, sig); err != nil {
					t.Errorf("%d bytes, %s: %v", n, p.Name(), err)
				}
			}
		}
		if _, err := signAll(c, p11.Mechanism{Type: p11.CKM_DSA}, priv, make([]byte, 65)); !errors.Is(err, p11.CKR_DATA_LEN_RANGE) {
			t.Errorf("65 bytes: %v", err)
		}
	})
}

func TestGenerateGroup(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		bits := func(n, q uint64) (a p11.Attributes) {
			if n > 0 {
				a.SetUlong(p11.CKA_PRIME_BITS, n)
			}
			if q > 0 {
				a.SetUlong(p11.CKA_SUBPRIME_BITS, q)
			}
			return a
		}
		for _, test := range []struct {
			name     string
			template p11.Attributes
			want     p11.RV
		}{
			{"1024", bits(1024, 0), p11.CKR_OK},
			{"1024 and 160", bits(1024, 160), p11.CKR_OK},
			{"no size", bits(0, 0), p11.CKR_TEMPLATE_INCOMPLETE},
			{"short", bits(511, 0), p11.CKR_KEY_SIZE_RANGE},
			{"long", bits(3073, 0), p11.CKR_KEY_SIZE_RANGE},
			{"absurd", bits(1<<63, 0), p11.CKR_KEY_SIZE_RANGE},
			{"subprime of 161", bits(1024, 161), p11.CKR_KEY_SIZE_RANGE},
		} {
			a, err := c.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_DSA_PARAMETER_GEN}, test.template)
			if got := p11.RVOf(err); got != test.want {
				t.Errorf("%s: %v", test.name, err)
			}
			if err != nil {
				continue
			}
			g, err := pkix.GroupOf(p11.CKK_DSA, a)
			if err == nil {
				err = g.CheckPrimes()
			}
			if n, _ := a.Ulong(p11.CKA_SUBPRIME_BITS); err != nil || g.P.BitLen() != 1024 || g.Q.BitLen() != 160 || n != 160 {
				t.Errorf("%s: %v, %v", test.name, g, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		m := p11.Mechanism{Type: p11.CKM_DH_PKCS_PARAMETER_GEN}
		if lacks(c, m.Type) {
			m.Type = p11.CKM_DSA_PARAMETER_GEN
		}
		if _, err := c.GenerateKey(ctx, m, bits(3072, 0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("interrupted: %v", err)
		}
	})
}
