package engine

import (
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// Who encapsulates with ECDH gives no public value, and who derives must.
func TestEncapsulateECDH(t *testing.T) {
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	ctx, m := t.Context(), mech(t, "ecdh1-derive,kdf=sha256")
	pub, priv := generateEC(t, s, "encapsulate=true", "decapsulate=true derive=true")
	template := tmpl(t, "class=secret-key key-type=aes value-len=16 sensitive=false extractable=true")
	ciphertext, ours, err := s.EncapsulateKey(ctx, m, pub, template, NoLimit)
	want(t, err, p11.CKR_OK)
	theirs, err := s.DecapsulateKey(ctx, m, priv, ciphertext, template)
	want(t, err, p11.CKR_OK)
	if a, b := get(t, s, ours, p11.CKA_VALUE), get(t, s, theirs, p11.CKA_VALUE); len(a.Value) != 16 || string(a.Value) != string(b.Value) {
		t.Errorf("%x and %x", a.Value, b.Value)
	}
	_, err = s.DeriveKey(ctx, m, priv, template)
	want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)
	_, _, err = s.EncapsulateKey(ctx, mech(t, "ecdh1-derive,kdf=sha256"), pub, template, len(ciphertext)-1)
	want(t, err, p11.CKR_BUFFER_TOO_SMALL)
}
