package soft

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/swtok"
)

// wrapped wraps a value for the card, as programs bring keys in.
func (b bench) wrapped(t *testing.T, value []byte) (kek, wrapped []byte, m p11.Mechanism) {
	t.Helper()
	kek = b.secretKey(t, "aes-key-gen", "value-len=32 encrypt=true unwrap=true")
	m = mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000001")
	return kek, must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, kek, m, value)), m
}

// TestEdwards makes keys of EdDSA as cards do, as keys of EC, brings one in, and has Go's
// library look at the signatures.
func TestEdwards(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	message, ed := bytes.Repeat([]byte("a message "), 100), p11.Mechanism{Type: p11.CKM_IBM_ED25519_SHA512}
	made, madePublic := b.pair(t, "ec-key-pair-gen", "ec-params=ed25519 verify=true", "sign=true")
	own := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, ed25519.SeedSize))
	kek, wrapped, pad := b.wrapped(t, must[[]byte](t)(x509.MarshalPKCS8PrivateKey(own)))
	for _, text := range []string{"ec-params=ed25519", ""} { // programs do not always say it
		brought, public, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, pad, template(t, "class=private-key key-type=ec sign=true "+text))
		if err != nil {
			t.Fatal(err)
		}
		for key, spki := range map[*[]byte]ep11.Blob{&brought: public, (*[]byte)(&made): madePublic} {
			sig := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, *key, ed, message))
			attrs := must[p11.Attributes](t)(publicOf(spki))
			der, _ := attrs.Get(p11.CKA_EC_POINT)
			curve, _ := p11.CurveNamed("ed25519")
			if point := must[[]byte](t)(pkix.OctetPoint(curve, der)); !ed25519.Verify(point, message, sig) {
				t.Error("Go's library refuses the signature")
			}
			if err := ep11.VerifySingle(t.Context(), b.via, nil, spki, ed, message, sig); err != nil {
				t.Error(err)
			}
			if err := ep11.VerifySingle(t.Context(), b.via, nil, spki, ed, message[1:], sig); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
				t.Errorf("another message: %v", err)
			}
			for _, m := range []p11.MechanismType{p11.CKM_ECDSA, p11.CKM_IBM_ED448_SHA3} {
				if _, err := ep11.SignSingle(t.Context(), b.via, nil, *key, p11.Mechanism{Type: m}, message[:32]); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
					t.Errorf("it signs by %v: %v", m, err)
				}
			}
		}
		if sig := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, brought, ed, message)); !bytes.Equal(sig, ed25519.Sign(own, message)) {
			t.Errorf("another signature than Go's: %x", sig)
		}
	}
	parts := inParts(t, message, func() ([]byte, error) { return ep11.SignInit(t.Context(), b.via, nil, ed, made) },
		func(state, part []byte) ([]byte, []byte, error) {
			return noOutput(ep11.SignUpdate(t.Context(), b.via, nil, state, part))
		},
		func(state []byte) ([]byte, error) { return ep11.SignFinal(t.Context(), b.via, nil, state) })
	if single := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, made, ed, message)); !bytes.Equal(single, parts) {
		t.Errorf("in parts %x, in one %x", parts, single)
	}
	if _, _, err := ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, kek, nil, nil, pad, template(t, "class=private-key key-type=ec sign=true ec-params=secp256r1")); err == nil {
		t.Error("it is a key on P-256")
	}
	other, _ := b.pair(t, "ec-key-pair-gen", "ec-params=secp256r1 verify=true", "sign=true")
	if _, err := ep11.SignSingle(t.Context(), b.via, nil, other, ed, message); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
		t.Errorf("a key on P-256 signs: %v", err)
	}
	key, spki := b.pair(t, "ec-key-pair-gen", "ec-params=ed448 verify=true", "sign=true")
	m := p11.Mechanism{Type: p11.CKM_IBM_ED448_SHA3}
	sig := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, key, m, message))
	if err := ep11.VerifySingle(t.Context(), b.via, nil, spki, m, message, sig); err != nil || len(sig) != 114 {
		t.Errorf("Ed448: %d bytes, %v", len(sig), err)
	}
}

// TestMontgomery agrees on a key with Go's library.
func TestMontgomery(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key, spki := b.pair(t, "ec-key-pair-gen", "ec-params=x25519", "derive=true")
	attrs := must[p11.Attributes](t)(publicOf(spki))
	der, _ := attrs.Get(p11.CKA_EC_POINT)
	curve, _ := p11.CurveNamed("x25519")
	peer := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(rand.Reader))
	z := must[[]byte](t)(peer.ECDH(must[*ecdh.PublicKey](t)(ecdh.X25519().NewPublicKey(must[[]byte](t)(pkix.OctetPoint(curve, der))))))
	derive := func(m p11.MechanismType) ([]byte, error) {
		k, _, err := ep11.DeriveKey(t.Context(), b.via, nil, p11.Mechanism{Type: m, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: peer.PublicKey().Bytes()}},
			template(t, "class=secret-key key-type=aes value-len=32 encrypt=true"), key, nil, nil)
		return k, err
	}
	k := must[[]byte](t)(derive(p11.CKM_IBM_EC_X25519))
	got := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, k, mech(t, "aes-ecb"), make([]byte, 16)))
	same := b.importKey(t, z, "class=secret-key key-type=aes encrypt=true")
	if want := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, same, mech(t, "aes-ecb"), make([]byte, 16))); !bytes.Equal(got, want) {
		t.Error("another key than Go's")
	}
	for _, m := range []p11.MechanismType{p11.CKM_ECDH1_DERIVE, p11.CKM_IBM_EC_X448} {
		if _, err := derive(m); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
			t.Errorf("%v: %v", m, err)
		}
	}
}

// TestPoint25519 switches the curves off.
func TestPoint25519(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	key, _ := b.pair(t, "ec-key-pair-gen", "ec-params=ed25519 verify=true", "sign=true")
	b.switchPoint(t, point25519, false)
	if _, err := ep11.SignSingle(t.Context(), b.via, nil, key, p11.Mechanism{Type: p11.CKM_IBM_ED25519_SHA512}, []byte("x")); p11.RVOf(err) != ep11.StaticPolicy {
		t.Errorf("it signs: %v", err)
	}
	if _, _, err := ep11.GenerateKeyPair(t.Context(), b.via, nil, mech(t, "ec-key-pair-gen"), template(t, "ec-params=x25519"), nil, nil); p11.RVOf(err) != ep11.StaticPolicy {
		t.Errorf("it makes keys: %v", err)
	}
	b.pair(t, "ec-key-pair-gen", "ec-params=secp256r1 verify=true", "sign=true") // others it makes
}
