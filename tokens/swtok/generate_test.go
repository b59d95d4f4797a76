package swtok

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

func TestGenerateKey(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for _, test := range []struct {
		name     string
		m        p11.MechanismType
		template p11.Attributes
		want     p11.RV
	}{
		{"AES-128", p11.CKM_AES_KEY_GEN, secretTemplate(p11.CKK_AES, 16), p11.CKR_OK},
		{"AES-256, only the length", p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(32))}}, p11.CKR_OK},
		{"AES without length", p11.CKM_AES_KEY_GEN, secretTemplate(p11.CKK_AES, 0), p11.CKR_TEMPLATE_INCOMPLETE},
		{"AES of 20 bytes", p11.CKM_AES_KEY_GEN, secretTemplate(p11.CKK_AES, 20), p11.CKR_KEY_SIZE_RANGE},
		{"AES absurd", p11.CKM_AES_KEY_GEN, secretTemplate(p11.CKK_AES, 1<<63), p11.CKR_KEY_SIZE_RANGE},
		{"AES as DES3", p11.CKM_AES_KEY_GEN, secretTemplate(p11.CKK_DES3, 24), p11.CKR_TEMPLATE_INCONSISTENT},
		{"AES as a public key", p11.CKM_AES_KEY_GEN, p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PUBLIC_KEY)}}, p11.CKR_TEMPLATE_INCONSISTENT},
		{"secret", p11.CKM_GENERIC_SECRET_KEY_GEN, secretTemplate(p11.CKK_GENERIC_SECRET, 33), p11.CKR_OK},
		{"secret of 9 bytes", p11.CKM_GENERIC_SECRET_KEY_GEN, secretTemplate(p11.CKK_GENERIC_SECRET, 9), p11.CKR_KEY_SIZE_RANGE},
		{"secret of 257 bytes", p11.CKM_GENERIC_SECRET_KEY_GEN, secretTemplate(p11.CKK_GENERIC_SECRET, 257), p11.CKR_KEY_SIZE_RANGE},
		{"a pair", p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil, p11.CKR_MECHANISM_INVALID},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := c.GenerateKey(t.Context(), p11.Mechanism{Type: test.m}, test.template)
			if got := p11.RVOf(err); got != test.want {
				t.Fatalf("got %v (%v), want %v", got, err, test.want)
			}
			if err != nil {
				return
			}
			n, _ := a.Ulong(p11.CKA_VALUE_LEN)
			if v := value(t, a, p11.CKA_VALUE); uint64(len(v)) != n || bytes.Equal(v, make([]byte, n)) {
				t.Errorf("value %x", v)
			}
			if test.template.Has(p11.CKA_VALUE) {
				t.Errorf("the template was changed")
			}
		})
	}
}

func TestGenerateRSA(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		bits := func(n uint64, e ...byte) p11.Attributes {
			a := p11.Attributes{{Type: p11.CKA_MODULUS_BITS, Value: p11.Ulong(n)}}
			if e != nil {
				a.Set(p11.CKA_PUBLIC_EXPONENT, e)
			}
			return a
		}
		long := p11.CKR_OK
		if c.provider.Name() == "go" {
			long = p11.CKR_ATTRIBUTE_VALUE_INVALID
		}
		for _, test := range []struct {
			name   string
			public p11.Attributes
			want   p11.RV
		}{
			{"512", bits(512), p11.CKR_OK},
			{"1024", bits(1024), p11.CKR_OK},
			{"1032, exponent 3", bits(1032, 3), p11.CKR_OK},
			{"1024, exponent 65537 with zeros", bits(1024, 0, 0, 1, 0, 1), p11.CKR_OK},
			{"2048", bits(2048, 1, 0, 1), p11.CKR_OK},
			{"no size", nil, p11.CKR_TEMPLATE_INCOMPLETE},
			{"256", bits(256), p11.CKR_KEY_SIZE_RANGE},
			{"16385", bits(16385), p11.CKR_KEY_SIZE_RANGE},
			{"exponent 1", bits(1024, 1), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			{"exponent 4", bits(1024, 4), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			{"exponent of 33 bits", bits(2048, 1, 0, 0, 0, 1), long},
			{"exponent of 257 bits", bits(1024, append([]byte{1}, bytes.Repeat([]byte{1}, 32)...)...), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			{"exponent of 65 bits, long modulus", bits(4096, append([]byte{1}, bytes.Repeat([]byte{1}, 8)...)...), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			{"as EC", bits(1024).With(p11.CKA_KEY_TYPE, p11.Ulong(p11.CKK_EC)), p11.CKR_TEMPLATE_INCONSISTENT},
		} {
			t.Run(test.name, func(t *testing.T) {
				a, b, err := c.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, test.public, nil)
				if got := p11.RVOf(err); got != test.want {
					t.Fatalf("got %v (%v), want %v", got, err, test.want)
				}
				if err != nil {
					return
				}
				want, _ := test.public.Ulong(p11.CKA_MODULUS_BITS)
				if got := new(big.Int).SetBytes(value(t, a, p11.CKA_MODULUS)).BitLen(); uint64(got) != want {
					t.Errorf("%d bits", got)
				}
				pub, priv := tokentest.Object(t, a), tokentest.Object(t, b)
				m := p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}
				sig, err := signAll(c, m, priv, []byte("x"))
				if err != nil {
					t.Fatal(err)
				}
				if err := verifyAll(c, m, pub, []byte("x"), sig); err != nil {
					t.Error(err)
				}
			})
		}
		t.Run("interrupted", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, _, err := c.GenerateKeyPair(ctx, p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, bits(4096, 3), nil)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			// The provider itself stops too, and not after the minutes that the key takes.
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := c.provider.GenerateRSA(ctx, maxRSABits, big.NewInt(defaultExponent)); err == nil {
				t.Error("the key was made all the same")
			}
		})
	})
}

