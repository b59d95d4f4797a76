package swtok

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

func TestDigests(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for m, want := range map[p11.MechanismType]string{ // of "abc", FIPS 180-4 and RFC 1321
		p11.CKM_MD5:        "900150983cd24fb0d6963f7d28e17f72",
		p11.CKM_SHA_1:      "a9993e364706816aba3e25717850c26c9cd0d89d",
		p11.CKM_SHA224:     "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
		p11.CKM_SHA256:     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		p11.CKM_SHA384:     "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
		p11.CKM_SHA512:     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
		p11.CKM_SHA512_256: "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
	} {
		t.Run(m.Short(), func(t *testing.T) {
			d, err := c.Digest(t.Context(), p11.Mechanism{Type: m})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, part := range []string{"a", "", "bc"} {
				if err := d.Update([]byte(part)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := d.Final()
			if err != nil || fmt.Sprintf("%x", got) != want || len(got) != d.Size() {
				t.Errorf("got %x, %v", got, err)
			}
		})
	}
	t.Run("of a key", func(t *testing.T) {
		d, err := c.Digest(t.Context(), p11.Mechanism{Type: p11.CKM_SHA_1})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.DigestKey(tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("abc"))); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Final(); err != nil || fmt.Sprintf("%x", got) != "a9993e364706816aba3e25717850c26c9cd0d89d" {
			t.Errorf("got %x, %v", got, err)
		}
		pub, _ := generatedEC(t, c, testCurves()[0])
		if got := p11.RVOf(d.DigestKey(pub)); got != p11.CKR_KEY_INDIGESTIBLE {
			t.Errorf("of a public key: %v", got)
		}
	})
	t.Run("with a parameter", func(t *testing.T) {
		if _, err := c.Digest(t.Context(), p11.Mechanism{Type: p11.CKM_MD5, Param: p11.IV{1}}); p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
			t.Errorf("got %v", err)
		}
	})
}

// RFC 4231 §4.3 and RFC 2202 §2, §3 (test case 2).
func TestHMAC(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	for m, want := range map[p11.MechanismType]string{
		p11.CKM_MD5_HMAC:    "750c783e6ab0b503eaa86e310a5db738",
		p11.CKM_SHA_1_HMAC:  "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
		p11.CKM_SHA224_HMAC: "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
		p11.CKM_SHA256_HMAC: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
		p11.CKM_SHA384_HMAC: "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
		p11.CKM_SHA512_HMAC: "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
	} {
		t.Run(m.Short(), func(t *testing.T) {
			key := tokentest.Secret(t, p11.CKK_GENERIC_SECRET, []byte("Jefe"))
			got, err := signAll(c, p11.Mechanism{Type: m}, key, []byte("what do ya want for nothing?"))
			if err != nil || fmt.Sprintf("%x", got) != want {
				t.Errorf("got %x, %v", got, err)
			}
		})
	}
	t.Run("key types", func(t *testing.T) {
		own := tokentest.Secret(t, p11.CKK_SHA256_HMAC, []byte("k"))
		if _, err := signAll(c, p11.Mechanism{Type: p11.CKM_SHA256_HMAC}, own, nil); err != nil {
			t.Errorf("its own: %v", err)
		}
		if _, err := signAll(c, p11.Mechanism{Type: p11.CKM_SHA_1_HMAC}, own, nil); p11.RVOf(err) != p11.CKR_KEY_TYPE_INCONSISTENT {
			t.Errorf("another's: %v", err)
		}
	})
}

// NIST SP 800-38A §F.1, §F.2, §F.5.
func TestBlockModes(t *testing.T) {
	const plain = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
	iv := p11.IV{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	var counter [16]byte
	for i := range counter {
		counter[i] = 0xf0 + byte(i)
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, test := range []struct {
			name, key, want string
			m               p11.Mechanism
		}{
			{"ECB-128", "2b7e151628aed2a6abf7158809cf4f3c", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4", p11.Mechanism{Type: p11.CKM_AES_ECB}},
			{"CBC-192", "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}},
			{"CTR-256", "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 32, Counter: counter}}},
		} {
			t.Run(test.name, func(t *testing.T) {
				key := tokentest.Secret(t, p11.CKK_AES, tokentest.Hex(t, test.key))
				data, want := tokentest.Hex(t, plain), tokentest.Hex(t, test.want)
				if got, err := encryptAll(c, test.m, key, data); err != nil || !bytes.Equal(got, want) {
					t.Errorf("encrypt: %x, %v", got, err)
				}
				if got, err := decryptAll(c, test.m, key, want); err != nil || !bytes.Equal(got, data) {
					t.Errorf("decrypt: %x, %v", got, err)
				}
			})
		}
	})
}

// However the data is cut into parts, the result is the same, and decrypts to
// the data: lengths around blocks and around the limits of the two libraries.
func TestParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, m := range []p11.Mechanism{
			{Type: p11.CKM_AES_ECB},
			{Type: p11.CKM_AES_CBC, Param: p11.IV(make([]byte, 16))},
			{Type: p11.CKM_AES_CBC_PAD, Param: p11.IV(make([]byte, 16))},
			{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 64}},
			{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), AAD: []byte("more"), TagBits: 104}},
		} {
			t.Run(m.Type.Short(), func(t *testing.T) {
				key := tokentest.Secret(t, p11.CKK_AES, bytes.Repeat([]byte{3}, 24))
				for _, n := range []int{0, 1, 15, 16, 17, 32, 100, 1000, bulkSizes, bulkSizes + 16, 200_000} {
					if m.Type == p11.CKM_AES_ECB || m.Type == p11.CKM_AES_CBC {
						n &^= 15
					}
					data := make([]byte, n)
					for i := range data {
						data[i] = byte(rng.Uint32())
					}
					want, err := cutAt(func() (op, error) { return c.Encrypt(t.Context(), m, key) }, data, n)
					if err != nil {
						t.Fatal(err)
					}
					for range 4 {
						cut := 1 + rng.IntN(n/3+20)
						got, err := cutAt(func() (op, error) { return c.Encrypt(t.Context(), m, key) }, data, cut)
						if err != nil || !bytes.Equal(got, want) {
							t.Fatalf("%d bytes encrypted in parts of %d differ: %v", n, cut, err)
						}
						got, err = cutAt(func() (op, error) { return c.Decrypt(t.Context(), m, key) }, want, cut)
						if err != nil || !bytes.Equal(got, data) {
							t.Fatalf("%d bytes decrypted in parts of %d differ: %v", n, cut, err)
						}
					}
				}
			})
		}
	})
}

