package ep11tok

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// TestCompressedPoint brings a public key in whose point is compressed, and agrees with one:
// the card has both as any others.
func TestCompressedPoint(t *testing.T) {
	t.Parallel()
	s := sit(t)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	compressed := elliptic.MarshalCompressed(own.Curve, own.X, own.Y)
	a := parse(t, "class=public-key key-type=ec ec-params=0x06082a8648ce3d030107 verify=true")
	a.Set(p11.CKA_EC_POINT, pkix.DERPoint(compressed))
	public := held(t, s.tok, a)
	digest := sha256.Sum256([]byte("data"))
	r, z, err := ecdsa.Sign(rand.Reader, own, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	z.FillBytes(signature[32:])
	if _, err := whole(t, s.tok, p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, public, []byte("data"), signature); err != nil {
		t.Error(err)
	}
	signature[5] ^= 1
	_, err = whole(t, s.tok, p11.CKF_VERIFY, p11.Mechanism{Type: p11.CKM_ECDSA_SHA256}, public, []byte("data"), signature)
	s.wantRV(err, p11.CKR_SIGNATURE_INVALID)
	_, b, err := s.tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_EC_KEY_PAIR_GEN}, parse(t, "ec-params=0x06082a8648ce3d030107"), parse(t, "derive=true"))
	if err != nil {
		t.Fatal(err)
	}
	private := held(t, s.tok, b)
	m := p11.Mechanism{Type: p11.CKM_ECDH1_DERIVE, Param: &p11.ECDH1Params{KDF: p11.CKD_NULL, PublicData: compressed}}
	if _, err := s.tok.DeriveKey(t.Context(), m, private, parse(t, "class=secret-key key-type=aes value-len=32")); err != nil {
		t.Error(err)
	}
}
