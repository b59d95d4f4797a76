package ep11tok

import (
	"bytes"
	"crypto/hmac"
	"testing"

	"p11fs/p11"
)

// TestSHA3 digests and signs by the card under IBM's numbers and the standard's, in one part and
// in many, with Go's library as the judge.
func TestSHA3(t *testing.T) {
	t.Parallel()
	via, _ := softCard(t)
	tok := bed{via: via}.token(t, t.TempDir())
	message, value := bytes.Repeat([]byte("a message "), 10000), bytes.Repeat([]byte{7}, 200)
	key := held(t, tok, p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
		{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}, {Type: p11.CKA_SIGN, Value: p11.Bool(true)}, {Type: p11.CKA_VERIFY, Value: p11.Bool(true)},
	})
	var all []p11.MechanismType
	for _, h := range allSHA3() {
		all = append(all, h.hash, h.hmac, h.ibm, h.ibmHMAC)
	}
	for _, mt := range all {
		m := p11.Mechanism{Type: mt}
		facts, _ := p11.MechanismFacts(mt)
		if facts.Hash == 0 {
			h, _ := p11.HashOf(mt)
			x := h.Go.New()
			x.Write(message)
			if sum, err := whole(t, tok, p11.CKF_DIGEST, m, nil, message, nil); err != nil || !bytes.Equal(sum, x.Sum(nil)) {
				t.Errorf("%s: %x, %v", mt.Short(), sum, err)
			}
			continue
		}
		h, _ := p11.HashOf(facts.Hash)
		x := hmac.New(h.Go.New, value)
		x.Write(message)
		mac, err := whole(t, tok, p11.CKF_SIGN, m, key, message, nil)
		if err != nil || !bytes.Equal(mac, x.Sum(nil)) {
			t.Errorf("%s: %x, %v", mt.Short(), mac, err)
			continue
		}
		if _, err := whole(t, tok, p11.CKF_VERIFY, m, key, message, mac); err != nil {
			t.Errorf("%s: %v", mt.Short(), err)
		}
		if _, err := whole(t, tok, p11.CKF_VERIFY, m, key, message[1:], mac); p11.RVOf(err) != p11.CKR_SIGNATURE_INVALID {
			t.Errorf("%s: another message: %v", mt.Short(), err)
		}
	}
}

// TestPublicHalf makes public halves of private keys, which verify what those sign, and asks no
// card for them.
func TestPublicHalf(t *testing.T) {
	via, _ := softCard(t)
	calls := 0
	tok := bed{via: counted{via, &calls}}.token(t, t.TempDir())
	for name, tt := range map[string]struct {
		make, sign p11.MechanismType
		template   string
	}{
		"rsa":     {p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_SHA256_RSA_PKCS, "modulus-bits=2048"},
		"ec":      {p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_ECDSA_SHA256, "ec-params=secp256r1"},
		"ed25519": {p11.CKM_EC_EDWARDS_KEY_PAIR_GEN, p11.CKM_EDDSA, "ec-params=ed25519"},
	} {
		t.Run(name, func(t *testing.T) {
			_, private, err := tok.GenerateKeyPair(t.Context(), p11.Mechanism{Type: tt.make}, parse(t, tt.template+" verify=true"), parse(t, "sign=true"))
			if err != nil {
				t.Fatal(err)
			}
			priv := held(t, tok, private)
			before := calls
			a, err := tok.DeriveKey(t.Context(), p11.Mechanism{Type: p11.CKM_PUB_KEY_FROM_PRIV_KEY}, priv, parse(t, "class=public-key verify=true label=half"))
			if err != nil {
				t.Fatal(err)
			}
			if calls != before {
				t.Errorf("the card was asked %d times", calls-before)
			}
			half := held(t, tok, a)
			m := p11.Mechanism{Type: tt.sign}
			sig, err := whole(t, tok, p11.CKF_SIGN, m, priv, []byte("hello"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := whole(t, tok, p11.CKF_VERIFY, m, half, []byte("hello"), sig); err != nil {
				t.Error(err)
			}
		})
	}
}
