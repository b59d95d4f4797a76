package swtok

import (
	"bytes"
	"slices"
	"testing"

	"p11fs/p11"
)

// PKCS#11 v3.1 §6.3.1: r and s may come without zeros in front, in the same length.
// The first byte of a number of P-521 is 0 half of the time.
func TestECDSAWithoutZeros(t *testing.T) {
	eachProvider(t, func(t *testing.T, c *Crypto) {
		pub, priv := generatedEC(t, c, curveNamed(t, "P-521"))
		m, digest, n := p11.Mechanism{Type: p11.CKM_ECDSA}, make([]byte, 32), 66
		sig := []byte{1}
		for sig[0] != 0 || sig[n] != 0 {
			var err error
			if sig, err = signAll(c, m, priv, digest); err != nil {
				t.Fatal(err)
			}
		}
		for name, test := range map[string]struct {
			sig  []byte
			want p11.RV
		}{
			"whole": {sig, p11.CKR_OK}, "short": {slices.Concat(sig[1:n], sig[n+1:]), p11.CKR_OK},
			"odd": {sig[1:], p11.CKR_SIGNATURE_LEN_RANGE}, "empty": {nil, p11.CKR_SIGNATURE_LEN_RANGE},
			"one byte": {sig[:1], p11.CKR_SIGNATURE_LEN_RANGE},
			"longer":   {slices.Concat([]byte{0}, sig[:n], []byte{0}, sig[n:]), p11.CKR_SIGNATURE_LEN_RANGE},
			"other":    {bytes.Repeat([]byte{1}, 2*n-2), p11.CKR_SIGNATURE_INVALID},
		} {
			if err := verifyAll(c, m, pub, digest, test.sig); p11.RVOf(err) != test.want {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
		}
	})
}
