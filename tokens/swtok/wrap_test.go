package swtok

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
)

func wrapIV() p11.IV { return p11.IV(bytes.Repeat([]byte{5}, 16)) }

func ecdhAESParam() *p11.ECDHAESKeyWrapParams {
	return &p11.ECDHAESKeyWrapParams{AESKeyBits: 256, KDF: p11.CKD_SHA256_KDF, SharedData: []byte("shared")}
}

func rsaAESParam() *p11.RSAAESKeyWrapParams {
	return &p11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEP: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.CKG_MGF1_SHA1}}
}

func value(t *testing.T, a p11.Attributes, at p11.AttributeType) []byte {
	t.Helper()
	b, ok := a.Get(at)
	if !ok {
		t.Fatalf("no %s", at)
	}
	return b
}

func TestWrapSecret(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		for _, test := range []struct {
			m            p11.Mechanism
			wrap, unwrap *tokens.Object
			length       bool // unwrapping needs CKA_VALUE_LEN
			multiple     int
		}{
			{p11.Mechanism{Type: p11.CKM_AES_ECB}, r.aes, r.aes, true, 1},
			{p11.Mechanism{Type: p11.CKM_AES_CBC, Param: wrapIV()}, r.aes, r.aes, true, 1},
			{p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: wrapIV()}, r.aes, r.aes, false, 1},
			{p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: wrapIV(), TagBits: 128}}, r.aes, r.aes, false, 1},
			{p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}, r.aes, r.aes, false, 8},
			{p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP, Param: wrapIV()[:8]}, r.aes, r.aes, false, 8},
			{p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_PAD}, r.aes, r.aes, false, 1},
			{p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, r.aes, r.aes, false, 1},
			{p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, r.rsaPriv, false, 1},
			{p11.Mechanism{Type: p11.CKM_RSA_X_509}, r.rsaPub, r.rsaPriv, true, 1},
			{p11.Mechanism{Type: p11.CKM_RSA_PKCS_OAEP, Param: &p11.OAEPParams{Hash: p11.CKM_SHA_1, MGF: p11.CKG_MGF1_SHA256, Label: []byte("l")}}, r.rsaPub, r.rsaPriv, false, 1},
			{p11.Mechanism{Type: p11.CKM_RSA_AES_KEY_WRAP, Param: rsaAESParam()}, r.rsaPub, r.rsaPriv, false, 1},
			{p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPub, r.ecPriv, false, 1},
			{p11.Mechanism{Type: p11.CKM_ECDH_COF_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPub, r.ecPriv, false, 1},
		} {
			for _, k := range []struct {
				kt p11.KeyType
				n  int
			}{{p11.CKK_AES, 16}, {p11.CKK_AES, 24}, {p11.CKK_AES, 32}, {p11.CKK_GENERIC_SECRET, 13}, {p11.CKK_DES3, 24}} {
				t.Run(fmt.Sprintf("%s/%s-%d", test.m.Type.Short(), k.kt.Short(), k.n), func(t *testing.T) {
					secret := bytes.Repeat([]byte{0xa1}, k.n)
					key := tokentest.Secret(t, k.kt, secret)
					wrapped, err := c.WrapKey(t.Context(), test.m, test.wrap, key)
					if k.n%test.multiple != 0 {
						if !errors.Is(err, p11.CKR_KEY_SIZE_RANGE) {
							t.Errorf("wrapped: %v", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					template := secretTemplate(k.kt, 0)
					if test.length && k.kt != p11.CKK_DES3 {
						template = secretTemplate(k.kt, uint64(k.n))
					}
					a, err := c.UnwrapKey(t.Context(), test.m, test.unwrap, wrapped, template)
					if err != nil {
						t.Fatal(err)
					}
					if got := value(t, a, p11.CKA_VALUE); !bytes.Equal(got, secret) {
						t.Errorf("unwrapped %x", got)
					}
					if n, ok := a.Ulong(p11.CKA_VALUE_LEN); ok != (k.kt != p11.CKK_DES3) || ok && n != uint64(k.n) {
						t.Errorf("value-len %d, %v", n, ok)
					}
					wrapped[len(wrapped)/2] ^= 1
					if a, err := c.UnwrapKey(t.Context(), test.m, test.unwrap, wrapped, template); err == nil && bytes.Equal(value(t, a, p11.CKA_VALUE), secret) {
						t.Errorf("a change is not noticed")
					}
				})
			}
		}
	})
}

func privateTemplate(kt p11.KeyType) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
		{Type: p11.CKA_LABEL, Value: []byte("kept")},
	}
}

