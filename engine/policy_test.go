package engine

import (
	"testing"

	"p11fs/engine/policy"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// TestPolicy makes and uses keys with a policy on: what it forbids is not listed, not
// made and not used, also if it was there before.
func TestPolicy(t *testing.T) {
	ctx := t.Context()
	p256, _ := p11.CurveParams("p256")
	token := hooks.New("tok", hooks.Options{})
	for _, before := range []string{
		"class=secret-key key-type=aes value=0x00112233445566778899aabbccddeeff token=true private=true label=weak encrypt=true wrap=true unwrap=true sign=true extractable=true sensitive=false",
		"class=secret-key key-type=aes value=0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff token=true private=true label=strong encrypt=true wrap=true unwrap=true sign=true extractable=true sensitive=false",
		"class=secret-key key-type=generic-secret value=0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff token=true private=true label=mac sign=true verify=true",
	} {
		token.Put(tmpl(t, before))
	}
	allowed := map[p11.MechanismType]bool{}
	for _, m := range token.Mechanisms() {
		allowed[m.Type] = m.Type != p11.CKM_SHA512
	}
	p := &policy.Policy{
		Name: "policy.conf", Strength: 192, Mechanisms: allowed, Curves: map[string]bool{string(p256): true},
		MGFs: map[p11.MGF]bool{p11.CKG_MGF1_SHA256: true}, KDFs: map[p11.KDF]bool{},
		Levels: []policy.Level{{Strength: 192, ModExp: 2048, ECC: 256, Symmetric: 192, Digest: 256, Signature: 128}},
	}
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, Policy: p})
	want(t, err, p11.CKR_OK)
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}

	for _, m := range b.slot.Mechanisms() {
		switch {
		case m.Type == p11.CKM_SHA512 || m.Type == p11.CKM_SHA_1 || m.Type == p11.CKM_DES_ECB || m.Type == p11.CKM_AES_MAC:
			t.Errorf("%s is listed", m.Type)
		case m.Type == p11.CKM_AES_CBC && m.MinKeySize != 24, m.Type == p11.CKM_RSA_PKCS && m.MinKeySize != 2048:
			t.Errorf("%s takes keys of %d", m.Type, m.MinKeySize)
		}
	}
	_, err = b.slot.Mechanism(p11.CKM_SHA512)
	want(t, err, p11.CKR_MECHANISM_INVALID)

	s := b.session(t, b.app(), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	byLabel := func(label string) p11.ObjectHandle {
		t.Helper()
		found, _, err := s.find(ctx, tmpl(t, "label="+label))
		want(t, err, p11.CKR_OK)
		if len(found) != 1 {
			t.Fatalf("%d keys %s", len(found), label)
		}
		return found[0]
	}
	weak, strong, mac := byLabel("weak"), byLabel("strong"), byLabel("mac")

	begins := func(flag p11.Flags, m string, key p11.ObjectHandle, rv p11.RV) {
		t.Helper()
		o, err := s.Begin(ctx, flag, mech(t, m), key)
		if want(t, err, rv); err == nil {
			o.Close()
		}
	}
	const cbc = "aes-cbc,iv=" + zeroIV
	begins(p11.CKF_DIGEST, "sha256", 0, p11.CKR_OK)
	begins(p11.CKF_DIGEST, "sha512", 0, p11.CKR_MECHANISM_INVALID)
	begins(p11.CKF_DIGEST, "sha-1", 0, p11.CKR_MECHANISM_INVALID)
	begins(p11.CKF_ENCRYPT, cbc, strong, p11.CKR_OK)
	begins(p11.CKF_ENCRYPT, cbc, weak, p11.CKR_KEY_SIZE_RANGE)
	begins(p11.CKF_SIGN, "sha256-hmac", mac, p11.CKR_OK)

	_, err = s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), strong, weak)
	want(t, err, p11.CKR_KEY_NOT_WRAPPABLE)
	_, err = s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), weak, strong)
	want(t, err, p11.CKR_WRAPPING_KEY_SIZE_RANGE)
	wrapped, err := s.WrapKey(ctx, mech(t, "aes-key-wrap-kwp"), strong, strong)
	want(t, err, p11.CKR_OK)
	_, err = s.UnwrapKey(ctx, mech(t, "aes-key-wrap-kwp"), weak, wrapped, tmpl(t, "class=secret-key key-type=aes"))
	want(t, err, p11.CKR_UNWRAPPING_KEY_SIZE_RANGE)

	for template, rv := range map[string]p11.RV{"value-len=16": p11.CKR_ATTRIBUTE_VALUE_INVALID, "value-len=24": p11.CKR_OK} {
		_, err = s.GenerateKey(ctx, mech(t, "aes-key-gen"), tmpl(t, template))
		want(t, err, rv)
	}
	for template, rv := range map[string]p11.RV{
		"class=secret-key key-type=aes value=0x00112233445566778899aabbccddeeff":                                 p11.CKR_ATTRIBUTE_VALUE_INVALID,
		"class=secret-key key-type=aes value=0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff": p11.CKR_OK,
		"class=secret-key key-type=generic-secret value=0x00112233445566778899aabbccddeeff":                      p11.CKR_ATTRIBUTE_VALUE_INVALID,
		"class=data value=0x00": p11.CKR_OK,
	} {
		_, err = s.CreateObject(ctx, tmpl(t, template))
		want(t, err, rv)
	}
	_, err = s.CopyObject(ctx, weak, tmpl(t, "label=copy"))
	want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	for curve, rv := range map[string]p11.RV{"p256": p11.CKR_OK, "p384": p11.CKR_CURVE_NOT_SUPPORTED} {
		_, _, err = s.GenerateKeyPair(ctx, mech(t, "ec-key-pair-gen"), tmpl(t, "ec-params="+curve), nil)
		want(t, err, rv)
	}
	_, _, err = s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=1024"), nil)
	want(t, err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	pub, _, err := s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits=2048"), nil)
	want(t, err, p11.CKR_OK)
	begins(p11.CKF_ENCRYPT, "rsa-pkcs-oaep,hash=sha256", pub, p11.CKR_OK)
	begins(p11.CKF_ENCRYPT, "rsa-pkcs-oaep,hash=sha256,mgf=mgf1-sha384", pub, p11.CKR_MECHANISM_PARAM_INVALID)
	begins(p11.CKF_ENCRYPT, "rsa-pkcs-oaep,hash=sha512,mgf=mgf1-sha256", pub, p11.CKR_MECHANISM_PARAM_INVALID)
	_, base := generateEC(t, s, "", "derive=true")
	_, err = s.DeriveKey(ctx, ecdh(t, s), base, tmpl(t, "class=secret-key key-type=aes value-len=32"))
	want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)
}

