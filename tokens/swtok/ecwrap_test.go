package swtok

import (
	"bytes"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

// TestECDHWrap takes what each curve wraps apart with the mechanisms that it is made of
// (PKCS#11 v3.1 §6.3.20): CKM_ECDH1_DERIVE with the point in front, and
// CKM_AES_KEY_WRAP_KWP with what comes of it.
func TestECDHWrap(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		montgomery := []p11.Curve{curveNamed(t, "x25519"), curveNamed(t, "x448")}
		for _, curve := range append(curvesOf(c), montgomery...) {
			generate, types := p11.CKM_EC_KEY_PAIR_GEN, []p11.MechanismType{p11.CKM_ECDH_AES_KEY_WRAP, p11.CKM_ECDH_COF_AES_KEY_WRAP}
			n := 1 + 2*curve.Size()
			if curve.KeyType == p11.CKK_EC_MONTGOMERY {
				generate, types = p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, []p11.MechanismType{p11.CKM_ECDH_AES_KEY_WRAP, p11.CKM_ECDH_X_AES_KEY_WRAP}
				n = curve.KeySize()
			}
			pub, priv := generatedPair(t, c, generate, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
			key := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("a key of some length"))
			for _, m := range types {
				for _, p := range []p11.ECDHAESKeyWrapParams{
					{AESKeyBits: 256, KDF: p11.CKD_SHA256_KDF, SharedData: []byte("shared")},
					{AESKeyBits: 192, KDF: p11.CKD_SHA3_512_KDF_SP800},
					{AESKeyBits: 128, KDF: p11.CKD_NULL},
				} {
					wrap := p11.Mechanism{Type: m, Param: &p}
					if err := wrap.Validate(); err != nil {
						t.Fatal(err)
					}
					wrapped, err := c.WrapKey(t.Context(), wrap, pub, key)
					if err != nil {
						t.Fatalf("%s on %s: %v", m.Short(), curve.Name, err)
					}
					unwrapped, err := c.UnwrapKey(t.Context(), wrap, priv, wrapped, secretTemplate(p11.CKK_GENERIC_SECRET, 0))
					if err != nil || string(value(t, unwrapped, p11.CKA_VALUE)) != "a key of some length" {
						t.Fatalf("%s on %s: %v", m.Short(), curve.Name, err)
					}
					aes, err := c.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{
						KDF: p.KDF, SharedData: p.SharedData, PublicData: wrapped[:n],
					}}, priv, secretTemplate(p11.CKK_AES, p.AESKeyBits/8))
					if err != nil {
						t.Fatal(err)
					}
					kwp := p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}
					apart, err := c.UnwrapKey(t.Context(), kwp, tokentest.Object(t, aes), wrapped[n:], secretTemplate(p11.CKK_GENERIC_SECRET, 0))
					if err != nil || string(value(t, apart, p11.CKA_VALUE)) != "a key of some length" {
						t.Errorf("%s on %s, taken apart: %v", m.Short(), curve.Name, err)
					}
					again, err := c.WrapKey(t.Context(), wrap, pub, key)
					if err != nil || bytes.Equal(again[:n], wrapped[:n]) {
						t.Errorf("%s on %s: the one-time key comes twice: %v", m.Short(), curve.Name, err)
					}
					if curve.KeyType != p11.CKK_EC {
						continue
					}
					small := slices.Concat([]byte{2 + wrapped[n-1]&1}, wrapped[1:1+curve.Size()], wrapped[n:])
					if _, err := c.UnwrapKey(t.Context(), wrap, priv, small, secretTemplate(p11.CKK_GENERIC_SECRET, 0)); err != nil {
						t.Errorf("%s on %s, compressed: %v", m.Short(), curve.Name, err)
					}
				}
			}
		}
	})
}

