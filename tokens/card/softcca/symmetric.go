package softcca

import (
	"context"
	"errors"
	"io"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/card/cca"
)

// lengths are the keywords for the length of a symmetric key. AES has blanks for 32 bytes.
func lengthOf(word string, aesKey bool) (int, error) {
	n, ok := map[string]int{"KEYLN8": 8, "KEYLN16": 16, "KEYLN24": 24, "KEYLN32": 32, "": 32}[word]
	if !ok || !fits(n, aesKey) {
		return 0, cca.ErrKeyword
	}
	return n, nil
}

// fits says whether n bytes are a key.
func fits(n int, aesKey bool) bool {
	if aesKey {
		return n == 16 || n == 24 || n == 32
	}
	return n == 8 || n == 16 || n == 24
}

func keyTypeOf(aesKey bool, n int) p11.KeyType {
	switch {
	case aesKey:
		return p11.CKK_AES
	case n == 8:
		return p11.CKK_DES
	case n == 16:
		return p11.CKK_DES2
	}
	return p11.CKK_DES3
}

// CSNBKTB builds a skeleton for an AES key.
func (d *domain) CSNBKTB(_ context.Context, keyType, rules []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	word, err := r.One("KEYLN16", "KEYLN24", "KEYLN32")
	if err != nil || cca.Keyword(keyType) != "DATA" || !r.Has("INTERNAL") || !r.Has("AES") || r.Only("INTERNAL", "AES", "NO-KEY", word) != nil {
		return nil, cca.ErrKeyword
	}
	n, err := lengthOf(word, true)
	if err != nil {
		return nil, err
	}
	return cca.Symmetric{AES: true, Size: n}.Bytes(), nil
}

// CSNBKGN generates a DES key, or an AES key for the skeleton in token.
func (d *domain) CSNBKGN(ctx context.Context, form, length, type1, token []byte) ([]byte, error) {
	kind := cca.Keyword(type1)
	aesKey := kind == "AESTOKEN" || kind == "AESDATA"
	if cca.Keyword(form) != "OP" || !aesKey && kind != "DATA" {
		return nil, cca.ErrKeyword
	}
	n, err := lengthOf(cca.Keyword(length), aesKey)
	if err != nil {
		return nil, err
	}
	if kind == "AESTOKEN" {
		s, err := cca.ParseSymmetric(token)
		if err != nil || !s.AES || s.Size != n {
			return nil, cca.ErrToken
		}
	}
	kt := keyTypeOf(aesKey, n)
	m := map[p11.KeyType]p11.MechanismType{p11.CKK_AES: p11.CKM_AES_KEY_GEN, p11.CKK_DES: p11.CKM_DES_KEY_GEN, p11.CKK_DES2: p11.CKM_DES2_KEY_GEN, p11.CKK_DES3: p11.CKM_DES3_KEY_GEN}[kt]
	template := p11.Attributes{}
	if aesKey {
		template.SetUlong(p11.CKA_VALUE_LEN, uint64(n))
	}
	a, err := d.crypto.GenerateKey(ctx, p11.Mechanism{Type: m}, template)
	if err != nil {
		return nil, cardError(err)
	}
	defer a.Wipe()
	value, _ := a.Get(p11.CKA_VALUE)
	return d.sealSymmetric(aesKey, value, Current)
}

// CSNBCKM makes the token of a key that is given in the clear.
func (d *domain) CSNBCKM(_ context.Context, rules, clear []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	word, err := r.One("AES", "DES")
	if err != nil || r.Only(word) != nil {
		return nil, cca.ErrKeyword
	}
	if !fits(len(clear), word == "AES") {
		return nil, cca.ErrValues
	}
	return d.sealSymmetric(word == "AES", clear, Current)
}

// crypt is a cipher with a symmetric key, of whole blocks unless pad is set.
func (d *domain) crypt(ctx context.Context, aesKey bool, use p11.Flags, token, iv, text []byte, ecb, pad bool) ([]byte, error) {
	s, w, err := d.openSymmetric(token)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(w.key)
	block := 8
	if aesKey {
		block = 16
	}
	if s.AES != aesKey || !usable(w.at) {
		return nil, cca.ErrToken
	}
	if !pad && len(text)%block != 0 || !ecb && len(iv) != block {
		return nil, cca.ErrData
	}
	m := p11.Mechanism{Type: p11.CKM_AES_CBC, Param: p11.IV(iv)}
	switch {
	case aesKey && ecb:
		m = p11.Mechanism{Type: p11.CKM_AES_ECB}
	case aesKey && pad:
		m.Type = p11.CKM_AES_CBC_PAD
	case !aesKey && s.Size == 8:
		m.Type = p11.CKM_DES_CBC
	case !aesKey:
		m.Type = p11.CKM_DES3_CBC
	}
	kt := keyTypeOf(aesKey, s.Size)
	key := append(make([]byte, 0, 32), w.key...) // room for three of DES
	if kt == p11.CKK_DES2 {                      // two keys are three, of which the last is the first
		kt, key = p11.CKK_DES3, append(key, key[:8]...)
	}
	return d.do(ctx, use, m, attributes(p11.CKO_SECRET_KEY, kt, p11.Attribute{Type: p11.CKA_VALUE, Value: key}), text, nil)
}