func TestWrapPrivate(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		for _, test := range []struct {
			m            p11.Mechanism
			wrap, unwrap *tokens.Object
		}{
			{p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: wrapIV()}, r.aes, r.aes},
			{p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: wrapIV(), TagBits: 128}}, r.aes, r.aes},
			{p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}, r.aes, r.aes},
			{p11.Mechanism{Type: p11.CKM_RSA_AES_KEY_WRAP, Param: rsaAESParam()}, r.rsaPub, r.rsaPriv},
			{p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPub, r.ecPriv},
		} {
			for _, k := range []struct {
				kt   p11.KeyType
				key  *tokens.Object
				sign p11.Mechanism
				pub  *tokens.Object
				same []p11.AttributeType
			}{
				{p11.CKK_RSA, r.rsaPriv, p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}, r.rsaPub,
					[]p11.AttributeType{p11.CKA_MODULUS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_PRIVATE_EXPONENT, p11.CKA_PRIME_1, p11.CKA_PRIME_2, p11.CKA_EXPONENT_1, p11.CKA_EXPONENT_2, p11.CKA_COEFFICIENT}},
				{p11.CKK_EC, r.ecPriv, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, r.ecPub, []p11.AttributeType{p11.CKA_EC_PARAMS, p11.CKA_VALUE}},
			} {
				t.Run(test.m.Type.Short()+"/"+k.kt.Short(), func(t *testing.T) {
					wrapped, err := c.WrapKey(t.Context(), test.m, test.wrap, k.key)
					if err != nil {
						t.Fatal(err)
					}
					a, err := c.UnwrapKey(t.Context(), test.m, test.unwrap, wrapped, privateTemplate(k.kt))
					if err != nil {
						t.Fatal(err)
					}
					if a.Label() != "kept" {
						t.Errorf("the template is not in the result")
					}
					was, err := k.key.Acquire()
					if err != nil {
						t.Fatal(err)
					}
					defer k.key.Release()
					for _, at := range k.same {
						if !bytes.Equal(value(t, a, at), value(t, was, at)) {
							t.Errorf("%s differs", at)
						}
					}
					sig, err := signAll(c, k.sign, tokentest.Object(t, a), []byte("x"))
					if err != nil {
						t.Fatal(err)
					}
					if err := verifyAll(c, k.sign, k.pub, []byte("x"), sig); err != nil {
						t.Error(err)
					}
					other := p11.CKK_EC
					if k.kt == p11.CKK_EC {
						other = p11.CKK_RSA
					}
					if _, err := c.UnwrapKey(t.Context(), test.m, test.unwrap, wrapped, privateTemplate(other)); !errors.Is(err, p11.CKR_WRAPPED_KEY_INVALID) {
						t.Errorf("as another type: %v", err)
					}
				})
			}
		}
	})
}

