package soft

import (
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card/ep11"
	"p11fs/tokens/swtok"
)

// TestStrengthPoints switches each strength off: no key of it is made, brought in, derived or
// used any more, others are, and the list says so. What a weak key has signed can be verified.
func TestStrengthPoints(t *testing.T) {
	b := newBench(t, swtok.GoProvider())
	const below, of80, of112, of128, of192, of256 = 23, 24, 25, 26, 27, 28
	const p256, p384 = "ec-params=0x06082a8648ce3d030107", "ec-params=0x06052b81040022"
	pad := mech(t, "aes-cbc-pad iv=0x00000000000000000000000000000000")
	makes := func(m, text string, rv p11.RV) {
		t.Helper()
		_, _, err := ep11.GenerateKey(t.Context(), b.via, nil, mech(t, m), template(t, text), nil)
		wants(t, m+" "+text, err, rv)
	}
	pairs := func(m, text string, rv p11.RV) {
		t.Helper()
		_, _, err := ep11.GenerateKeyPair(t.Context(), b.via, nil, mech(t, m), template(t, text), nil, nil)
		wants(t, m+" "+text, err, rv)
	}
	sizes := func(m p11.MechanismType, least, most uint64) {
		t.Helper()
		list := must[[]uint64](t)(ep11.GetMechanismList(t.Context(), b.via, nil, 0))
		info, err := ep11.GetMechanismInfo(t.Context(), b.via, nil, 0, uint64(m))
		switch listed := slices.Contains(list, uint64(m)); {
		case most == 0 && (listed || p11.RVOf(err) != p11.CKR_MECHANISM_INVALID):
			t.Errorf("%s is there still: %v, %v", m.Short(), listed, err)
		case most > 0 && (!listed || err != nil || info[0] != least || info[1] != most):
			t.Errorf("%s: %v of %v, %v", m.Short(), listed, info, err)
		}
	}
	weak, weakPublic := b.pair(t, "rsa-pkcs-key-pair-gen", "modulus-bits=1024 verify=true wrap=true", "sign=true")
	aes16 := b.secretKey(t, "aes-key-gen", "value-len=16 encrypt=true unwrap=true extractable=true")
	mac := b.secretKey(t, "generic-secret-key-gen", "key-type=generic-secret value-len=16 sign=true extractable=true")
	signature := must[[]byte](t)(ep11.SignSingle(t.Context(), b.via, nil, weak, mech(t, "sha256-rsa-pkcs"), []byte("x")))
	wrapped := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, aes16, pad, make([]byte, 16)))

	b.switchPoint(t, below, false)
	makes("generic-secret-key-gen", "key-type=generic-secret value-len=16", p11.CKR_OK)
	sizes(p11.CKM_SHA256_HMAC, 10, 256)

	b.switchPoint(t, of80, false)
	_, err := ep11.SignSingle(t.Context(), b.via, nil, weak, mech(t, "sha256-rsa-pkcs"), []byte("x"))
	wants(t, "sign with 1024 bits", err, ep11.StaticPolicy)
	wants(t, "verify with 1024 bits", ep11.VerifySingle(t.Context(), b.via, nil, weakPublic, mech(t, "sha256-rsa-pkcs"), []byte("x"), signature), p11.CKR_OK)
	_, err = ep11.WrapKey(t.Context(), b.via, nil, mac, weakPublic, nil, mech(t, "rsa-pkcs"))
	wants(t, "wrap under 1024 bits", err, ep11.StaticPolicy)
	pairs("rsa-pkcs-key-pair-gen", "modulus-bits=1024", ep11.StaticPolicy)
	makes("generic-secret-key-gen", "key-type=generic-secret value-len=12", ep11.StaticPolicy)
	sizes(p11.CKM_RSA_PKCS, 2048, 4096)
	sizes(p11.CKM_DES3_CBC, 24, 24)

	b.switchPoint(t, of112, false)
	sizes(p11.CKM_DES3_CBC, 0, 0)
	makes("des3-key-gen", "", ep11.StaticPolicy)

	b.switchPoint(t, of128, false)
	pairs("ec-key-pair-gen", p256, ep11.StaticPolicy)
	pairs("ec-key-pair-gen", p384, p11.CKR_OK)
	sizes(p11.CKM_AES_CBC, 24, 32)
	makes("aes-key-gen", "value-len=16", ep11.StaticPolicy)
	makes("aes-key-gen", "value-len=32", p11.CKR_OK)
	_, err = ep11.EncryptSingle(t.Context(), b.via, nil, aes16, pad, nil)
	wants(t, "encrypt with 16 bytes", err, ep11.StaticPolicy)
	wants(t, "a MAC with 16 bytes", sign(t, b, nil, mac), ep11.StaticPolicy)
	b.switchPoint(t, of128, true)
	b.switchPoint(t, of256, false)
	_, _, err = ep11.UnwrapKey(t.Context(), b.via, nil, wrapped, aes16, nil, nil, pad, template(t, "class=secret-key key-type=generic-secret"))
	wants(t, "bring 16 bytes in", err, p11.CKR_OK)
	b.switchPoint(t, of192, false)
	long := must[[]byte](t)(ep11.EncryptSingle(t.Context(), b.via, nil, aes16, pad, make([]byte, 32)))
	_, _, err = ep11.UnwrapKey(t.Context(), b.via, nil, long, aes16, nil, nil, pad, template(t, "class=secret-key key-type=aes"))
	wants(t, "bring 32 bytes in", err, ep11.StaticPolicy)
	pairs("ec-key-pair-gen", p384, ep11.StaticPolicy)
	sizes(p11.CKM_AES_CBC, 16, 16)
}