func (d *domain) des(ctx context.Context, use p11.Flags, key, text, iv, rules []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	if !r.Has("CBC") || r.Only("CBC", "INITIAL") != nil {
		return nil, cca.ErrKeyword
	}
	return d.crypt(ctx, false, use, key, iv, text, false, false)
}

// CSNBENC encrypts with a DES key.
func (d *domain) CSNBENC(ctx context.Context, key, text, iv, rules []byte) ([]byte, error) {
	return d.des(ctx, p11.CKF_ENCRYPT, key, text, iv, rules)
}

// CSNBDEC decrypts with a DES key.
func (d *domain) CSNBDEC(ctx context.Context, key, text, iv, rules []byte) ([]byte, error) {
	return d.des(ctx, p11.CKF_DECRYPT, key, text, iv, rules)
}

func (d *domain) aes(ctx context.Context, use p11.Flags, r cca.Rules, key, iv, text []byte) (_ []byte, err error) {
	mode := "CBC" // unless another is said
	if !slices.ContainsFunc([]string{"ECB", "CBC", "PKCS-PAD"}, r.Has) {
		r = append(r, mode)
	}
	if mode, err = r.One("ECB", "CBC", "PKCS-PAD"); err != nil {
		return nil, err
	}
	if !r.Has("AES") || !r.Has("KEYIDENT") || r.Only("AES", "KEYIDENT", "INITIAL", "ONLY", mode) != nil {
		return nil, cca.ErrKeyword
	}
	return d.crypt(ctx, true, use, key, iv, text, mode == "ECB", mode == "PKCS-PAD")
}

// aesKey is the key object of a token that can be used.
func (d *domain) aesKey(token []byte) (p11.Attributes, error) {
	s, w, err := d.openSymmetric(token)
	if err != nil {
		return nil, err
	}
	if !s.AES || !usable(w.at) {
		secret.Wipe(w.key)
		return nil, cca.ErrToken
	}
	return attributes(p11.CKO_SECRET_KEY, p11.CKK_AES, p11.Attribute{Type: p11.CKA_VALUE, Value: w.key}), nil
}

// gcm is AES-GCM of a whole message, with a tag of n bytes.
func (d *domain) gcm(ctx context.Context, use p11.Flags, r cca.Rules, key, iv, aad []byte, n int, text []byte) ([]byte, error) {
	if !r.Has("AES") || !r.Has("KEYIDENT") || !r.Has("ONLY") || r.Only("AES", "GCM", "KEYIDENT", "ONLY") != nil {
		return nil, cca.ErrKeyword
	}
	if n != 4 && n != 8 && (n < 12 || n > 16) || len(iv) == 0 {
		return nil, cca.ErrData
	}
	a, err := d.aesKey(key)
	if err != nil {
		return nil, err
	}
	m := p11.Mechanism{Type: p11.CKM_AES_GCM, Param: &p11.GCMParams{IV: iv, AAD: aad, TagBits: uint64(8 * n)}}
	return d.do(ctx, use, m, a, text, nil)
}

// CSNBSAE encrypts with an AES key. Of GCM it gives a tag too, of n bytes.
func (d *domain) CSNBSAE(ctx context.Context, rules, key []byte, n int, iv, text, aad []byte) (tag, cipher []byte, err error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, nil, err
	}
	if !r.Has("GCM") {
		cipher, err = d.aes(ctx, p11.CKF_ENCRYPT, r, key, iv, text)
		return nil, cipher, err
	}
	out, err := d.gcm(ctx, p11.CKF_ENCRYPT, r, key, iv, aad, n, text)
	if err != nil {
		return nil, nil, err
	}
	return out[len(text):], out[:len(text):len(text)], nil
}

// CSNBSAD decrypts with an AES key.
func (d *domain) CSNBSAD(ctx context.Context, rules, key, tag, iv, text, aad []byte) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil {
		return nil, err
	}
	if !r.Has("GCM") {
		return d.aes(ctx, p11.CKF_DECRYPT, r, key, iv, text)
	}
	plain, err := d.gcm(ctx, p11.CKF_DECRYPT, r, key, iv, aad, len(tag), slices.Concat(text, tag))
	if errors.Is(err, cca.ErrData) {
		err = cca.ErrTag
	}
	return plain, err
}

// CSNBRNG makes eight random bytes.
func (d *domain) CSNBRNG(_ context.Context, form []byte) ([]byte, error) {
	if cca.Keyword(form) != "RANDOM" {
		return nil, cca.ErrKeyword
	}
	return d.randomBytes(8)
}

// maxRandom is what CSNBRNGL gives at once.
const maxRandom = 8192

// CSNBRNGL makes n random bytes.
func (d *domain) CSNBRNGL(_ context.Context, rules []byte, n int) ([]byte, error) {
	r, err := cca.ParseRules(rules)
	if err != nil || r.Only("RANDOM") != nil {
		return nil, cca.ErrKeyword
	}
	if n < 1 || n > maxRandom {
		return nil, cca.ErrBuffer
	}
	return d.randomBytes(n)
}

func (d *domain) randomBytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(d.random, b); err != nil {
		return nil, cca.ErrData
	}
	return b, nil
}
