package ccatok

import (
	"bytes"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/card/soft"
	"p11fs/tokens/card/softcca"
)

// stored makes a key that is kept.
func stored(t *testing.T, tok *token, m p11.MechanismType, length uint64) *tokens.Object {
	t.Helper()
	var given p11.Attributes
	if length > 0 {
		given.SetUlong(p11.CKA_VALUE_LEN, length)
	}
	a, err := tok.GenerateKey(t.Context(), p11.Mechanism{Type: m}, given)
	if err == nil {
		a, err = tok.Adopt(t.Context(), a)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.SetBool(p11.CKA_TOKEN, true)
	a.SetBool(p11.CKA_PRIVATE, false)
	o, err := tok.Create(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOneMasterKey changes one of a card's master keys: the keys of the others stay as they
// are, and one that was left behind by the change before comes along.
func TestOneMasterKey(t *testing.T) {
	t.Parallel()
	tok, d := newToken(t)
	ctx := t.Context()
	des, aes := stored(t, tok, p11.CKM_DES3_KEY_GEN, 0), stored(t, tok, p11.CKM_AES_KEY_GEN, 16)
	works := func(what string) {
		t.Helper()
		for m, o := range map[p11.MechanismType]*tokens.Object{p11.CKM_DES3_CBC: des, p11.CKM_AES_CBC: aes} {
			now, err := tok.ByHandle(o.Handle)
			if err != nil {
				t.Fatal(err)
			}
			n := map[p11.MechanismType]int{p11.CKM_DES3_CBC: 8, p11.CKM_AES_CBC: 16}[m]
			if _, err := do(t, tok, p11.CKF_ENCRYPT, p11.Mechanism{Type: m, Param: p11.IV(make([]byte, n))}, now, make([]byte, 16), 16, nil); err != nil {
				t.Errorf("%s, %s: %v", what, m.Short(), err)
			}
		}
	}
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit)
	if n, err := tok.Reencipher(ctx, nil); n != 1 || err != nil {
		t.Errorf("changed %d, %v", n, err)
	}
	if n, err := tok.Reencipher(ctx, nil); n != 0 || err != nil {
		t.Errorf("again, changed %d, %v", n, err)
	}
	d.change(t, softcca.AES, soft.ChangeActivate)
	works("set")
	if n, err := tok.FinalizeReencipher(ctx, nil); n != 1 || err != nil {
		t.Errorf("finalised %d, %v", n, err)
	}
	works("finalised")
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate, soft.ChangeNew, soft.ChangeCommit)
	works("under the key before")
	if n, err := tok.Reencipher(ctx, nil); n != 1 || err != nil {
		t.Errorf("of one left behind, changed %d, %v", n, err)
	}
	d.change(t, softcca.AES, soft.ChangeActivate)
	works("which then is two before")
}

// TestForceSensitive: a template has no other word for it.
func TestForceSensitive(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	tok.conf.sensitive = true
	a := template(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: make([]byte, 16)}, p11.Attribute{Type: p11.CKA_SENSITIVE, Value: p11.Bool(false)})
	a, err := tok.Adopt(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Bool(p11.CKA_SENSITIVE) {
		t.Error("the key is not sensitive")
	}
}

// TestPublicToken: the key token of a private half is not to be read from a public object, in
// which stock has it.
func TestPublicToken(t *testing.T) {
	t.Parallel()
	tok, _ := newToken(t)
	curve, _ := p11.CurveNamed("secp256r1")
	pub, priv, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}}, nil)
	if err == nil {
		pub, err = tok.Adopt(t.Context(), pub)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Visibility(pub, p11.CKA_IBM_OPAQUE); got == tokens.Withheld {
		t.Error("a public token is hidden")
	}
	secret, _ := priv.Get(p11.CKA_IBM_OPAQUE)
	pub.Set(p11.CKA_IBM_OPAQUE, secret)
	if got := tok.Visibility(pub, p11.CKA_IBM_OPAQUE); got != tokens.Withheld {
		t.Errorf("a private one in a public object is %v", got)
	}
}

// TestChangeWithin changes the master key in the middle of an operation: under the key before
// it goes on, and a change later the key is lost.
func TestChangeWithin(t *testing.T) {
	t.Parallel()
	tok, d := newToken(t)
	key := stored(t, tok, p11.CKM_GENERIC_SECRET_KEY_GEN, 32)
	m := p11.Mechanism{Type: p11.CKM_SHA256_HMAC}
	data := make([]byte, 3*256)
	want, err := do(t, tok, p11.CKF_SIGN, m, key, data, 256, nil)
	if err != nil {
		t.Fatal(err)
	}
	op, err := tok.Begin(t.Context(), p11.CKF_SIGN, m, key)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	for range 3 {
		if _, err := op.Update(t.Context(), data[:256]); err != nil {
			t.Fatal(err)
		}
	}
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	if got, err := op.(tokens.Resumer).Result(t.Context(), nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("under the key before: %x, %v", got, err)
	}
	d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	if _, err := op.Update(t.Context(), data); p11.RVOf(err) != p11.CKR_DEVICE_ERROR {
		t.Errorf("of a key that is lost: %v", err)
	}
}

// TestForgotten: keys for which nobody ran reencipher come along with finalize while the card
// still has the master key before, and are told of afterwards.
func TestForgotten(t *testing.T) {
	t.Parallel()
	tok, d := newToken(t)
	key := stored(t, tok, p11.CKM_GENERIC_SECRET_KEY_GEN, 32)
	sign := func() ([]byte, error) {
		now, err := tok.ByHandle(key.Handle)
		if err != nil {
			t.Fatal(err)
		}
		return do(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, now, []byte("data"), 4, nil)
	}
	want, err := sign()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
		if n, err := tok.FinalizeReencipher(t.Context(), nil); n != 1 || err != nil {
			t.Fatalf("finalised %d, %v", n, err)
		}
		if got, err := sign(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("brought along: %x, %v", got, err)
		}
	}
	for range 2 {
		d.change(t, softcca.AES, soft.ChangeNew, soft.ChangeCommit, soft.ChangeActivate)
	}
	if n, err := tok.FinalizeReencipher(t.Context(), nil); n != 0 || err == nil || !strings.Contains(err.Error(), "and 1 under none of the card") {
		t.Errorf("of a key that is lost: %d, %v", n, err)
	}
}
