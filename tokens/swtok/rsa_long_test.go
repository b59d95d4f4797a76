package swtok

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// The longest key does what others do. It was made by openssl(1).
func TestLongestRSA(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	text, err := os.ReadFile("testdata/rsa16384.pkcs8.base64")
	if err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	key := privateOf(t, hex.EncodeToString(der))
	a, err := key.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Release()
	attr := func(at p11.AttributeType) p11.Attribute {
		return p11.Attribute{Type: at, Value: bytes.Clone(value(t, a, at))}
	}
	public := []p11.Attribute{attr(p11.CKA_MODULUS), attr(p11.CKA_PUBLIC_EXPONENT)}
	if n := 8 * len(public[0].Value); n != maxRSABits {
		t.Fatalf("the key has %d bits", n)
	}
	data := []byte("20 bytes to be sign.")
	eachProvider(t, func(t *testing.T, c *Crypto) {
		// The primes are found again.
		priv := tokentest.Key(t, p11.CKO_PRIVATE_KEY, p11.CKK_RSA, append(public, attr(p11.CKA_PRIVATE_EXPONENT))...)
		pub := tokentest.Key(t, p11.CKO_PUBLIC_KEY, p11.CKK_RSA, public...)
		m := p11.Mechanism{Type: p11.CKM_SHA512_RSA_PKCS_PSS, Param: pssParam(p11.CKM_SHA512, 1000)}
		sig, err := signAll(c, m, priv, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAll(c, m, pub, data, sig); err != nil {
			t.Error(err)
		}
		m = p11.Mechanism{Type: p11.CKM_RSA_PKCS}
		ct, err := encryptAll(c, m, pub, data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decryptAll(c, m, priv, ct); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Numbers that somebody made up are refused before long, though they are as long as a key's
// may be.
func TestHostileRSA(t *testing.T) {
	n := bytes.Repeat([]byte{0xff}, maxRSABits/8)
	d := append([]byte{0x7f}, n[1:]...)
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, attrs := range [][]p11.Attribute{
			{{Type: p11.CKA_MODULUS, Value: n}, {Type: p11.CKA_PRIVATE_EXPONENT, Value: d}},
			{{Type: p11.CKA_MODULUS, Value: n}, {Type: p11.CKA_PRIVATE_EXPONENT, Value: d}, {Type: p11.CKA_PUBLIC_EXPONENT, Value: []byte{1, 0, 1}}},
			{{Type: p11.CKA_MODULUS, Value: n}, {Type: p11.CKA_PRIVATE_EXPONENT, Value: d}, {Type: p11.CKA_PRIME_1, Value: d[:1024]}, {Type: p11.CKA_PRIME_2, Value: d[:1024]}},
		} {
			a := p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_PRIVATE_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_RSA)}}
			if _, err := c.Adopt(t.Context(), append(a, attrs...)); err == nil {
				t.Error("numbers that are no key are taken")
			}
		}
	})
}
