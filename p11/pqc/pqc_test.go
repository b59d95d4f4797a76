package pqc

import (
	"bytes"
	"crypto/rand"
	"testing"

	"p11fs/p11"
)

// Sizes are those of the tables of FIPS 204 §4, FIPS 205 §11 and FIPS 203 §8.
func TestSizes(t *testing.T) {
	for name, want := range map[string][5]int{ // public, private, seed, signature, ciphertext
		"ml-dsa-44":          {1312, 2560, 32, 2420, 0},
		"ml-dsa-65":          {1952, 4032, 32, 3309, 0},
		"ml-dsa-87":          {2592, 4896, 32, 4627, 0},
		"slh-dsa-sha2-128s":  {32, 64, 0, 7856, 0},
		"slh-dsa-shake-128f": {32, 64, 0, 17088, 0},
		"slh-dsa-sha2-192s":  {48, 96, 0, 16224, 0},
		"slh-dsa-shake-192f": {48, 96, 0, 35664, 0},
		"slh-dsa-sha2-256s":  {64, 128, 0, 29792, 0},
		"slh-dsa-shake-256f": {64, 128, 0, 49856, 0},
		"ml-kem-512":         {800, 1632, 64, 0, 768},
		"ml-kem-768":         {1184, 2400, 64, 0, 1088},
		"ml-kem-1024":        {1568, 3168, 64, 0, 1568},
	} {
		s, ok := SetNamed(name)
		if got := [5]int{s.PublicSize, s.PrivateSize, s.SeedSize, s.SignatureSize, s.CiphertextSize}; !ok || got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	seen := make(map[string]bool)
	for _, s := range Sets() {
		if again, ok := SetOf(s.KeyType, s.Number); !ok || again.Name != s.Name || seen[s.OID] {
			t.Errorf("%s is found as %s, or its OID was another's", s.Name, again.Name)
		}
		seen[s.OID] = true
	}
	if len(seen) != 18 {
		t.Errorf("%d sets", len(seen))
	}
}

// quick are sets of each kind that take no time.
func quick(t *testing.T) (list []Set) {
	for _, name := range []string{"ml-dsa-44", "ml-dsa-65", "ml-dsa-87", "slh-dsa-sha2-128f", "ml-kem-512", "ml-kem-768", "ml-kem-1024"} {
		s, ok := SetNamed(name)
		if !ok {
			t.Fatal(name)
		}
		list = append(list, s)
	}
	return list
}

// A key whose parts do not belong together is refused: each of its bytes is a part.
func TestCheck(t *testing.T) {
	for _, s := range quick(t) {
		t.Run(s.Name, func(t *testing.T) {
			p, err := s.Generate(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if public, err := s.Check(p.Private); err != nil || !bytes.Equal(public, p.Public) {
				t.Fatalf("another public key, or %v", err)
			}
			if s.SeedSize > 0 {
				again, err := s.Expand(bytes.Clone(p.Seed))
				if err != nil || !bytes.Equal(again.Private, p.Private) || !bytes.Equal(again.Public, p.Public) {
					t.Errorf("the seed makes another pair, or %v", err)
				}
			}
			for _, n := range []int{0, len(p.Private) - 1, len(p.Private) + 1} {
				if _, err := s.Check(make([]byte, n)); err == nil {
					t.Errorf("%d bytes are a key", n)
				}
			}
			if _, err := s.Check(make([]byte, len(p.Private))); err == nil {
				t.Error("zeros are a key")
			}
			if _, err := s.Check(bytes.Repeat([]byte{0xff}, len(p.Private))); err == nil {
				t.Error("ones are a key")
			}
			for _, at := range wrongBytes(s) {
				bad := bytes.Clone(p.Private)
				bad[at] ^= 0x80
				if _, err := s.Check(bad); err == nil {
					t.Errorf("a key with another byte %d is one", at)
				}
			}
		})
	}
}

// wrongBytes are places where another byte makes another key. K of ML-DSA and z of ML-KEM
// may be any.
func wrongBytes(s Set) []int {
	switch s.KeyType {
	case p11.CKK_ML_DSA:
		return []int{0, 31, 64, 127, 128, 128 + 200}
	case p11.CKK_ML_KEM:
		return []int{s.PrivateSize - 64 - s.PublicSize, s.PrivateSize - 65, s.PrivateSize - 64, s.PrivateSize - 33}
	}
	n := s.PrivateSize / 4
	return []int{0, n - 1, 2 * n, 3*n - 1, 3 * n, 4*n - 1}
}

func TestHostilePublicKeys(t *testing.T) {
	for _, s := range Sets() {
		for _, n := range []int{0, s.PublicSize - 1, s.PublicSize + 1} {
			if _, err := s.NewPublicKey(make([]byte, n)); err == nil {
				t.Errorf("%s: %d bytes are a public key", s.Name, n)
			}
			if _, err := s.NewPrivateKey(make([]byte, n)); err == nil && n != s.PrivateSize {
				t.Errorf("%s: %d bytes are a private key", s.Name, n)
			}
		}
		if s.CiphertextSize == 0 {
			continue
		}
		// FIPS 203 §7.2: coefficients are below the modulus.
		if _, err := s.NewPublicKey(bytes.Repeat([]byte{0xff}, s.PublicSize)); err == nil {
			t.Errorf("%s: coefficients above the modulus are taken", s.Name)
		}
	}
}

func TestEncapsulate(t *testing.T) {
	for _, s := range quick(t) {
		if s.CiphertextSize == 0 {
			continue
		}
		p, err := s.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := s.NewPublicKey(p.Public)
		if err != nil {
			t.Fatal(err)
		}
		priv, err := s.NewPrivateKey(p.Private)
		if err != nil {
			t.Fatal(err)
		}
		ct, secret, err := pub.Encapsulate()
		if err != nil || len(ct) != s.CiphertextSize || len(secret) != SecretSize {
			t.Fatalf("%s: %d bytes for %d, %v", s.Name, len(ct), len(secret), err)
		}
		if got, err := priv.Decapsulate(ct); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: another secret, %v", s.Name, err)
		}
		ct[0] ^= 1
		other, err := priv.Decapsulate(ct)
		if err != nil || bytes.Equal(other, secret) {
			t.Errorf("%s: another ciphertext gives the secret, or %v", s.Name, err)
		}
		if again, _ := priv.Decapsulate(ct); !bytes.Equal(again, other) {
			t.Errorf("%s: what a wrong ciphertext gives changes", s.Name)
		}
		if _, err := priv.Decapsulate(ct[1:]); err == nil {
			t.Errorf("%s: a short ciphertext is taken", s.Name)
		}
	}
}

// A clone outlives the memory of its key, and wipes its own.
func TestClone(t *testing.T) {
	for _, s := range quick(t) {
		p, err := s.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, err := s.NewPrivateKey(p.Private)
		if err != nil {
			t.Fatal(err)
		}
		own := k.Clone()
		k.Close()
		p.Wipe()
		if err := s.test(own.value, p.Public); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
		own.Wipe()
		if !bytes.Equal(own.value, make([]byte, s.PrivateSize)) {
			t.Errorf("%s: the clone is not wiped", s.Name)
		}
	}
}