func TestGenerateEC(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		type generation struct {
			name   string
			params []byte
			want   p11.RV
			curve  p11.Curve
		}
		tests := []generation{
			{"by name", append([]byte{0x13, 10}, "prime256v1"...), p11.CKR_OK, testCurves()[0]},
			{"by another name", append([]byte{0x13, 9}, "secp384r1"...), p11.CKR_OK, testCurves()[1]},
			{"unknown name", append([]byte{0x13, 2}, "no"...), p11.CKR_CURVE_NOT_SUPPORTED, p11.Curve{}},
			{"sect163k1", []byte{6, 5, 0x2b, 0x81, 4, 0, 1}, p11.CKR_CURVE_NOT_SUPPORTED, p11.Curve{}},
			{"explicit", []byte{0x30, 3, 2, 1, 1}, p11.CKR_DOMAIN_PARAMS_INVALID, p11.Curve{}},
			{"empty", []byte{}, p11.CKR_DOMAIN_PARAMS_INVALID, p11.Curve{}},
			{"none", nil, p11.CKR_TEMPLATE_INCOMPLETE, p11.Curve{}},
		}
		for _, curve := range p11.Curves() {
			want := p11.CKR_OK
			if !slices.ContainsFunc(curvesOf(c), func(has p11.Curve) bool { return has.Name == curve.Name }) {
				want = p11.CKR_CURVE_NOT_SUPPORTED
			}
			tests = append(tests, generation{curve.Name, curve.Params(), want, curve})
		}
		if n := len(curvesOf(c)); n != 4 && c.provider.Name() == "go" {
			t.Errorf("%d curves with Go's library", n)
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				var template p11.Attributes
				if test.params != nil {
					template.Set(p11.CKA_EC_PARAMS, test.params)
				}
				a, b, err := c.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, template, nil)
				if got := p11.RVOf(err); got != test.want {
					t.Fatalf("got %v (%v), want %v", got, err, test.want)
				}
				if err != nil {
					return
				}
				point, err := pkix.ECPublic(c.provider, test.curve, value(t, a, p11.CKA_EC_POINT))
				if err != nil || bytes.Equal(point, value(t, a, p11.CKA_EC_POINT)) {
					t.Errorf("the point is not DER")
				}
				if !bytes.Equal(value(t, a, p11.CKA_EC_PARAMS), test.curve.Params()) || len(value(t, b, p11.CKA_VALUE)) != test.curve.Size() {
					t.Errorf("attributes")
				}
				pub, priv := tokentest.Object(t, a), tokentest.Object(t, b)
				m := p11.Mechanism{Type: p11.CKM_ECDSA_SHA512}
				sig, err := signAll(c, m, priv, []byte("x"))
				if err != nil || len(sig) != 2*test.curve.Size() {
					t.Fatalf("%d bytes, %v", len(sig), err)
				}
				if err := verifyAll(c, m, pub, []byte("x"), sig); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// A private key of PKCS#11's least attributes serves as well as a whole one.
func TestLeastRSAKey(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedRSA(t, c, 1024)
		a, err := priv.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		defer priv.Release()
		base := []p11.AttributeType{p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_MODULUS}
		for _, test := range []struct {
			name string
			more []p11.AttributeType
			want p11.RV
		}{
			{"private exponent", []p11.AttributeType{p11.CKA_PRIVATE_EXPONENT}, p11.CKR_OK},
			{"both exponents", []p11.AttributeType{p11.CKA_PRIVATE_EXPONENT, p11.CKA_PUBLIC_EXPONENT}, p11.CKR_OK},
			{"primes and private exponent", []p11.AttributeType{p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_PRIVATE_EXPONENT}, p11.CKR_OK},
			{"primes and public exponent", []p11.AttributeType{p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_PUBLIC_EXPONENT}, p11.CKR_OK},
			{"primes", []p11.AttributeType{p11.CKA_PRIME_1, p11.CKA_PRIME_2}, p11.CKR_FUNCTION_FAILED},
			{"public exponent", []p11.AttributeType{p11.CKA_PUBLIC_EXPONENT}, p11.CKR_FUNCTION_FAILED},
		} {
			t.Run(test.name, func(t *testing.T) {
				var least p11.Attributes
				for _, at := range append(base, test.more...) {
					least.Set(at, bytes.Clone(value(t, a, at)))
				}
				m := p11.Mechanism{Type: p11.CKM_SHA1_RSA_PKCS}
				sig, err := signAll(c, m, tokentest.Object(t, least), []byte("x"))
				if got := p11.RVOf(err); got != test.want {
					t.Fatalf("got %v (%v), want %v", got, err, test.want)
				}
				if err == nil {
					if err := verifyAll(c, m, pub, []byte("x"), sig); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
}

func TestRandom(t *testing.T) {
	c := NewCrypto(GoProvider(), bytes.NewReader([]byte("given randomness")))
	b := make([]byte, 5)
	if err := c.GenerateRandom(t.Context(), b); err != nil || string(b) != "given" {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.GenerateRandom(t.Context(), make([]byte, 100)); !errors.Is(err, p11.CKR_FUNCTION_FAILED) {
		t.Errorf("spent: %v", err)
	}
	if _, ok := tokens.Crypto(c).(tokens.RandomSeeder); ok {
		t.Error("it takes a seed, which the kernel's generator has no use for")
	}
}
