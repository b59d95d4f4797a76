package engine

import (
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// A tree's key that is asked to wrap does not decrypt as well, unless it is told to.
func TestTreeKeepsWrappingApart(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.session(t, b.NewApplication(Owner{UID: 1}, ForPeople), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	usages := func(what string, h p11.ObjectHandle, is string) {
		t.Helper()
		if got := trueOf(t, s, h, p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP); got != is {
			t.Errorf("%s: %q, want %q", what, got, is)
		}
	}
	for template, is := range map[string]string{
		"": "encrypt decrypt ", "wrap=true": "wrap ", "unwrap=true wrap=false": "unwrap ",
		"wrap=true decrypt=true": "decrypt wrap ", "wrap=false": "encrypt decrypt ",
	} {
		h, err := s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16 "+template))
		want(t, err, p11.CKR_OK)
		usages("aes "+template, h, is)
	}
	pub, priv, err := s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024 wrap=true"), tmpl(t, "unwrap=true"))
	want(t, err, p11.CKR_OK)
	usages("a public key that wraps", pub, "wrap ")
	usages("its private key", priv, "unwrap ")
	pub, priv, err = s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024 wrap=true"), nil)
	want(t, err, p11.CKR_OK)
	usages("a public key alone that wraps", pub, "wrap ")
	usages("its private key", priv, "")
}

// trueOf names those of the attributes that are true.
func trueOf(t *testing.T, s *Session, h p11.ObjectHandle, types ...p11.AttributeType) (names string) {
	t.Helper()
	got, err := s.GetAttributeValue(t.Context(), h, types...)
	want(t, err, p11.CKR_OK)
	for _, a := range got {
		if a.Err == nil && isTrue(a.Value) {
			names += a.Type.Short() + " "
		}
	}
	return names
}

func TestSeparateWrapping(t *testing.T) {
	ctx := t.Context()
	token := hooks.New("tok", hooks.Options{})
	mixed := tmpl(t, aesKey+" token=true private=true sensitive=true extractable=false label=mixed wrap=true unwrap=true encrypt=true decrypt=true")
	token.Put(mixed) // as another program stores one
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, SeparateWrapping: true})
	want(t, err, p11.CKR_OK)
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}
	s := b.session(t, b.app(), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	cbc, kwp := mech(t, "aes-cbc-pad,iv="+zeroIV), mech(t, "aes-key-wrap-kwp")

	// Programs' defaults are those of keys that do not wrap.
	h := create(t, s, aesKey)
	if got := trueOf(t, s, h, p11.CKA_ENCRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP); got != "encrypt " {
		t.Errorf("by default a key may %s", got)
	}
	for _, both := range []string{"wrap=true decrypt=true", "unwrap=true encrypt=true", "unwrap=true decrypt=true"} {
		_, err := s.CreateObject(ctx, tmpl(t, aesKey+" "+both))
		want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
		_, err = s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, "value-len=16 "+both))
		want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
		_, base := generateEC(t, s, "", "derive=true")
		_, err = s.DeriveKey(ctx, ecdh(t, s), base, tmpl(t, "class=secret-key key-type=aes value-len=16 "+both))
		want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	}
	_, _, err = s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024 wrap=true"), tmpl(t, "decrypt=true"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)

	// No change and no copy makes one kind of the other.
	kek := create(t, s, aesKey+" wrap=true unwrap=true")
	want(t, s.SetAttributeValue(ctx, kek, tmpl(t, "decrypt=true")), p11.CKR_ATTRIBUTE_READ_ONLY)
	want(t, s.SetAttributeValue(ctx, kek, tmpl(t, "wrap=false unwrap=false decrypt=true")), p11.CKR_ATTRIBUTE_READ_ONLY)
	_, err = s.CopyObject(ctx, kek, tmpl(t, "wrap=false unwrap=false decrypt=true"))
	want(t, err, p11.CKR_ATTRIBUTE_READ_ONLY)
	want(t, s.SetAttributeValue(ctx, h, tmpl(t, "wrap=true")), p11.CKR_ATTRIBUTE_READ_ONLY)
	want(t, s.SetAttributeValue(ctx, kek, tmpl(t, "label=kek unwrap=false")), p11.CKR_OK)
	want(t, s.SetAttributeValue(ctx, kek, tmpl(t, "unwrap=true")), p11.CKR_OK)

	// What is unwrapped cannot be read.
	wrapped, err := s.WrapKey(ctx, kwp, kek, create(t, s, aesKey+" extractable=true"))
	want(t, err, p11.CKR_OK)
	_, err = s.UnwrapKey(ctx, kwp, kek, wrapped, tmpl(t, "class=secret-key key-type=aes sensitive=false"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	_, err = s.UnwrapKey(ctx, kwp, kek, wrapped, tmpl(t, "class=secret-key key-type=aes wrap=true decrypt=true"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	key, err := s.UnwrapKey(ctx, kwp, kek, wrapped, tmpl(t, "class=secret-key key-type=aes"))
	want(t, err, p11.CKR_OK)
	if got := trueOf(t, s, key, p11.CKA_SENSITIVE); got != "sensitive " {
		t.Error("an unwrapped key can be read")
	}

	// Nor can it be computed of what else is wrapped.
	for _, open := range []string{"aes-ctr,counter=" + zeroIV, "aes-gcm,iv=" + zeroIV, "aes-cbc-pad,iv=" + zeroIV, "aes-cbc,iv=" + zeroIV} {
		_, err = s.WrapKey(ctx, mech(t, open), kek, create(t, s, aesKey+" extractable=true"))
		want(t, err, p11.CKR_MECHANISM_INVALID)
		_, err = s.UnwrapKey(ctx, mech(t, open), kek, wrapped[:1], tmpl(t, "class=secret-key key-type=generic-secret sign=true"))
		want(t, err, p11.CKR_MECHANISM_INVALID)
	}

	// One that there is does the one and not the other.
	found, err := s.Find(ctx, tmpl(t, "label=mixed"))
	want(t, err, p11.CKR_OK)
	_, err = s.WrapKey(ctx, kwp, found[0], key)
	want(t, err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	_, err = s.UnwrapKey(ctx, kwp, found[0], wrapped, tmpl(t, "class=secret-key key-type=aes"))
	want(t, err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	o, err := s.Begin(ctx, p11.CKF_DECRYPT, cbc, found[0])
	want(t, err, p11.CKR_OK)
	o.Close()
	want(t, s.SetAttributeValue(ctx, found[0], tmpl(t, "label=renamed")), p11.CKR_OK)
}

// ecdh is a derivation with a public key made for it.
func ecdh(t *testing.T, s *Session) p11.Mechanism {
	t.Helper()
	pub, _ := generateEC(t, s, "", "")
	got, err := s.GetAttributeValue(t.Context(), pub, p11.CKA_EC_POINT)
	want(t, err, p11.CKR_OK)
	return p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: got[0].Value}}
}