func TestWrapRules(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		r := newKeyring(t, c)
		kwp := p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP_KWP}
		ecb := p11.Mechanism{Type: p11.CKM_AES_ECB}
		for _, test := range []struct {
			name          string
			m             p11.Mechanism
			wrapping, key *tokens.Object
			want          p11.RV
		}{
			{"a mechanism that does not wrap", p11.Mechanism{Type: p11.CKM_ECDSA}, r.ecPriv, r.aes, p11.CKR_MECHANISM_INVALID},
			{"under a generic secret", kwp, r.secret, r.aes, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
			{"under a private key", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, r.aes, p11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT},
			{"a public key", kwp, r.aes, r.rsaPub, p11.CKR_KEY_NOT_WRAPPABLE},
			{"a private key without padding", ecb, r.aes, r.rsaPriv, p11.CKR_KEY_NOT_WRAPPABLE},
			{"a private key under RSA", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, r.ecPriv, p11.CKR_KEY_NOT_WRAPPABLE},
			{"a secret too long for RSA", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPub, tokentest.Secret(t, p11.CKK_GENERIC_SECRET, make([]byte, 118)), p11.CKR_KEY_SIZE_RANGE},
			{"bad parameters", p11.Mechanism{Type: p11.CKM_RSA_AES_KEY_WRAP, Param: &p11.RSAAESKeyWrapParams{AESKeyBits: 100, OAEP: rsaAESParam().OAEP}}, r.rsaPub, r.aes, p11.CKR_MECHANISM_PARAM_INVALID},
		} {
			t.Run(test.name, func(t *testing.T) {
				err := test.m.Validate() // as the engine does
				if err == nil {
					_, err = c.WrapKey(t.Context(), test.m, test.wrapping, test.key)
				}
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
		wrapped, err := c.WrapKey(t.Context(), kwp, r.aes, r.secret)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := c.WrapKey(t.Context(), ecb, r.aes, r.secret) // 22 bytes and 10 zeros
		if err != nil {
			t.Fatal(err)
		}
		none := secretTemplate(p11.CKK_GENERIC_SECRET, 0)
		for _, test := range []struct {
			name     string
			m        p11.Mechanism
			key      *tokens.Object
			wrapped  []byte
			template p11.Attributes
			want     p11.RV
		}{
			{"as it was", kwp, r.aes, wrapped, none, p11.CKR_OK},
			{"length said", kwp, r.aes, wrapped, secretTemplate(p11.CKK_GENERIC_SECRET, 22), p11.CKR_OK},
			{"shortened", kwp, r.aes, wrapped, secretTemplate(p11.CKK_GENERIC_SECRET, 5), p11.CKR_TEMPLATE_INCONSISTENT},
			{"lengthened", kwp, r.aes, wrapped, secretTemplate(p11.CKK_GENERIC_SECRET, 23), p11.CKR_TEMPLATE_INCONSISTENT},
			{"as AES", kwp, r.aes, wrapped, secretTemplate(p11.CKK_AES, 0), p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"as AES of 16 bytes", kwp, r.aes, wrapped, secretTemplate(p11.CKK_AES, 16), p11.CKR_TEMPLATE_INCONSISTENT},
			{"as AES of 17 bytes", kwp, r.aes, wrapped, secretTemplate(p11.CKK_AES, 17), p11.CKR_ATTRIBUTE_VALUE_INVALID},
			{"without class", kwp, r.aes, wrapped, none[1:], p11.CKR_TEMPLATE_INCOMPLETE},
			{"without key type", kwp, r.aes, wrapped, none[:1], p11.CKR_TEMPLATE_INCOMPLETE},
			{"as a certificate", kwp, r.aes, wrapped, none.With(p11.CKA_CLASS, p11.Ulong(p11.CKO_CERTIFICATE)), p11.CKR_TEMPLATE_INCONSISTENT},
			{"as a private key", kwp, r.aes, wrapped, privateTemplate(p11.CKK_RSA), p11.CKR_WRAPPED_KEY_INVALID},
			{"as a private key, without padding", ecb, r.aes, blocks, privateTemplate(p11.CKK_RSA), p11.CKR_TEMPLATE_INCONSISTENT},
			{"short", kwp, r.aes, wrapped[:8], none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"other bytes", kwp, r.aes, make([]byte, len(wrapped)), none, p11.CKR_WRAPPED_KEY_INVALID},
			{"under a generic secret", kwp, r.secret, wrapped, none, p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT},
			{"blocks, padding cut", ecb, r.aes, blocks, secretTemplate(p11.CKK_GENERIC_SECRET, 22), p11.CKR_OK},
			{"blocks, key bytes cut", ecb, r.aes, blocks, secretTemplate(p11.CKK_GENERIC_SECRET, 21), p11.CKR_WRAPPED_KEY_INVALID},
			{"blocks, a whole block cut", ecb, r.aes, blocks, secretTemplate(p11.CKK_GENERIC_SECRET, 16), p11.CKR_TEMPLATE_INCONSISTENT},
			{"part of a block", ecb, r.aes, blocks[:20], none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"nothing", ecb, r.aes, nil, none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"RSA of other bytes", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, make([]byte, 128), none, p11.CKR_OK},
			{"RSA short", p11.Mechanism{Type: p11.CKM_RSA_PKCS}, r.rsaPriv, make([]byte, 127), none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"ECDH-AES short", p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPriv, make([]byte, 33+15), none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"ECDH-AES short behind the point", p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPriv, append([]byte{4}, make([]byte, 64+15)...), none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
			{"ECDH-AES off the curve", p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.ecPriv, append([]byte{4}, make([]byte, 64+24)...), none, p11.CKR_WRAPPED_KEY_INVALID},
			{"ECDH-AES, RSA key", p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: ecdhAESParam()}, r.rsaPriv, make([]byte, 128), none, p11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT},
			{"RSA-AES short", p11.Mechanism{Type: p11.CKM_RSA_AES_KEY_WRAP, Param: rsaAESParam()}, r.rsaPriv, make([]byte, 128), none, p11.CKR_WRAPPED_KEY_LEN_RANGE},
		} {
			t.Run("unwrap/"+test.name, func(t *testing.T) {
				_, err := c.UnwrapKey(t.Context(), test.m, test.key, test.wrapped, test.template)
				if got := p11.RVOf(err); got != test.want {
					t.Errorf("got %v (%v), want %v", got, err, test.want)
				}
			})
		}
	})
}
