package ep11tok

import (
	"testing"

	"p11fs/p11"
)

// TestStrengthPoints: the token's list has the sizes that the control points of strength leave,
// and a key that they do not leave is refused by name.
func TestStrengthPoints(t *testing.T) {
	t.Parallel()
	s := sit(t)
	m := p11.Mechanism{Type: p11.CKM_SHA256_RSA_PKCS}
	a, b, err := s.tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: p11.CKM_RSA_PKCS_KEY_PAIR_GEN}, parse(t, "modulus-bits=1024"), nil)
	if err != nil {
		t.Fatal(err)
	}
	public, private := held(t, s.tok, a), held(t, s.tok, b)
	signature, err := whole(t, s.tok, p11.CKF_SIGN, m, private, []byte("data"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		off  int
		m    p11.MechanismType
		from uint64
		to   uint64 // 0 for a mechanism that is there no more
	}{
		{24, p11.CKM_RSA_PKCS_KEY_PAIR_GEN, 2048, 4096},
		{25, p11.CKM_DES3_CBC, 0, 0},
		{28, p11.CKM_AES_KEY_GEN, 16, 24},
		{26, p11.CKM_EC_KEY_PAIR_GEN, 384, 511},
		{27, p11.CKM_AES_KEY_GEN, 0, 0},
	} {
		s.point(tt.off, false)
		s.tok.Describe(t.Context()) // which asks the cards anew
		info, err := s.tok.cards.info(tt.m, ^p11.Flags(0))
		if (err == nil) != (tt.to > 0) || info.MinKeySize != tt.from || info.MaxKeySize != tt.to {
			t.Errorf("without point %d %s is %v, %v", tt.off, tt.m.Short(), info, err)
		}
		if tt.off == 24 { // what a weak key has signed can be verified
			_, err := whole(t, s.tok, p11.CKF_SIGN, m, private, []byte("data"), nil)
			s.wantRV(err, p11.CKR_KEY_SIZE_RANGE)
			if _, err = whole(t, s.tok, p11.CKF_VERIFY, m, public, []byte("data"), signature); err != nil {
				t.Errorf("verify with 1024 bits: %v", err)
			}
		}
		if tt.off == 28 {
			_, err := s.tok.GenerateKey(t.Context(), p11.Mechanism{Type: tt.m}, parse(t, "class=secret-key key-type=aes value-len=32"))
			s.wantRV(err, p11.CKR_KEY_SIZE_RANGE)
		}
	}
}
