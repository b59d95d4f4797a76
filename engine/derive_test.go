package engine

import (
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// A key that may tell all of another is as safe as that one, and as each of those that
// it is made of (PKCS#11 v3.1 §6.43.2).
func TestJoinedKeyIsAsSafe(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	secret := func(more string) p11.ObjectHandle {
		return create(t, s, "class=secret-key key-type=generic-secret value=0x0102030405060708 derive=true "+more)
	}
	open, hidden, kept := secret("sensitive=false extractable=true"), secret("sensitive=true extractable=true"), secret("sensitive=false extractable=false")
	const free = "sensitive=false extractable=true"
	for _, test := range []struct {
		name        string
		base, other p11.ObjectHandle
		template    string
		rv          p11.RV
		want        string
	}{
		{"two open ones", open, open, free, p11.CKR_OK, "sensitive=false extractable=true value-len=16"},
		{"a sensitive one", hidden, open, "extractable=true", p11.CKR_OK, "sensitive=true extractable=true"},
		{"the other sensitive", open, hidden, "extractable=true", p11.CKR_OK, "sensitive=true extractable=true"},
		{"shown all the same", open, hidden, free, p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"one that stays", kept, open, "sensitive=false", p11.CKR_OK, "sensitive=false extractable=false"},
		{"the other stays", open, kept, "sensitive=false", p11.CKR_OK, "sensitive=false extractable=false"},
		{"let out all the same", open, kept, free, p11.CKR_TEMPLATE_INCONSISTENT, ""},
		{"no derive", open, create(t, s, "class=secret-key key-type=generic-secret value=0x01 derive=false"), free, p11.CKR_KEY_FUNCTION_NOT_PERMITTED, ""},
		{"another mechanism's", open, secret("allowed-mechanisms=sha256-hmac"), free, p11.CKR_MECHANISM_INVALID, ""},
		{"no key", open, 99999, free, p11.CKR_KEY_HANDLE_INVALID, ""},
		{"no secret key", open, create(t, s, "class=data label=x"), free, p11.CKR_KEY_HANDLE_INVALID, ""},
		{"none named", open, 0, free, p11.CKR_MECHANISM_PARAM_INVALID, ""},
	} {
		m := p11.Mechanism{Type: p11.CKM_CONCATENATE_BASE_AND_KEY, Param: p11.OtherKey(test.other)}
		h, err := s.DeriveKey(t.Context(), m, test.base, tmpl(t, test.template))
		if want(t, err, test.rv); err != nil || test.rv != p11.CKR_OK {
			continue
		}
		for _, a := range tmpl(t, test.want) {
			if got := get(t, s, h, a.Type).Value; string(got) != string(a.Value) {
				t.Errorf("%s: %s is %x", test.name, a.Type.Short(), got)
			}
		}
	}
}

// CKM_HKDF_DATA makes a data object, and nothing else does.
func TestHKDFData(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	base := create(t, s, "class=secret-key key-type=hkdf value=0x0102030405060708 derive=true sensitive=true extractable=false")
	for _, test := range []struct {
		m, template string
		rv          p11.RV
	}{
		{"hkdf-data", "value-len=20 label=x", p11.CKR_OK},
		{"hkdf-data", "class=data value-len=20", p11.CKR_OK},
		{"hkdf-data", "label=x", p11.CKR_TEMPLATE_INCOMPLETE},
		{"hkdf-data", "class=secret-key key-type=aes value-len=16", p11.CKR_TEMPLATE_INCONSISTENT},
		{"hkdf-derive", "class=data", p11.CKR_ATTRIBUTE_TYPE_INVALID},
	} {
		h, err := s.DeriveKey(t.Context(), mech(t, test.m), base, tmpl(t, test.template))
		if want(t, err, test.rv); err != nil {
			continue
		}
		if got := get(t, s, h, p11.CKA_VALUE).Value; len(got) != 20 {
			t.Errorf("%s: %x", test.template, got)
		}
	}
}

// What both sides put into a key agreement beside their keys has at most 64 KiB.
func TestSharedDataBound(t *testing.T) {
	ctx := t.Context()
	s := newBench(t, hooks.Options{}).user(t)
	public, private := generateEC(t, s, "wrap=true", "derive=true")
	point := get(t, s, public, p11.CKA_EC_POINT).Value[2:]
	key := tmpl(t, "class=secret-key key-type=generic-secret value-len=16 sensitive=false extractable=true")
	values := map[string]bool{}
	for length, rv := range map[int]p11.RV{0: p11.CKR_OK, 1: p11.CKR_OK, 65536: p11.CKR_OK, 65537: p11.CKR_MECHANISM_PARAM_INVALID} {
		m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_SHA256_KDF, SharedData: make([]byte, length), PublicData: point}}
		h, err := s.DeriveKey(ctx, m, private, key)
		if want(t, err, rv); err == nil {
			values[string(get(t, s, h, p11.CKA_VALUE).Value)] = true
		}
	}
	if len(values) != 3 {
		t.Errorf("%d keys of 3 lengths of shared data", len(values))
	}
	long := p11.ECDHAESKeyWrapParams{AESKeyBits: 128, KDF: p11.CKD_SHA256_KDF, SharedData: make([]byte, 65537)}
	_, err := s.WrapKey(ctx, p11.Mechanism{Type: p11.CKM_ECDH_AES_KEY_WRAP, Param: &long}, public, create(t, s, aesKey+" extractable=true"))
	want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)
}
