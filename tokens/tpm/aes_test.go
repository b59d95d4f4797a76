package tpm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest"
	"p11fs/tokens/tpm/tpmtest"
)

// encrypt is a message under a mechanism, and decrypted again.
func encrypt(t *testing.T, tok *token, m p11.Mechanism, key *tokens.Object, message []byte) []byte {
	t.Helper()
	calls := tokentest.Calls{Crypto: tok}
	run := func(op tokentest.Cipher, err error, in []byte) []byte {
		t.Helper()
		must(t, err)
		defer op.Close()
		out, err := op.Update(in)
		must(t, err)
		last, err := op.Final()
		must(t, err)
		return append(out, last...)
	}
	op, err := calls.Encrypt(t.Context(), m, key)
	sealed := run(op, err, message)
	op, err = calls.Decrypt(t.Context(), m, key)
	if got := run(op, err, sealed); !bytes.Equal(got, message) {
		t.Errorf("%s: %x became %x", m.Type, message, got)
	}
	return sealed
}

// TestAES: keys of AES are the TPM's where the token was made so, and do what they do
// elsewhere; nobody reads them, and modes that the TPM has not are none of the token's.
func TestAES(t *testing.T) {
	t.Parallel()
	soft := tpmtest.Start(t, nil)
	p := place(t, t.TempDir(), PINFail+inAES)
	tok := opened(t, soft, p)
	ready(t, tok)
	login, err := tok.Login(t.Context(), p11.CKU_USER, tokentest.PIN(t, userPIN))
	must(t, err)
	defer login.Close()
	listed := map[p11.MechanismType]bool{}
	for _, m := range tok.Mechanisms() {
		listed[m.Type] = true
	}
	for m, want := range map[p11.MechanismType]bool{
		p11.CKM_AES_ECB: true, p11.CKM_AES_CBC: true, p11.CKM_AES_CBC_PAD: true, p11.CKM_AES_CTR: true, p11.CKM_AES_OFB: true,
		p11.CKM_AES_CFB128: true, p11.CKM_AES_KEY_GEN: true, p11.CKM_AES_GCM: false, p11.CKM_AES_CMAC: false, p11.CKM_AES_KEY_WRAP: false,
		p11.CKM_AES_CFB8: false, p11.CKM_AES_XTS_KEY_GEN: false, p11.CKM_SHA256_HMAC: true,
	} {
		if listed[m] != want {
			t.Errorf("%s is listed: %v", m, listed[m])
		}
	}
	template := func(more p11.Attributes) p11.Attributes {
		var a p11.Attributes
		a.SetUlong(p11.CKA_CLASS, uint64(p11.CKO_SECRET_KEY))
		a.SetUlong(p11.CKA_KEY_TYPE, uint64(p11.CKK_AES))
		a.SetBool(p11.CKA_TOKEN, true)
		a.SetBool(p11.CKA_PRIVATE, true)
		return a.Merge(more)
	}
	stored := func(a p11.Attributes, err error) *tokens.Object {
		t.Helper()
		must(t, err)
		a, err = tok.Adopt(t.Context(), a)
		must(t, err)
		o, err := tok.Create(t.Context(), a)
		must(t, err)
		return o
	}
	value := bytes.Repeat([]byte{7}, 32)
	imported := stored(template(p11.Attributes{{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}}), nil)
	made := stored(tok.GenerateKey(t.Context(), p11.Mechanism{Type: p11.CKM_AES_KEY_GEN}, template(p11.Attributes{{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(16))}})))
	block, err := aes.NewCipher(value)
	must(t, err)
	zeros := make([]byte, aes.BlockSize)
	block.Encrypt(zeros, zeros)
	for o, local := range map[*tokens.Object]bool{imported: false, made: true} {
		a, err := o.Acquire()
		must(t, err)
		if a.Has(p11.CKA_VALUE) || tok.Visibility(a, p11.CKA_VALUE) != tokens.Withheld || tok.Visibility(a, authAttribute) != tokens.Hidden ||
			!a.Bool(p11.CKA_SENSITIVE) || a.Bool(p11.CKA_EXTRACTABLE) || a.Bool(p11.CKA_ALWAYS_SENSITIVE) != local {
			t.Errorf("the key has %v", a)
		}
		if check, _ := a.Get(p11.CKA_CHECK_VALUE); len(check) != 3 || !local && !bytes.Equal(check, zeros[:3]) {
			t.Errorf("the check value is %x", check)
		}
		o.Release()
	}
	iv := make(p11.IV, aes.BlockSize)
	padded := bytes.Repeat([]byte{13}, 2048+13)
	want := make([]byte, 2064)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, append(bytes.Clone(padded), 3, 3, 3))
	if got := encrypt(t, tok, p11.Mechanism{Type: p11.CKM_AES_CBC_PAD, Param: iv}, imported, padded); !bytes.Equal(got, want) {
		t.Error("CBC with padding gives something else than Go's library")
	}
	for _, m := range []p11.Mechanism{{Type: p11.CKM_AES_ECB}, {Type: p11.CKM_AES_CBC, Param: iv}, {Type: p11.CKM_AES_CTR, Param: &p11.CTRParams{CounterBits: 128}}, {Type: p11.CKM_AES_OFB, Param: iv}, {Type: p11.CKM_AES_CFB128, Param: iv}} {
		encrypt(t, tok, m, made, padded[:2048])
		encrypt(t, tok, m, made, nil)
	}
	for name, more := range map[string]p11.Attributes{
		"a length that no TPM has": {{Type: p11.CKA_VALUE, Value: make([]byte, 20)}},
		"another check value":      {{Type: p11.CKA_VALUE, Value: bytes.Clone(value)}, {Type: p11.CKA_CHECK_VALUE, Value: []byte{1, 2, 3}}},
	} {
		if _, err := tok.Adopt(t.Context(), template(more)); p11.RVOf(err) != p11.CKR_ATTRIBUTE_VALUE_INVALID {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, tok.Close())
	soft.Kill()
	if tok = opened(t, soft, p); len(tok.holder.can.aes) == 0 {
		t.Error("a token that is opened without its TPM forgets that it has keys of AES")
	}
}
