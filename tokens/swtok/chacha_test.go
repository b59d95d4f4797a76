package swtok

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/chacha20"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

func TestChaCha20Vectors(t *testing.T) {
	zeros := make([]byte, 60)
	for _, v := range []struct{ source, spec, key, in, want string }{
		{"RFC 8439 §2.4.2", "chacha20,counter=01000000,nonce=000000000000004a00000000",
			"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
			"6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357" +
				"1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736" +
				"5af90bbf74a35be6b40b8eedf2785e42874d"},
		{"draft-agl-tls-chacha20poly1305-04 §7", "chacha20,nonce=0000000000000001",
			"0000000000000000000000000000000000000000000000000000000000000000", string(zeros),
			"de9cba7bf3d69ef5e786dc63973f653a0b49e015adbff7134fcb7df137821031e85a050278a7084527214f73efc7fa5b5277062eb7a0433e445f41e3"},
	} {
		eachProvider(t, func(t *testing.T, c *Crypto) {
			key := tokentest.Secret(t, p11.CKK_CHACHA20, tokentest.Hex(t, v.key))
			m := parsed(t, v.spec)
			got, err := encryptAll(c, m, key, []byte(v.in))
			if err != nil || !bytes.Equal(got, tokentest.Hex(t, v.want)) {
				t.Errorf("%s: %x, %v", v.source, got, err)
			}
			if back, err := decryptAll(c, m, key, got); err != nil || string(back) != v.in {
				t.Errorf("%s: decrypts to %q, %v", v.source, back, err)
			}
		})
	}
}

// TestChaCha20Counters goes over the ends of the counters, and compares with x/crypto's
// cipher, which has 32 bits of them and the rest in its nonce.
func TestChaCha20Counters(t *testing.T) {
	value := bytes.Repeat([]byte("k"), chachaKey)
	stream := func(nonce []byte, counter uint32, n int) []byte {
		t.Helper()
		c, err := chacha20.NewUnauthenticatedCipher(value, nonce)
		if err != nil {
			t.Fatal(err)
		}
		c.SetCounter(counter)
		out := make([]byte, n)
		c.XORKeyStream(out, out)
		return out
	}
	x := []byte("a nonce of 24 bytes here")
	high := func(n byte) []byte { return append([]byte{n, 0, 0, 0}, "8 bytes!"...) }
	for _, v := range []struct {
		name           string
		counter, nonce []byte
		want           []byte
	}{
		{"64 bits", []byte{0xff, 0xff, 0xff, 0xff, 6}, []byte("8 bytes!"), append(stream(high(6), 0xffffffff, 64), stream(high(7), 0, 100)...)},
		{"32 bits", []byte{0xfe, 0xff, 0xff, 0xff}, []byte("12 bytes now"), stream([]byte("12 bytes now"), 0xfffffffe, 128)},
		{"a nonce of 24 bytes", []byte{3}, x, stream(x, 3, 150)},
	} {
		eachProvider(t, func(t *testing.T, c *Crypto) {
			key := tokentest.Secret(t, p11.CKK_CHACHA20, value)
			m := p11.Mechanism{Type: p11.CKM_CHACHA20, Param: &p11.ChaCha20Params{Counter: v.counter, Nonce: v.nonce}}
			got, err := encryptAll(c, m, key, make([]byte, len(v.want)))
			if err != nil || !bytes.Equal(got, v.want) {
				t.Errorf("%s: %x, %v, want %x", v.name, got, err, v.want)
			}
			if v.name == "32 bits" {
				if _, err := encryptAll(c, m, key, make([]byte, len(v.want)+1)); p11.RVOf(err) != p11.CKR_DATA_LEN_RANGE {
					t.Errorf("beyond the counter: %v", err)
				}
			}
		})
	}
	last := &p11.ChaCha20Params{Counter: bytes.Repeat([]byte{0xff}, 8), Nonce: []byte("8 bytes!")}
	if n, err := chachaBytes(last); n != chachaBlock || err != nil {
		t.Errorf("the last counter is good for %d bytes, %v", n, err)
	}
	for _, bad := range []*p11.ChaCha20Params{{Nonce: make([]byte, 9)}, {Nonce: make([]byte, 12), Counter: make([]byte, 5)}} {
		if _, err := chachaBytes(bad); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The vector of RFC 8439 §2.5.2.
func TestPoly1305(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	key := tokentest.Secret(t, p11.CKK_POLY1305, tokentest.Hex(t, "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"))
	m, data := p11.Mechanism{Type: p11.CKM_POLY1305}, []byte("Cryptographic Forum Research Group")
	want := tokentest.Hex(t, "a8061dc1305136c6c22b8baf0c0127a9")
	got, err := signAll(c, m, key, data)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	if err := verifyAll(c, m, key, data, want); err != nil {
		t.Error(err)
	}
}