// TestPolicySignatures signs with keys whose signatures are too short, by a mechanism
// that has longer ones.
func TestPolicySignatures(t *testing.T) {
	ctx := t.Context()
	token := hooks.New("tok", hooks.Options{})
	p := &policy.Policy{
		Name: "policy.conf", Strength: 112, Levels: []policy.Level{{Strength: 112, ModExp: 1024, Signature: 1500}},
	}
	e, err := New(Config{Slots: []SlotConfig{{ID: 3, Token: token}}, Policy: p})
	want(t, err, p11.CKR_OK)
	defer e.Close()
	b := &bench{Engine: e, token: token, slot: e.list()[0]}
	s := b.session(t, b.app(), rw)
	logIn(t, s, p11.CKU_USER, "1234")
	for bits, rv := range map[string]p11.RV{"1024": p11.CKR_KEY_SIZE_RANGE, "2048": p11.CKR_OK} {
		pub, priv, err := s.GenerateKeyPair(ctx, mech(t, "rsa-pkcs-key-pair-gen"), tmpl(t, "modulus-bits="+bits), nil)
		want(t, err, p11.CKR_OK)
		for flag, key := range map[p11.Flags]p11.ObjectHandle{p11.CKF_SIGN: priv, p11.CKF_VERIFY: pub} {
			o, err := s.Begin(ctx, flag, mech(t, "rsa-pkcs"), key)
			if want(t, err, rv); err == nil {
				o.Close()
			}
		}
		o, err := s.Begin(ctx, p11.CKF_ENCRYPT, mech(t, "rsa-pkcs"), pub)
		if want(t, err, p11.CKR_OK); err == nil {
			o.Close()
		}
	}
}
