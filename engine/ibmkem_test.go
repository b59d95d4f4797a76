package engine

import (
	"bytes"
	goecdh "crypto/ecdh"
	"errors"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// openCryptoki's encapsulation is a derivation with room for a ciphertext: without, there is
// no key. Another key that goes into the new one must allow it, and the new one is as safe
// if it may tell it.
func TestIBMKEM(t *testing.T) {
	b := newBench(t, hooks.Options{Also: []p11.MechanismType{
		p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, p11.CKM_IBM_ML_KEM, p11.CKM_IBM_ML_KEM_WITH_ECDH, p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKM_IBM_ML_DSA,
	}})
	s := b.user(t)
	pair := func(m p11.MechanismType, set, more string) (pub, priv p11.ObjectHandle) {
		t.Helper()
		pub, priv, err := s.GenerateKeyPair(t.Context(), p11.Mechanism{Type: m}, tmpl(t, set+" derive=true"), tmpl(t, "private=false "+more))
		want(t, err, p11.CKR_OK)
		return pub, priv
	}
	pub, priv := pair(p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, "ibm-parameter-set=1", "derive=true sensitive=false extractable=true ibm-parameter-set=1")
	_, _, err := s.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN}, tmpl(t, "ibm-parameter-set=1"), tmpl(t, "ibm-parameter-set=2"))
	want(t, err, p11.CKR_TEMPLATE_INCONSISTENT)
	_, _, err = s.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN}, nil, nil)
	want(t, err, p11.CKR_TEMPLATE_INCOMPLETE)
	if _, half := pair(p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, "", "ibm-parameter-set=2"); len(get(t, s, half, p11.CKA_IBM_ML_DSA_T1).Value) != 1920 {
		t.Error("the set of the private key is not taken")
	}

	const open = "sensitive=false extractable=true value-len=32"
	before := b.Stats().SessionObjects
	m := p11.Mechanism{Type: p11.CKM_IBM_ML_KEM, Param: &p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_NULL, Room: 767}}
	_, err = s.DeriveKeys(t.Context(), m, pub, tmpl(t, open))
	var short *BufferError
	if !errors.As(err, &short) || short.Need != 768 || b.Stats().SessionObjects != before {
		t.Errorf("room for 767 bytes: %v, %d objects more", err, b.Stats().SessionObjects-before)
	}
	m.Param.(*p11.IBMMLKEMParams).Room = 768
	one, err := s.DeriveKeys(t.Context(), m, pub, tmpl(t, open))
	want(t, err, p11.CKR_OK)
	m.Param = &p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_DECAPSULATE, KDF: p11.CKD_NULL, Ciphertext: one.Out}
	two, err := s.DeriveKeys(t.Context(), m, priv, tmpl(t, open))
	want(t, err, p11.CKR_OK)
	if !bytes.Equal(get(t, s, one.Key, p11.CKA_VALUE).Value, get(t, s, two.Key, p11.CKA_VALUE).Value) || len(two.Out) != 0 {
		t.Error("two sides with two secrets")
	}

	secret := func(more string) p11.ObjectHandle {
		return create(t, s, "class=secret-key key-type=generic-secret value=0x0102030405060708 "+more)
	}
	const ecdsa = "class=private-key key-type=ec ec-params=secp256r1 value=0x01 private=false "
	agree, mute := create(t, s, ecdsa+"derive=true"), create(t, s, ecdsa+"derive=false")
	// 1·G, the base point of the curve.
	base, err := goecdh.P256().NewPrivateKey(append(make([]byte, 31), 1))
	if err != nil {
		t.Fatal(err)
	}
	point := base.PublicKey().Bytes()
	hybrid := func(kdf p11.KDF, other p11.ObjectHandle) p11.Mechanism {
		return p11.Mechanism{Type: p11.CKM_IBM_ML_KEM, Param: &p11.IBMMLKEMParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: kdf, Secret: other, Room: 768}}
	}
	ecdh := func(other p11.ObjectHandle) p11.Mechanism {
		return p11.Mechanism{Type: p11.CKM_IBM_ML_KEM_WITH_ECDH, Param: &p11.IBMMLKEMECDHParams{Mode: p11.CK_IBM_ML_KEM_ENCAPSULATE, KDF: p11.CKD_NULL, ECKey: other, PublicData: point, Room: 768}}
	}
	for _, test := range []struct {
		name string
		m    p11.Mechanism
		rv   p11.RV
	}{
		{"an open key", hybrid(p11.CKD_NULL, secret("sensitive=false extractable=true derive=true")), p11.CKR_OK},
		{"one that is data", hybrid(p11.CKD_NULL, secret("sensitive=false extractable=true ibm-use-as-data=true")), p11.CKR_OK},
		{"one that is neither", hybrid(p11.CKD_NULL, secret("sensitive=false extractable=true")), p11.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{"a sensitive one", hybrid(p11.CKD_NULL, secret("sensitive=true extractable=true derive=true")), p11.CKR_TEMPLATE_INCONSISTENT},
		{"one that stays", hybrid(p11.CKD_IBM_HYBRID_NULL, secret("sensitive=false extractable=false derive=true")), p11.CKR_TEMPLATE_INCONSISTENT},
		{"a sensitive one through a function", hybrid(p11.CKD_SHA256_KDF, secret("sensitive=true extractable=false derive=true")), p11.CKR_OK},
		{"a private key for a secret", hybrid(p11.CKD_NULL, agree), p11.CKR_KEY_TYPE_INCONSISTENT},
		{"ECDH", ecdh(agree), p11.CKR_OK},
		{"ECDH with a key that derives not", ecdh(mute), p11.CKR_KEY_FUNCTION_NOT_PERMITTED},
		{"ECDH with a secret key", ecdh(secret("derive=true")), p11.CKR_KEY_TYPE_INCONSISTENT},
		{"ECDH with none", ecdh(0), p11.CKR_MECHANISM_PARAM_INVALID},
		{"ECDH with what is not there", ecdh(99999), p11.CKR_KEY_HANDLE_INVALID},
	} {
		_, err := s.DeriveKeys(t.Context(), test.m, pub, tmpl(t, open))
		if p11.RVOf(err) != test.rv {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// What is secret in a key of openCryptoki's types is not told where the key is sensitive.
func TestIBMSecretParts(t *testing.T) {
	b := newBench(t, hooks.Options{Also: []p11.MechanismType{
		p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN, p11.CKM_IBM_ML_KEM, p11.CKM_IBM_ML_KEM_WITH_ECDH, p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKM_IBM_ML_DSA,
	}})
	s := b.user(t)
	for _, m := range []p11.MechanismType{p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN, p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN} {
		_, priv, err := s.GenerateKeyPair(t.Context(), p11.Mechanism{Type: m}, tmpl(t, "ibm-parameter-set=1"), tmpl(t, "sensitive=true extractable=true"))
		want(t, err, p11.CKR_OK)
		withheld := 0
		for _, at := range []p11.AttributeType{
			p11.CKA_VALUE, p11.CKA_IBM_ML_DSA_SEED, p11.CKA_IBM_ML_DSA_TR, p11.CKA_IBM_ML_DSA_S1, p11.CKA_IBM_ML_DSA_S2, p11.CKA_IBM_ML_DSA_T0,
			p11.CKA_IBM_ML_DSA_PRIVATE_SEED, p11.CKA_IBM_ML_KEM_SK, p11.CKA_IBM_ML_KEM_PRIVATE_SEED,
		} {
			r := get(t, s, priv, at)
			switch p11.RVOf(r.Err) {
			case p11.CKR_ATTRIBUTE_SENSITIVE:
				withheld++
			case p11.CKR_ATTRIBUTE_TYPE_INVALID: // of the other type
			default:
				t.Errorf("%s of %s: %x, %v", at.Short(), m.Short(), r.Value, r.Err)
			}
		}
		if least := map[p11.MechanismType]int{p11.CKM_IBM_ML_DSA_KEY_PAIR_GEN: 7, p11.CKM_IBM_ML_KEM_KEY_PAIR_GEN: 3}[m]; withheld < least {
			t.Errorf("%s: %d attributes are withheld, of %d", m.Short(), withheld, least)
		}
	}
}
