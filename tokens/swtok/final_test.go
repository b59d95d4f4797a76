package swtok

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// TestFinalEndsNothing takes the result of AES after each part of a message: it
// is that of the message so far, error or not, and the message goes on.
func TestFinalEndsNothing(t *testing.T) {
	iv := p11.IV(bytes.Repeat([]byte{0x5a}, 16))
	modes := []struct {
		name string
		m    p11.Mechanism
	}{
		{"ecb", p11.Mechanism{Type: p11.CKM_AES_ECB}},
		{"cbc", p11.Mechanism{Type: p11.CKM_AES_CBC, Param: iv}},
		{"cbc-pad", p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: iv}},
		{"ctr", p11.Mechanism{Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 128}}},
		{"gcm", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: make([]byte, 12), TagBits: 128}}},
		{"gcm with another iv", p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: []byte("iv"), AAD: []byte("aad"), TagBits: 96}}},
	}
	// The last is long enough for the library that does CBC in bulk, and a
	// message can begin with it.
	lengths := []int{0, 1, 15, 16, 17, 31, 32, 48, 100, 4096, 8<<10 + 16}
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		key := tokentest.Secret(t, p11.CKK_AES, bytes.Repeat([]byte{7}, 32))
		for _, mode := range modes {
			t.Run(mode.name, func(t *testing.T) {
				encrypt := func(data []byte) ([]byte, error) { return encryptAll(c, mode.m, key, data) }
				decrypt := func(data []byte) ([]byte, error) { return decryptAll(c, mode.m, key, data) }
				for seed := range seeds {
					r := rand.New(rand.NewPCG(seed, 1))
					plain := make([]byte, 30000&^15)
					for i := range plain {
						plain[i] = byte(r.Uint32())
					}
					cut := func(data []byte) (list [][]byte) {
						for len(data) > 0 {
							n := min(len(data), lengths[r.IntN(len(lengths))])
							list, data = append(list, data[:n]), data[n:]
						}
						return list
					}
					op, err := c.Encrypt(t.Context(), mode.m, key)
					ct, err := inParts(t, op, err, cut(plain), encrypt)
					if err != nil {
						t.Fatalf("seed %d: encryption: %v", seed, err)
					}
					op, err = c.Decrypt(t.Context(), mode.m, key)
					got, err := inParts(t, op, err, cut(ct), decrypt)
					if err != nil || !bytes.Equal(got, plain) {
						t.Fatalf("seed %d: decryption: %d bytes, %v", seed, len(got), err)
					}
				}
			})
		}
	})
}

// inParts runs op over the parts, compares what Final says after each with whole
// of the message so far, and returns what it says at the end.
func inParts(t *testing.T, op tokentest.Cipher, err error, list [][]byte, whole func([]byte) ([]byte, error)) ([]byte, error) {
	t.Helper()
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var in, out, result []byte
	for _, part := range list {
		x, err := op.Update(part)
		if err != nil {
			return nil, err
		}
		in, out = append(in, part...), append(out, x...)
		want, wantErr := whole(in)
		rest, err := op.Final()
		if p11.RVOf(err) != p11.RVOf(wantErr) {
			return nil, fmt.Errorf("after %d bytes Final gives %w, and to the same in one message %w", len(in), err, wantErr)
		}
		result = append(bytes.Clone(out), rest...)
		if err == nil && !bytes.Equal(result, want) {
			return nil, fmt.Errorf("after %d bytes Final gives another result than to the same in one message", len(in))
		}
	}
	rest, err := op.Final()
	if again := append(out, rest...); err == nil && !bytes.Equal(again, result) {
		return nil, fmt.Errorf("the second Final gives another result")
	}
	return result, err
}

// TestFinalEndsNothingOfKeyWrap takes a wrapped key after each part.
func TestFinalEndsNothingOfKeyWrap(t *testing.T) {
	c := NewCrypto(GoProvider(), nil)
	key := tokentest.Secret(t, p11.CKK_AES, make([]byte, 16))
	m := p11.Mechanism{Type: p11.CKM_AES_KEY_WRAP}
	op, err := c.Encrypt(t.Context(), m, key)
	value := []byte("a key of 24 bytes, whole")
	wrapped, err := inParts(t, op, err, [][]byte{value[:8], value[8:16], value[16:20], value[20:]}, func(b []byte) ([]byte, error) { return encryptAll(c, m, key, b) })
	if err != nil {
		t.Fatal(err)
	}
	op, err = c.Decrypt(t.Context(), m, key)
	got, err := inParts(t, op, err, [][]byte{wrapped[:5], wrapped[5:24], wrapped[24:]}, func(b []byte) ([]byte, error) { return decryptAll(c, m, key, b) })
	if err != nil || !bytes.Equal(got, value) {
		t.Errorf("%q, %v", got, err)
	}
}