// bulkSizes is where libcrypto's CBC begins to be used.
const bulkSizes = 8 << 10

type op interface {
	Update([]byte) ([]byte, error)
	Final() ([]byte, error)
	Close()
}

func cutAt(begin func() (op, error), data []byte, n int) ([]byte, error) {
	o, err := begin()
	if err != nil {
		return nil, err
	}
	defer o.Close()
	var out []byte
	for first := true; first || len(data) > 0; first = false {
		k := min(max(n, 1), len(data))
		x, err := o.Update(data[:k])
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
		data = data[k:]
	}
	x, err := o.Final()
	return append(out, x...), err
}

// GCM in parts is that of Go's library, for every length of text, data and IV, and every
// way to cut.
func TestGCMAgainstStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		for _, n := range []int{0, 1, 15, 16, 17, 31, 64, 255, 4096, ghashPart - 1, ghashPart, ghashPart + 1, 3*ghashPart + 5} {
			for _, ivLen := range []int{12, 1, 16, 60, 128, 129} {
				raw, iv, aad, text := random(32), random(ivLen), random(rng.IntN(70)), random(n)
				block, err := aes.NewCipher(raw)
				if err != nil {
					t.Fatal(err)
				}
				std, err := cipher.NewGCMWithNonceSize(block, ivLen)
				if err != nil {
					t.Fatal(err)
				}
				want := std.Seal(nil, iv, text, aad)
				key := tokentest.Secret(t, p11.CKK_AES, raw)
				m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: iv, AAD: aad, TagBits: 128}}
				for _, cut := range []int{n, 1 + rng.IntN(n+1), 7 + n/5} {
					got, err := cutAt(func() (op, error) { return c.Encrypt(t.Context(), m, key) }, text, cut)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes, iv of %d, in parts of %d: differs, %v", n, ivLen, cut, err)
					}
					got, err = cutAt(func() (op, error) { return c.Decrypt(t.Context(), m, key) }, want, cut)
					if err != nil || !bytes.Equal(got, text) {
						t.Errorf("%d bytes, iv of %d, in parts of %d: decrypts to something else, %v", n, ivLen, cut, err)
					}
				}
			}
		}
	})
}

// The counter of GCM wraps in its low 32 bits only.
func TestCounterWrap(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	var j0 [16]byte
	for i := range j0 {
		j0[i] = 0xff
	}
	j0[15] = 0xfd // counts fe, ff, 00, 01
	var want []byte
	for _, low := range []byte{0xfe, 0xff, 0, 1} {
		in := j0
		in[15] = low
		if low < 2 {
			copy(in[12:], []byte{0, 0, 0, low})
		}
		out := make([]byte, 16)
		block.Encrypt(out, in[:])
		want = append(want, out...)
	}
	for cut := 1; cut <= len(want); cut++ {
		s := newCTR32(block, j0)
		got := make([]byte, len(want))
		for i := 0; i < len(got); i += cut {
			end := min(i+cut, len(got))
			s.xor(got[i:end], got[i:end])
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("in parts of %d: %x", cut, got)
		}
	}
	j0[15] = 0xff // the first block is already beyond
	s := newCTR32(block, j0)
	got := make([]byte, 16)
	s.xor(got, got)
	if !bytes.Equal(got, want[32:48]) {
		t.Errorf("from the end: %x", got)
	}
}

func TestCounterBytes(t *testing.T) {
	const endless = ^uint64(0)
	top := func(b ...byte) (c [16]byte) { copy(c[16-len(b):], b); return c }
	var ones [16]byte
	for i := range ones {
		ones[i] = 0xff
	}
	for _, test := range []struct {
		bits    uint64
		counter [16]byte
		want    uint64
	}{
		{1, top(0), 32}, {1, top(1), 16}, {1, top(2), 32},
		{2, top(1), 48},
		{8, top(0xff), 16},
		{32, top(0), 16 << 32},
		{32, ones, 16},
		{60, top(0), endless},
		{59, top(0), 16 << 59},
		{63, ones, 16},
		{64, top(0), endless}, {64, ones, 16},
		{65, top(1, 0, 0, 0, 0, 0, 0, 0, 0), endless},
		{65, top(1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe), 32},
		{127, ones, 16},
		{128, top(0), endless}, {128, ones, 16}, {128, top(1), endless},
	} {
		if got := ctrBytes(test.counter, test.bits); got != test.want {
			t.Errorf("%d bits of %x: %d, want %d", test.bits, test.counter, got, test.want)
		}
	}
}
