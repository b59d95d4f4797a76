package tokentest

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// publicHalves derives the public half of each private key of the ring.
func (r *ring) publicHalves(t *testing.T, m p11.Mechanism) {
	done := 0
	for kt, priv := range r.priv {
		pub := r.pub[kt]
		if pub == priv {
			continue
		}
		done++
		a, err := r.tok.(tokens.KeyDeriver).DeriveKey(t.Context(), m, priv, keyTemplate(p11.CKO_PUBLIC_KEY, kt))
		if err != nil {
			t.Errorf("%s: %v", kt, err)
			continue
		}
		half := adopted(t, r.tok, a)
		if got, want := attribute(t, half, p11.CKA_PUBLIC_KEY_INFO), attribute(t, pub, p11.CKA_PUBLIC_KEY_INFO); !bytes.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s: the half is %x, want %x", kt, got, want)
		}
	}
	if done == 0 {
		t.Error("the token has no pairs")
	}
}
