package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"strings"
	"testing"
)

// TestSignerHash: what is to be hashed by a hash that the tree has no word for is not hashed by
// another.
func TestSignerHash(t *testing.T) {
	t.Parallel()
	for _, public := range []crypto.PublicKey{&rsa.PublicKey{}, &ecdsa.PublicKey{}} {
		s := &signer{name: "swtok/web.key", public: public}
		if _, err := s.SignMessage(nil, []byte("x"), crypto.MD5); err == nil || !strings.Contains(err.Error(), "MD5") {
			t.Errorf("%T: %v", public, err)
		}
	}
}
