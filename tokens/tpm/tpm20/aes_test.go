package tpm20

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"slices"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
)

// TestAES: each mode gives what Go's library gives, over more than one command, and the
// way back is the way back.
func TestAES(t *testing.T) {
	t.Parallel()
	_, c, p := fresh(t)
	ctx := t.Context()
	auth := must[*secret.Bytes](t)(NewAuth())
	f := must[*Facts](t)(c.Facts(ctx))
	if !slices.Contains(f.AESBits, 128) || !slices.Contains(f.AESBits, 256) || len(f.AESModes) != len(aesModes()) {
		t.Fatalf("swtpm has AES of %v bits, under %v", f.AESBits, f.AESModes)
	}
	iv, message := make([]byte, AESBlock), make([]byte, 2*maxInput+64)
	_, _ = rand.Read(iv)
	_, _ = rand.Read(message)
	for _, bits := range f.AESBits {
		value := make([]byte, bits/8)
		_, _ = rand.Read(value)
		block := must[cipher.Block](t)(aes.NewCipher(value))
		imported := &Key{c, p, must[Blob](t)(c.ImportAES(ctx, p, hide(t, value), auth)), auth}
		made := &Key{c, p, must[Blob](t)(c.CreateAES(ctx, p, bits, auth)), auth}
		if AESBits(made.Blob) != bits || AESBits(imported.Blob) != bits || !MadeThere(made.Blob) || MadeThere(imported.Blob) {
			t.Errorf("blobs of %d and %d bits, want %d", AESBits(made.Blob), AESBits(imported.Blob), bits)
		}
		for _, mode := range f.AESModes {
			in, first := message, iv
			want := make([]byte, len(in))
			switch mode {
			case "ECB":
				first = nil
				for i := 0; i < len(in); i += AESBlock {
					block.Encrypt(want[i:], in[i:])
				}
			case "CBC":
				cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, in)
			default:
				in = message[:len(message)-5]
				stream := map[string]func(cipher.Block, []byte) cipher.Stream{
					"CTR": cipher.NewCTR, "OFB": cipher.NewOFB, "CFB": cipher.NewCFBEncrypter, //nolint:staticcheck // it is these modes that are asked for
				}[mode](block, iv)
				want = want[:len(in)]
				stream.XORKeyStream(want, in)
			}
			if got := must[[]byte](t)(imported.AES(ctx, mode, first, false, in)); !bytes.Equal(got, want) {
				t.Errorf("%d bits, %s: it encrypts to something else", bits, mode)
			}
			sealed := must[[]byte](t)(made.AES(ctx, mode, first, false, in))
			if got := must[[]byte](t)(made.AES(ctx, mode, first, true, sealed)); !bytes.Equal(got, in) || bytes.Equal(sealed, want) {
				t.Errorf("%d bits, %s: the way back gives something else", bits, mode)
			}
		}
	}
	key := &Key{c, p, must[Blob](t)(c.CreateAES(ctx, p, 128, auth)), must[*secret.Bytes](t)(NewAuth())}
	_, err := key.AES(ctx, "ECB", nil, false, message[:AESBlock])
	wantRV(t, "a wrong authorisation", err, p11.CKR_FUNCTION_FAILED)
	_, err = key.AES(ctx, "GCM", nil, false, message)
	wantIs(t, "a mode that no TPM has", err, ErrNotHere)
	_, err = c.ImportAES(ctx, p, hide(t, make([]byte, 20)), auth)
	wantRV(t, "a key of 160 bits", err, p11.CKR_KEY_SIZE_RANGE)
	if n := AESBits(Blob{Public: []byte("x")}); n != 0 {
		t.Errorf("no key has %d bits", n)
	}
}
