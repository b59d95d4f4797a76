package swtok

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest"
)

// Pieces hold what they were given in at most twice its memory.
func TestPieces(t *testing.T) {
	const size = len(longPiece{})
	free := &freePieces{}
	for _, part := range []int{1, 1000, size/4 - 1, size / 4, size/4 + 1, size/2 - 1, size / 2, size/2 + 1, size, 3*size + 5} {
		p := pieces{free: free}
		var want []byte
		for len(want) < 4*size {
			data := make([]byte, part)
			for i := range data {
				data[i] = byte((len(want) + i) % 251)
			}
			p.add(data)
			want = append(want, data...)
			memory := 0
			for _, b := range p.list {
				memory += cap(b)
			}
			if memory > 2*len(want) || p.n != len(want) {
				t.Fatalf("parts of %d: %d bytes, %d, in %d", part, len(want), p.n, memory)
			}
		}
		if !bytes.Equal(bytes.Join(p.list, nil), want) {
			t.Errorf("parts of %d: other bytes", part)
		}
		if p.release(); p.n != 0 || len(p.list) != 0 {
			t.Errorf("parts of %d: %d bytes after release", part, p.n)
		}
	}
}

// TestGCMInto has GCM put its output where the caller wants it, also after a use of the
// same key that was left anywhere. What is not authentic is not left there.
func TestGCMInto(t *testing.T) {
	m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: []byte("twelve bytes"), AAD: []byte("aad"), TagBits: 128}}
	r := rand.New(rand.NewPCG(1, 2))
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	eachProvider(t, func(t *testing.T, c *Crypto) {
		key := tokentest.Secret(t, p11.CKK_AES, bytes.Repeat([]byte{7}, 32))
		begin := func(use p11.Flags) *operation {
			op, err := c.Begin(t.Context(), use, m, key)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(op.Close)
			return op.(*operation)
		}
		for _, size := range []int{0, 1, 16, 100, 1 << 15, 1<<16 + 17, 300_000} {
			plain := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
			sealed := must(encryptAll(c, m, key, plain))
			into := make([]byte, size+16)
			whole := must(begin(p11.CKF_ENCRYPT).WholeInto(t.Context(), into[:0], plain, nil))
			if !bytes.Equal(whole, sealed) || &whole[0] != &into[0] {
				t.Errorf("%d bytes are another ciphertext in one part, or elsewhere", size)
			}
			for _, authentic := range []bool{true, false} {
				data := slices.Clone(sealed)
				if !authentic {
					data[r.IntN(len(data))] ^= 1
				}
				check := func(how string, op *operation, out []byte, err error) {
					t.Helper()
					switch {
					case authentic && (err != nil || !bytes.Equal(out, plain) || size > 0 && &out[0] != &into[0]):
						t.Errorf("%d bytes %s: %d bytes, %v, or elsewhere", size, how, len(out), err)
					case !authentic && (p11.RVOf(err) != p11.CKR_ENCRYPTED_DATA_INVALID || out != nil || !bytes.Equal(into[:size], make([]byte, size))):
						t.Errorf("%d bytes %s that are not authentic: %d bytes, %v, %x", size, how, len(out), err, into)
					}
					if _, err := op.Update(t.Context(), []byte{1}); p11.RVOf(err) != p11.CKR_OPERATION_NOT_INITIALIZED {
						t.Errorf("behind its end: %v", err)
					}
				}
				op := begin(p11.CKF_DECRYPT)
				out, err := op.WholeInto(t.Context(), into[:0], data, nil)
				check("in one part", op, out, err)
				op.Close()

				op = begin(p11.CKF_DECRYPT)
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(size+1))
					if out, err := op.UpdateInto(t.Context(), into[:0], rest[:n]); len(out) > 0 || err != nil {
						t.Fatal(len(out), err)
					}
					rest = rest[n:]
				}
				if n := op.FinalSize(); n != size {
					t.Errorf("%d bytes are to be %d", size, n)
				}
				out, err = op.FinalInto(t.Context(), into[:0], nil)
				check("in parts", op, out, err)
			}
			// One that is left, of which the next knows nothing; it leaves what is behind its
			// output.
			left := begin(p11.CKF_ENCRYPT)
			behind := bytes.Repeat([]byte{0xee}, size+64)
			part := must(left.UpdateInto(t.Context(), behind[:0], plain))
			if !bytes.Equal(part, sealed[:size]) || !bytes.Equal(behind[size:], bytes.Repeat([]byte{0xee}, 64)) {
				t.Errorf("%d bytes in parts: another ciphertext, or %x behind it", size, behind[size:])
			}
			left.Close()
		}
	})
}

// TestGCMCounterWraps has an IV from which the counter runs over within a part, which is
// encrypted in place.
func TestGCMCounterWraps(t *testing.T) {
	raw := bytes.Repeat([]byte{9}, 32)
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	h, err := newGHASH(block)
	if err != nil {
		t.Fatal(err)
	}
	var iv [aesBlock]byte
	block128{0x0123456789abcdef, 0xfedcba98ffffff00}.mul(h.back).xor(h.shift).store(iv[:])
	std, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("text"), 40_000)
	want := std.Seal(nil, iv[:], text, nil)
	for _, p := range providers(t) {
		k, err := p.NewBlockCipher(p11.CKK_AES, raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []int{len(text), ghashPart, 1 << 12, 5000} {
			g, err := k.GCM(iv[:], nil, true)
			if err != nil {
				t.Fatal(err)
			}
			out := append(bytes.Clone(text), make([]byte, aesBlock)...)
			for at := 0; at < len(text); at += step {
				end := min(len(text), at+step)
				if err := g.Crypt(out[at:end], out[at:end]); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.Tag(out[len(text):]); err != nil || !bytes.Equal(out, want) {
				t.Errorf("%s in parts of %d: another ciphertext, %v", p.Name(), step, err)
			}
			g.Close()
		}
	}
}
