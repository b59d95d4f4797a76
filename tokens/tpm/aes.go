package tpm

import (
	"bytes"
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tpm/tpm20"
)

// checkMode makes check values: of zeros it gives the first block under the key. Each TPM
// that encrypts has it.
const checkMode = "CFB"

var _ swtok.AESHolder = (*holder)(nil)

// AES is swtok.AESHolder.
func (h *holder) AES(a p11.Attributes) (swtok.HeldAES, error) {
	k, err := h.key(a)
	if err != nil {
		return nil, err
	}
	return &heldAES{k}, nil
}

// A heldAES is a key of AES.
type heldAES struct{ key *tpm20.Key }

// Crypt is swtok.HeldAES.
func (k *heldAES) Crypt(ctx context.Context, mode string, iv []byte, decrypt bool, message []byte) ([]byte, error) {
	return result(k.key.AES(ctx, mode, iv, decrypt, message))
}

// Close wipes the authorisation.
func (k *heldAES) Close() { _ = k.key.Auth.Close() }

// GenerateKey is tokens.KeyGenerator. Keys of AES are the TPM's, where the token is of
// that kind.
func (t *token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if m.Type != p11.CKM_AES_KEY_GEN || len(t.holder.can.aes) == 0 {
		return t.Crypto.GenerateKey(ctx, m, template)
	}
	a, err := expect(template, p11.CKO_SECRET_KEY, p11.CKK_AES)
	if err != nil {
		return nil, err
	}
	n, ok := a.Ulong(p11.CKA_VALUE_LEN)
	switch {
	case !ok:
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len, the length of the key in bytes")
	case !slices.Contains(t.holder.can.aes, int(8*min(n, 1<<20))):
		return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the TPM has AES keys of %v bits, not %d", t.holder.can.aes, 8*n)
	}
	auth, err := newAuth(a)
	if err != nil {
		return nil, err
	}
	defer auth.Close()
	blob, err := t.k.chip.CreateAES(ctx, t.k.parent(), int(8*n), auth)
	if err != nil {
		return nil, err
	}
	put(&a, blob, auth)
	return a, nil
}

func (t *token) importAES(ctx context.Context, attrs p11.Attributes, auth *secret.Bytes) (tpm20.Blob, error) {
	b, _ := attrs.Get(p11.CKA_VALUE)
	if !slices.Contains(t.holder.can.aes, 8*len(b)) {
		return tpm20.Blob{}, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the TPM takes AES keys of %v bits, not %d", t.holder.can.aes, 8*len(b))
	}
	value, err := secret.New(bytes.Clone(b))
	if err != nil {
		return tpm20.Blob{}, err
	}
	defer value.Close()
	return t.k.chip.ImportAES(ctx, t.k.parent(), value, auth)
}

// checkAES adds the check value of a key, or checks the one that was given (PKCS#11 v3.1
// §4.10.1). An empty one says that none is wanted.
func (t *token) checkAES(ctx context.Context, attrs *p11.Attributes) error {
	given, ok := attrs.Get(p11.CKA_CHECK_VALUE)
	if ok && len(given) == 0 {
		attrs.Delete(p11.CKA_CHECK_VALUE)
		return nil
	}
	k, err := t.holder.key(*attrs)
	if err != nil {
		return err
	}
	defer k.Auth.Close()
	zeros := make([]byte, tpm20.AESBlock)
	block, err := k.AES(ctx, checkMode, zeros, false, zeros)
	if err != nil {
		return err
	}
	if ok && !bytes.Equal(given, block[:3]) {
		return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "check-value: is not that of the object's value")
	}
	attrs.Set(p11.CKA_CHECK_VALUE, block[:3:3])
	return nil
}
