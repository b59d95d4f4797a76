package ep11tok

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
)

// octetPair is a pair of keys on a curve, as the engine has them.
func octetPair(t *testing.T, tok *token, m p11.MechanismType, curve p11.Curve) (pub, priv *tokens.Object) {
	t.Helper()
	a, b, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: m}, p11.Attributes{{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return held(t, tok, a), held(t, tok, b)
}

func held(t *testing.T, tok *token, a p11.Attributes) *tokens.Object {
	t.Helper()
	a, err := tok.Adopt(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	o := tokens.NewObject(tokens.NewHandle(), "", a)
	t.Cleanup(o.Drop)
	return o
}

// whole is an operation whose message comes in two parts.
func whole(t *testing.T, tok *token, use p11.Flags, m p11.Mechanism, key *tokens.Object, data, signature []byte) ([]byte, error) {
	t.Helper()
	op, err := tok.Begin(t.Context(), use, m, key)
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var out []byte
	for _, part := range [][]byte{data[:len(data)/3], data[len(data)/3:]} {
		x, err := op.Update(t.Context(), part)
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
	}
	rest, err := op.Final(t.Context(), signature)
	return append(out, rest...), err
}

func valueOf(t *testing.T, o *tokens.Object, at p11.AttributeType) []byte {
	t.Helper()
	a, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	v, _ := a.Get(at)
	return bytes.Clone(v)
}

// TestEdDSA signs by the card with keys that it makes and one that is brought in, a message
// longer than what other keys take at once.
func TestEdDSA(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	tok := bed{via: via}.token(t, t.TempDir())
	curve, _ := p11.CurveNamed("ed25519")
	m, message := p11.Mechanism{Type: p11.CKM_EDDSA}, bytes.Repeat([]byte("a message "), 10000)
	pub, priv := octetPair(t, tok, p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, curve)
	seed := bytes.Repeat([]byte{9}, ed25519.SeedSize)
	private := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_EC_EDWARDS)},
		{Type: p11.CKA_EC_PARAMS, Value: curve.Params()}, {Type: p11.CKA_VALUE, Value: bytes.Clone(seed)},
	}
	brought := held(t, tok, private)
	if blob := valueOf(t, brought, p11.CKA_IBM_OPAQUE); len(valueOf(t, brought, p11.CKA_VALUE)) > 0 || len(blob) == 0 || bytes.Contains(blob, seed) {
		t.Error("the private value is left")
	}
	sig, err := whole(t, tok, p11.CKF_SIGN, m, brought, message, nil)
	if err != nil || !bytes.Equal(sig, ed25519.Sign(ed25519.NewKeyFromSeed(seed), message)) {
		t.Errorf("another signature than Go's: %x, %v", sig, err)
	}
	if sig, err = whole(t, tok, p11.CKF_SIGN, m, priv, message, nil); err != nil {
		t.Fatal(err)
	}
	point, err := pkix.OctetPoint(curve, valueOf(t, pub, p11.CKA_EC_POINT))
	if err != nil || !ed25519.Verify(point, message, sig) {
		t.Errorf("Go's library refuses the signature: %v", err)
	}
	if _, err := whole(t, tok, p11.CKF_VERIFY, m, pub, message, sig); err != nil {
		t.Error(err)
	}
	if _, err := whole(t, tok, p11.CKF_VERIFY, m, pub, message[1:], sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
		t.Errorf("another message: %v", err)
	}
	for _, p := range []*p11.EdDSAParams{{Prehash: true}, {Context: []byte("x")}} {
		if _, err := whole(t, tok, p11.CKF_SIGN, p11.Mechanism{Type: p11.CKM_EDDSA, Param: p}, priv, message, nil); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("%+v: %v", p, err)
		}
	}
	ed448, _ := p11.CurveNamed("ed448")
	pub, priv = octetPair(t, tok, p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, ed448)
	m.Param = &p11.EdDSAParams{}
	if sig, err = whole(t, tok, p11.CKF_SIGN, m, priv, message, nil); err == nil {
		_, err = whole(t, tok, p11.CKF_VERIFY, m, pub, message, sig)
	}
	if err != nil || len(sig) != 114 {
		t.Errorf("Ed448: %d bytes, %v", len(sig), err)
	}
}

// TestX25519 agrees on a key of the card with Go's library.
func TestX25519(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	tok := bed{via: via}.token(t, t.TempDir())
	curve, _ := p11.CurveNamed("x25519")
	pub, priv := octetPair(t, tok, p11.CKM_EC_MONTGOMERY_KEY_PAIR_GEN, curve)
	point, err := pkix.OctetPoint(curve, valueOf(t, pub, p11.CKA_EC_POINT))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	z, err := peer.ECDH(mine)
	if err != nil {
		t.Fatal(err)
	}
	key := func(value []byte) p11.Attributes {
		a := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_AES)}}
		if value == nil {
			a.SetUlong(p11.CKA_VALUE_LEN, 32)
			return a
		}
		a.Set(p11.CKA_VALUE, value)
		return a
	}
	derived, err := tok.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: peer.PublicKey().Bytes()}}, priv, key(nil))
	if err != nil {
		t.Fatal(err)
	}
	ecb := p11.Mechanism{Type: p11.CKM_AES_ECB}
	got, err := whole(t, tok, p11.CKF_ENCRYPT, ecb, held(t, tok, derived), make([]byte, 48), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := whole(t, tok, p11.CKF_ENCRYPT, ecb, held(t, tok, key(z)), make([]byte, 48), nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("another key than Go's: %v", err)
	}
}