// TestECDHWrapRules has the mechanisms refuse keys of other curves, and a secret that is
// too short for the key.
func TestECDHWrapRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		ec, _ := generatedEC(t, c, curveNamed(t, "P-224"))
		x, _ := generatedPair(t, c, p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curveNamed(t, "x25519").Params()}})
		key := tokentest.Secret(t, p11.CKK_AES, make([]byte, 16))
		for _, test := range []struct {
			name  string
			m     p11.MechanismType
			under *tokens.Object
			p     p11.ECDHAESKeyWrapParams
			want  p11.RV
		}{
			{"Montgomery key", p11.CKM_ECDH_COF_AES_KEY_WRAP, x, *ecdhAESParam(), p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
			{"Weierstrass key", p11.CKM_ECDH_X_AES_KEY_WRAP, ec, *ecdhAESParam(), p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
			{"short secret", p11.CKM_ECDH_AES_KEY_WRAP, ec, p11.ECDHAESKeyWrapParams{AESKeyBits: 256, KDF: p11.CKD_NULL}, p11.CKR_WRAPPING_KEY_SIZE_RANGE},
			{"shared data without KDF", p11.CKM_ECDH_AES_KEY_WRAP, ec, p11.ECDHAESKeyWrapParams{AESKeyBits: 128, KDF: p11.CKD_NULL, SharedData: []byte{1}}, p11.CKR_MECHANISM_PARAM_INVALID},
			{"unknown KDF", p11.CKM_ECDH_AES_KEY_WRAP, ec, p11.ECDHAESKeyWrapParams{AESKeyBits: 128, KDF: p11.CKD_CPDIVERSIFY_KDF}, p11.CKR_MECHANISM_PARAM_INVALID},
			{"AES of 40 bits", p11.CKM_ECDH_AES_KEY_WRAP, ec, p11.ECDHAESKeyWrapParams{AESKeyBits: 40, KDF: p11.CKD_SHA256_KDF}, p11.CKR_MECHANISM_PARAM_INVALID},
		} {
			m := p11.Mechanism{Type: test.m, Param: &test.p}
			err := m.Validate() // as the engine does
			if err == nil {
				_, err = c.WrapKey(t.Context(), m, test.under, key)
			}
			if p11.RVOf(err) != test.want {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
		}
	})
}

// TestECDHEncapsulate: what is encapsulated is what CKM_ECDH1_DERIVE makes of the
// ciphertext as the other side's public value.
func TestECDHEncapsulate(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		montgomery := []p11.Curve{curveNamed(t, "x25519"), curveNamed(t, "x448")}
		for _, curve := range append(curvesOf(c), montgomery...) {
			generate := p11.CKM_EC_KEY_PAIR_GEN
			if curve.KeyType == p11.CKK_EC_MONTGOMERY {
				generate = p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN
			}
			pub, priv := generatedPair(t, c, generate, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}})
			m := p11.Mechanism{Type: p11.CKM_ECDH1_COFACTOR_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_SHA384_KDF, SharedData: []byte("shared")}}
			if err := m.ValidateFor(p11.CKF_ENCAPSULATE); err != nil {
				t.Fatal(err)
			}
			template := secretTemplate(p11.CKK_AES, 32)
			ciphertext, ours, err := c.EncapsulateKey(t.Context(), m, pub, template)
			if err != nil {
				t.Fatalf("%s: %v", curve.Name, err)
			}
			theirs, err := c.DecapsulateKey(t.Context(), m, priv, ciphertext, template)
			if err != nil {
				t.Fatalf("%s: %v", curve.Name, err)
			}
			m.Param = &p11.ECDH1Params{KDF: p11.CKD_SHA384_KDF, SharedData: []byte("shared"), PublicData: ciphertext}
			derived, err := c.DeriveKey(t.Context(), m, priv, template)
			if err != nil {
				t.Fatalf("%s: %v", curve.Name, err)
			}
			for name, a := range map[string]p11.Attributes{"decapsulated": theirs, "derived": derived} {
				if !bytes.Equal(value(t, a, p11.CKA_VALUE), value(t, ours, p11.CKA_VALUE)) {
					t.Errorf("%s: another key is %s", curve.Name, name)
				}
			}
			for name, test := range map[string]struct {
				ciphertext []byte
				want       p11.RV
			}{
				"nothing": {nil, p11.CKR_WRAPPED_KEY_LEN_RANGE}, "short": {ciphertext[:len(ciphertext)-1], p11.CKR_WRAPPED_KEY_LEN_RANGE},
				"long": {append(bytes.Clone(ciphertext), 0), p11.CKR_WRAPPED_KEY_LEN_RANGE}, "no point": {append(bytes.Clone(ciphertext[:1]), make([]byte, len(ciphertext)-1)...), p11.CKR_WRAPPED_KEY_INVALID},
			} {
				if curve.KeyType == p11.CKK_EC_MONTGOMERY && name == "no point" {
					test.ciphertext = make([]byte, len(ciphertext)) // of low order
				}
				if _, err := c.DecapsulateKey(t.Context(), m, priv, test.ciphertext, template); p11.RVOf(err) != test.want {
					t.Errorf("%s, %s: %v, want %v", curve.Name, name, err, test.want)
				}
			}
			for _, swapped := range []error{
				func() error { _, _, err := c.EncapsulateKey(t.Context(), m, priv, template); return err }(),
				func() error { _, err := c.DecapsulateKey(t.Context(), m, pub, ciphertext, template); return err }(),
			} {
				if p11.RVOf(swapped) != p11.CKR_KEY_TYPE_INCONSISTENT {
					t.Errorf("%s, the other half: %v", curve.Name, swapped)
				}
			}
		}
	})
}
