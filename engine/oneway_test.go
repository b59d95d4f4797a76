package engine

import (
	"testing"

	"p11fs/engine/grants"
	"p11fs/p11"
)

// TestGrantsGiveOneFunction: some functions do what another one does, and a grant of one alone
// does not give the other.
func TestGrantsGiveOneFunction(t *testing.T) {
	const encrypt, decrypt, sign = p11.CKF_ENCRYPT, p11.CKF_DECRYPT, p11.CKF_SIGN
	for _, c := range []struct {
		grant string
		class p11.ObjectClass
		use   p11.Flags
		m     p11.MechanismType
		may   bool
	}{
		{"encrypt mechanisms=aes-gcm", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_GCM, false},
		{"wrap", p11.CKO_SECRET_KEY, p11.CKF_WRAP, p11.CKM_AES_GCM, false},
		{"wrap", p11.CKO_SECRET_KEY, p11.CKF_WRAP, p11.CKM_AES_CBC_PAD, false},
		{"wrap", p11.CKO_SECRET_KEY, p11.CKF_WRAP, p11.CKM_AES_KEY_WRAP, true},
		{"encrypt,decrypt mechanisms=aes-gcm", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_GCM, true},
		{"encrypt", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_CTR, false},
		{"encrypt mechanisms=aes-ctr", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_CTR, false},
		{"encrypt", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_ECB, false},
		{"encrypt", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_CBC, false},
		{"encrypt", p11.CKO_SECRET_KEY, encrypt, p11.CKM_P11FS_STREAM, true},
		{"encrypt mechanisms=aes-cbc", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_CBC, true},
		{"encrypt,decrypt", p11.CKO_SECRET_KEY, encrypt, p11.CKM_AES_ECB, true},
		{"sign", p11.CKO_SECRET_KEY, sign, p11.CKM_AES_MAC, false},
		{"sign", p11.CKO_SECRET_KEY, sign, p11.CKM_AES_CMAC, true},
		{"decrypt", p11.CKO_SECRET_KEY, decrypt, p11.CKM_AES_CTR, false},
		{"decrypt mechanisms=aes-ctr", p11.CKO_SECRET_KEY, decrypt, p11.CKM_AES_CTR, true},
		{"decrypt", p11.CKO_SECRET_KEY, decrypt, p11.CKM_AES_GCM, true},
		{"decrypt", p11.CKO_SECRET_KEY, decrypt, p11.CKM_AES_CBC, true},
		{"sign", p11.CKO_PRIVATE_KEY, sign, p11.CKM_RSA_X_509, false},
		{"sign-recover", p11.CKO_PRIVATE_KEY, p11.CKF_SIGN_RECOVER, p11.CKM_RSA_X_509, false},
		{"decrypt", p11.CKO_PRIVATE_KEY, decrypt, p11.CKM_RSA_X_509, false},
		{"unwrap", p11.CKO_PRIVATE_KEY, p11.CKF_UNWRAP, p11.CKM_RSA_X_509, false},
		{"sign,decrypt", p11.CKO_PRIVATE_KEY, decrypt, p11.CKM_RSA_X_509, true},
		{"sign mechanisms=rsa-x-509", p11.CKO_PRIVATE_KEY, sign, p11.CKM_RSA_X_509, true},
		{"sign", p11.CKO_PRIVATE_KEY, sign, p11.CKM_RSA_PKCS, true},
		{"encrypt", p11.CKO_PUBLIC_KEY, encrypt, p11.CKM_RSA_X_509, true},
	} {
		grant, err := grants.Parse("user=33 token=tok label=box functions="+c.grant, grants.Names{})
		if err != nil {
			t.Fatal(err)
		}
		g := &granted{key: grants.Key{Class: c.class}, list: []*grants.Grant{grant}}
		functions, err := g.oneWay(useOf(c.use), c.m, false)
		if (err == nil) != c.may {
			t.Errorf("%s: %s with %s: %v", c.grant, useOf(c.use).verb, c.m.Short(), err)
		}
		if err == nil {
			continue
		}
		// What the log says is enough.
		line := grants.Line(grants.Caller{UID: 33}, "tok", grants.Key{Class: c.class, Label: []byte("box")}, functions, c.m)
		if grant, err = grants.Parse(line, grants.Names{}); err != nil {
			t.Fatal(err)
		}
		g.list = []*grants.Grant{grant}
		if _, err := g.oneWay(useOf(c.use), c.m, false); err != nil || !g.allows(useOf(c.use), c.m) {
			t.Errorf("%s: %s with %s: %v", line, useOf(c.use).verb, c.m.Short(), err)
		}
	}
}

// TestGrantToEncrypt: who may encrypt alone has the IV chosen for him.
func TestGrantToEncrypt(t *testing.T) {
	ctx := t.Context()
	iv := make([]byte, 12)
	gcm := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: iv, TagBits: 128}}
	b, s := grantedBench(t, "user=33 token=tok label=box functions=encrypt mechanisms=aes-gcm")
	key := one(t, s, "private=true")
	_, err := s.Begin(ctx, p11.CKF_ENCRYPT, gcm, key)
	want(t, err, p11.CKR_MECHANISM_INVALID)
	o, err := s.BeginFresh(ctx, gcm, key)
	if err != nil {
		t.Fatalf("under an IV that is chosen for him: %v", err)
	}
	o.Close()
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, key), p11.CKR_OK)
	a := AEADMessage{IV: iv, TagBits: 128, Generator: p11.CKG_NO_GENERATE}
	_, _, err = s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, make([]byte, 16), NoLimit)
	want(t, err, p11.CKR_MECHANISM_INVALID)
	want(t, s.MessageFinal(ctx, p11.CKF_MESSAGE_ENCRYPT), p11.CKR_OK)
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, key), p11.CKR_OK)
	a.Generator = p11.CKG_GENERATE_RANDOM
	_, _, err = s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, make([]byte, 16), NoLimit)
	want(t, err, p11.CKR_OK)
	// A grant of both that becomes one of encryption ends what it has begun.
	b.grant(t, "user=33 token=tok label=box functions=encrypt,decrypt")
	if o, err = s.Begin(ctx, p11.CKF_ENCRYPT, gcm, key); err != nil {
		t.Fatal(err)
	}
	b.grant(t, "user=33 token=tok label=box functions=encrypt")
	if _, err := o.Update(ctx, make([]byte, 16)); err == nil {
		t.Error("what was begun with both goes on with one")
	}
	o.Close()
}
