package engine

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// CKM_PUB_KEY_FROM_PRIV_KEY makes the public half of any private key, whatever that may
// do, and of nothing else.
func TestDerivePublic(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	ctx, m := t.Context(), mech(t, "pub-key-from-priv-key")
	pub, priv := generateEC(t, s, "", "id=0x0102 derive=false always-authenticate=true start-date=2026-01-02 sign=true decrypt=false")
	rsaPub, rsaPriv, err := s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024"), tmpl(t, "sign=false decrypt=true unwrap=true"))
	want(t, err, p11.CKR_OK)
	for _, tt := range []struct {
		name      string
		priv, pub p11.ObjectHandle
		template  string
		uses      string
	}{
		{"ec", priv, pub, "", "verify "},
		{"ec, said", priv, pub, "class=public-key key-type=ec label=half verify=false derive=true", ""},
		{"rsa", rsaPriv, rsaPub, "", "encrypt wrap verify-recover "},
	} {
		h, err := s.DeriveKey(ctx, m, tt.priv, tmpl(t, tt.template))
		want(t, err, p11.CKR_OK)
		if err != nil {
			continue
		}
		for _, at := range []p11.AttributeType{p11.CKA_PUBLIC_KEY_INFO, p11.CKA_KEY_TYPE} {
			if got, is := get(t, s, h, at), get(t, s, tt.pub, at); !bytes.Equal(got.Value, is.Value) || len(is.Value) == 0 {
				t.Errorf("%s: %s is %x, not %x", tt.name, at.Short(), got.Value, is.Value)
			}
		}
		for _, at := range []p11.AttributeType{p11.CKA_ID, p11.CKA_START_DATE} {
			if got, is := get(t, s, h, at), get(t, s, tt.priv, at); !bytes.Equal(got.Value, is.Value) {
				t.Errorf("%s: %s is %x, not %x", tt.name, at.Short(), got.Value, is.Value)
			}
		}
		if got := trueOf(t, s, h, p11.CKA_VERIFY, p11.CKA_ENCRYPT, p11.CKA_WRAP, p11.CKA_VERIFY_RECOVER, p11.CKA_LOCAL, p11.CKA_PRIVATE, p11.CKA_TOKEN); got != tt.uses {
			t.Errorf("%s: it may %q, want %q", tt.name, got, tt.uses)
		}
		want(t, s.DestroyObject(ctx, h), p11.CKR_OK)
	}
	aes := create(t, s, aesKey+" derive=true")
	_, limited := generateEC(t, s, "", "allowed-mechanisms=ecdsa")
	for _, tt := range []struct {
		name     string
		base     p11.ObjectHandle
		template string
		want     p11.RV
	}{
		{"of a public key", pub, "", p11.CKR_KEY_TYPE_INCONSISTENT},
		{"of a secret key", aes, "", p11.CKR_KEY_TYPE_INCONSISTENT},
		{"of nothing", 12345, "", p11.CKR_KEY_HANDLE_INVALID},
		{"of a key for other mechanisms", limited, "", p11.CKR_MECHANISM_INVALID},
		{"a private key", priv, "class=private-key", p11.CKR_TEMPLATE_INCONSISTENT},
		{"a secret key", priv, "class=secret-key key-type=generic-secret", p11.CKR_TEMPLATE_INCONSISTENT},
		{"another type", priv, "key-type=rsa", p11.CKR_TEMPLATE_INCONSISTENT},
		{"another point", priv, "ec-point=0x0400", p11.CKR_TEMPLATE_INCONSISTENT},
		{"an attribute of a private key", priv, "sensitive=true", p11.CKR_ATTRIBUTE_TYPE_INVALID},
		{"trusted", priv, "trusted=true", p11.CKR_ATTRIBUTE_READ_ONLY},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.DeriveKey(ctx, m, tt.base, tmpl(t, tt.template))
			want(t, err, tt.want)
		})
	}
}
