package engine

import (
	"errors"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/hooks"
)

// TestSignMessages signs messages whole and in parts, and verifies them, with every kind
// of signature.
func TestSignMessages(t *testing.T) {
	ctx, text := t.Context(), []byte("a message of some bytes")
	s := messenger(t, swtok.GoProvider())
	const sign, verify = p11.CKF_MESSAGE_SIGN, p11.CKF_MESSAGE_VERIFY
	for _, c := range []struct{ generate, public, private, mech string }{
		{"ec-key-pair-gen", "ec-params=secp256r1", "", "ecdsa-sha256"},
		{"ec-edwards-key-pair-gen", "ec-params=ed25519", "", "eddsa"},
		{"rsa-pkcs-key-pair-gen", "modulus-bits=1024", "", "sha256-rsa-pkcs-pss,salt=20"},
		{"ml-dsa-key-pair-gen", "parameter-set=ml-dsa-44", "", "ml-dsa,context=616263"},
		{"generic-secret-key-gen", "value-len=32", "", "sha256-hmac"},
	} {
		var public, private p11.ObjectHandle
		var err error
		if m := mech(t, c.generate); c.mech == "sha256-hmac" {
			public, err = s.GenerateKey(ctx, m, tmpl(t, c.public))
			private = public
		} else {
			public, private, err = s.GenerateKeyPair(ctx, m, tmpl(t, c.public), tmpl(t, c.private))
		}
		if err != nil {
			t.Fatal(err)
		}
		want(t, s.SignMessagesInit(ctx, sign, mech(t, c.mech), private), p11.CKR_OK)
		want(t, s.SignMessagesInit(ctx, verify, mech(t, c.mech), public), p11.CKR_OK)
		for range 2 {
			whole, err := s.SignMessage(ctx, sign, text, nil, NoLimit)
			want(t, err, p11.CKR_OK)
			want(t, s.SignMessageBegin(ctx, sign), p11.CKR_OK)
			want(t, s.SignMessageNext(ctx, sign, text[:7]), p11.CKR_OK)
			var short *BufferError
			if _, err := s.SignMessageEnd(ctx, sign, text[7:], nil, OnlyLength); !errors.As(err, &short) || short.Need < len(whole) {
				t.Errorf("%s: the length of a signature: %v", c.mech, err)
			}
			parts, err := s.SignMessageEnd(ctx, sign, text[7:], nil, NoLimit)
			want(t, err, p11.CKR_OK)
			for _, signature := range [][]byte{whole, parts} {
				_, err = s.SignMessage(ctx, verify, text, signature, NoLimit)
				want(t, err, p11.CKR_OK)
				_, err = s.SignMessage(ctx, verify, text[1:], signature, NoLimit)
				want(t, err, p11.CKR_SIGNATURE_INVALID)
				want(t, s.SignMessageBegin(ctx, verify), p11.CKR_OK)
				want(t, s.SignMessageNext(ctx, verify, text[:3]), p11.CKR_OK)
				_, err = s.SignMessageEnd(ctx, verify, text[3:], signature, NoLimit)
				want(t, err, p11.CKR_OK)
			}
		}
		want(t, s.MessageFinal(ctx, sign), p11.CKR_OK)
		want(t, s.MessageFinal(ctx, verify), p11.CKR_OK)
		if t.Failed() {
			t.Fatal(c.mech)
		}
	}
	key := create(t, s, aesKey+" sign=true")
	want(t, s.SignMessagesInit(ctx, sign, mech(t, "sha256"), key), p11.CKR_MECHANISM_INVALID)
	want(t, s.SignMessagesInit(ctx, sign, mech(t, "sha256-hmac"), create(t, s, "class=secret-key key-type=generic-secret value=0x0001020304050607 sign=false")), p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
}

// A key that wants the PIN each time wants it for each message, and what was refused ends
// nothing.
func TestSignMessagesAuthenticate(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	_, key, err := s.GenerateKeyPair(ctx, mech(t, "ec-key-pair-gen"), tmpl(t, "ec-params=secp256r1"), tmpl(t, "always-authenticate=true private=true"))
	want(t, err, p11.CKR_OK)
	want(t, s.SignMessagesInit(ctx, p11.CKF_MESSAGE_SIGN, mech(t, "ecdsa-sha256"), key), p11.CKR_OK)
	for range 3 {
		_, err = s.SignMessage(ctx, p11.CKF_MESSAGE_SIGN, []byte("text"), nil, NoLimit)
		want(t, err, p11.CKR_USER_NOT_LOGGED_IN)
		want(t, s.SignMessageBegin(ctx, p11.CKF_MESSAGE_SIGN), p11.CKR_USER_NOT_LOGGED_IN)
		want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, hooks.UserPIN)), p11.CKR_OK)
		_, err = s.SignMessage(ctx, p11.CKF_MESSAGE_SIGN, []byte("text"), nil, NoLimit)
		want(t, err, p11.CKR_OK)
	}
	want(t, s.Logout(ctx), p11.CKR_OK)
	want(t, s.MessageFinal(ctx, p11.CKF_MESSAGE_SIGN), p11.CKR_OPERATION_NOT_INITIALIZED)
}

// One PIN is for one use: that of the operation begun last.
func TestAuthenticateOne(t *testing.T) {
	ctx := t.Context()
	s := newBench(t, hooks.Options{}).user(t)
	_, key := generateEC(t, s, "", "always-authenticate=true")
	m, flag := mech(t, "ecdsa-sha256"), p11.Flags(p11.CKF_MESSAGE_SIGN)
	login := func() { want(t, s.Login(ctx, p11.CKU_CONTEXT_SPECIFIC, pin(t, hooks.UserPIN)), p11.CKR_OK) }
	message := func() error { return errOf(s.SignMessage(ctx, flag, []byte("text"), nil, NoLimit)) }
	want(t, s.SignMessagesInit(ctx, flag, m, key), p11.CKR_OK)
	want(t, s.SignInit(ctx, m, key), p11.CKR_OK)
	login()
	want(t, message(), p11.CKR_USER_NOT_LOGGED_IN)
	want(t, errOf(s.Sign(ctx, []byte("x"), NoLimit)), p11.CKR_OK)
	login()
	want(t, message(), p11.CKR_OK)
	want(t, message(), p11.CKR_USER_NOT_LOGGED_IN)
}
