package securekey

import (
	"testing"

	"p11fs/p11"
)

// TestPublicHalf: the numbers of a private key's object are its public half, whatever a program
// wrote into CKA_PUBLIC_KEY_INFO; without numbers that is believed; and with neither, as in keys
// on curves that stock's tokens of 3.8 have made, nothing is made up.
func TestPublicHalf(t *testing.T) {
	const (
		private = "class=private-key key-type=ec ec-params=secp256r1"
		point   = "0x0441046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
		spki    = "0x3059301306072a8648ce3d020106082a8648ce3d030107034200" + "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
	)
	for name, tt := range map[string]struct {
		key string
		rv  p11.RV
	}{
		"numbers":              {private + " ec-point=" + point, p11.CKR_OK},
		"numbers, and a lie":   {private + " ec-point=" + point + " public-key-info=0x3003020101", p11.CKR_OK},
		"no numbers":           {private + " public-key-info=" + spki, p11.CKR_OK},
		"neither":              {private, p11.CKR_PUBLIC_KEY_INVALID},
		"of another type":      {"class=private-key key-type=rsa public-key-info=" + spki, p11.CKR_PUBLIC_KEY_INVALID},
		"no public-key-info":   {private + " public-key-info=0x3003020101", p11.CKR_PUBLIC_KEY_INVALID},
		"a key that is secret": {"class=secret-key key-type=aes", p11.CKR_KEY_TYPE_INCONSISTENT},
	} {
		t.Run(name, func(t *testing.T) {
			half, err := PublicHalf(parse(t, tt.key), parse(t, "class=public-key label=half"))
			if p11.RVOf(err) != tt.rv && (err != nil || tt.rv != p11.CKR_OK) {
				t.Fatalf("%v, want %v", err, tt.rv)
			}
			if tt.rv == p11.CKR_OK && !half.Match(parse(t, "class=public-key label=half key-type=ec ec-params=secp256r1 ec-point="+point)) {
				t.Errorf("the half is %v", half)
			}
		})
	}
}
