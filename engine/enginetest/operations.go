package enginetest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"

	// The hashes of digests.
	_ "crypto/sha1"
	_ "crypto/sha512"

	"p11fs/p11"
	"p11fs/tokens"
)

// operation gathers the data of one operation and computes at the end.
type operation struct {
	token *Token
	name  string
	key   *tokens.Object
	data  bytes.Buffer
	size  int
}

func (o *operation) Update(part []byte) error {
	if err := o.token.enter(context.Background(), o.name+".Update"); err != nil {
		return err
	}
	o.data.Write(part)
	return nil
}

func (o *operation) Size() int { return o.size }

func (o *operation) Close() {
	if o.key != nil {
		o.key.Release()
		o.key = nil
	}
}

func (t *Token) begin(ctx context.Context, method string, key *tokens.Object) (*operation, p11.Attributes, error) {
	if err := t.enter(ctx, method); err != nil {
		return nil, nil, err
	}
	a, err := key.Acquire()
	if err != nil {
		return nil, nil, err
	}
	return &operation{token: t, key: key}, a, nil
}

// Digest is tokens.Crypto's.
func (t *Token) Digest(ctx context.Context, m p11.Mechanism) (tokens.Digest, error) {
	if err := t.enter(ctx, "Digest"); err != nil {
		return nil, err
	}
	h, ok := digests(m.Type)
	if !ok {
		return nil, p11.CKR_MECHANISM_INVALID
	}
	return &hashing{operation: operation{token: t, name: "Digest", size: h.Size()}, hash: h}, nil
}

type hashing struct {
	operation
	hash crypto.Hash
}

func (d *hashing) DigestKey(key *tokens.Object) error {
	return with(key, func(a p11.Attributes) error {
		v, _ := a.Get(p11.CKA_VALUE)
		return d.Update(v)
	})
}

func (d *hashing) Final() ([]byte, error) {
	if err := d.token.enter(context.Background(), "Digest.Final"); err != nil {
		return nil, err
	}
	h := d.hash.New()
	h.Write(d.data.Bytes())
	return h.Sum(nil), nil
}

type signature struct {
	*operation
	sign func(data []byte) ([]byte, error)
}

func (s *signature) Final() ([]byte, error) {
	if err := s.token.enter(context.Background(), s.name+".Final"); err != nil {
		return nil, err
	}
	return s.sign(s.data.Bytes())
}

// Sign is tokens.Crypto's.
func (t *Token) Sign(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Signature, error) {
	o, a, err := t.begin(ctx, "Sign", key)
	if err != nil {
		return nil, err
	}
	o.name = "Signature"
	s := &signature{operation: o}
	if s.sign, o.size, err = signer(m, a); err != nil {
		o.Close()
		return nil, err
	}
	return s, nil
}

func signer(m p11.Mechanism, a p11.Attributes) (func([]byte) ([]byte, error), int, error) {
	switch m.Type {
	case p11.CKM_SHA256_HMAC:
		k, _ := a.Get(p11.CKA_VALUE)
		return func(data []byte) ([]byte, error) { return mac(k, data), nil }, 32, nil
	case p11.CKM_ECDSA, p11.CKM_ECDSA_SHA256:
		k, err := ecPrivate(a)
		if err != nil {
			return nil, 0, err
		}
		half := (k.Params().BitSize + 7) / 8
		return func(data []byte) ([]byte, error) {
			if m.Type == p11.CKM_ECDSA_SHA256 {
				data = sum(data)
			}
			r, s, err := ecdsa.Sign(rand.Reader, k, data)
			if err != nil {
				return nil, p11.CKR_FUNCTION_FAILED
			}
			return append(padLeft(r.Bytes(), half), padLeft(s.Bytes(), half)...), nil
		}, 2 * half, nil
	}
	k, err := rsaPrivate(a)
	if err != nil {
		return nil, 0, err
	}
	return func(data []byte) (out []byte, err error) {
		switch m.Type {
		case p11.CKM_RSA_PKCS:
			out, err = rsa.SignPKCS1v15(rand.Reader, k, 0, data)
		case p11.CKM_SHA256_RSA_PKCS:
			out, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum(data))
		default:
			out, err = rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum(data), nil)
		}
		if err != nil {
			return nil, p11.CKR_DATA_LEN_RANGE
		}
		return out, nil
	}, k.Size(), nil
}

func sum(data []byte) []byte {
	s := sha256.Sum256(data)
	return s[:]
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

type verification struct {
	*operation
	verify func(data, signature []byte) bool
}

func (v *verification) Final(signature []byte) error {
	if err := v.token.enter(context.Background(), "Verification.Final"); err != nil {
		return err
	}
	if len(signature) != v.size {
		return p11.CKR_SIGNATURE_LEN_RANGE
	}
	if !v.verify(v.data.Bytes(), signature) {
		return p11.CKR_SIGNATURE_INVALID
	}
	return nil
}

// Verify is tokens.Crypto's.
func (t *Token) Verify(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Verification, error) {
	o, a, err := t.begin(ctx, "Verify", key)
	if err != nil {
		return nil, err
	}
	o.name = "Verification"
	v := &verification{operation: o}
	if v.verify, o.size, err = verifier(m, a); err != nil {
		o.Close()
		return nil, err
	}
	return v, nil
}

func verifier(m p11.Mechanism, a p11.Attributes) (func(data, signature []byte) bool, int, error) {
	switch m.Type {
	case p11.CKM_SHA256_HMAC:
		k, _ := a.Get(p11.CKA_VALUE)
		return func(data, signature []byte) bool { return hmac.Equal(mac(k, data), signature) }, 32, nil
	case p11.CKM_ECDSA, p11.CKM_ECDSA_SHA256:
		k, err := ecPublic(a)
		if err != nil {
			return nil, 0, err
		}
		half := (k.Params().BitSize + 7) / 8
		return func(data, signature []byte) bool {
			if m.Type == p11.CKM_ECDSA_SHA256 {
				data = sum(data)
			}
			return ecdsa.Verify(k, data, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
		}, 2 * half, nil
	}
	k, err := rsaPublic(a)
	if err != nil {
		return nil, 0, err
	}
	return func(data, signature []byte) bool {
		switch m.Type {
		case p11.CKM_RSA_PKCS:
			return rsa.VerifyPKCS1v15(k, 0, data, signature) == nil
		case p11.CKM_SHA256_RSA_PKCS:
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum(data), signature) == nil
		}
		return rsa.VerifyPSS(k, crypto.SHA256, sum(data), signature, nil) == nil
	}, k.Size(), nil
}

// SignRecover is tokens.Crypto's.
func (t *Token) SignRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, data []byte) (out []byte, err error) {
	if err := t.enter(ctx, "SignRecover"); err != nil {
		return nil, err
	}
	err = with(key, func(a p11.Attributes) error {
		sign, _, err := signer(m, a)
		if err != nil {
			return err
		}
		out, err = sign(data)
		return err
	})
	return out, err
}

// VerifyRecover is tokens.Crypto's.
func (t *Token) VerifyRecover(ctx context.Context, m p11.Mechanism, key *tokens.Object, signature []byte) (out []byte, err error) {
	if err := t.enter(ctx, "VerifyRecover"); err != nil {
		return nil, err
	}
	err = with(key, func(a p11.Attributes) error {
		k, err := rsaPublic(a)
		if err != nil {
			return err
		}
		block := new(big.Int).Exp(new(big.Int).SetBytes(signature), big.NewInt(int64(k.E)), k.N).Bytes()
		i := bytes.IndexByte(block, 0)
		if len(block) < 11 || block[0] != 1 || i < 9 {
			return p11.CKR_SIGNATURE_INVALID
		}
		out = block[i+1:]
		return nil
	})
	return out, err
}

type crypting struct {
	*operation
	stream stdcipher.Stream // gives at once what it takes; nil computes at the end
	final  func(data []byte) ([]byte, error)
}

func (c *crypting) Update(part []byte) ([]byte, error) {
	if err := c.operation.Update(part); err != nil {
		return nil, err
	}
	if c.stream == nil {
		return nil, nil
	}
	c.data.Reset()
	out := make([]byte, len(part))
	c.stream.XORKeyStream(out, part)
	return out, nil
}

func (c *crypting) Final() ([]byte, error) {
	if err := c.token.enter(context.Background(), "Cipher.Final"); err != nil {
		return nil, err
	}
	if c.stream != nil {
		return nil, nil
	}
	return c.final(c.data.Bytes())
}

// Encrypt is tokens.Crypto's.
func (t *Token) Encrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Cipher, error) {
	return t.cipher(ctx, "Encrypt", m, key, true)
}

// Decrypt is tokens.Crypto's.
func (t *Token) Decrypt(ctx context.Context, m p11.Mechanism, key *tokens.Object) (tokens.Cipher, error) {
	return t.cipher(ctx, "Decrypt", m, key, false)
}

func (t *Token) cipher(ctx context.Context, method string, m p11.Mechanism, key *tokens.Object, encrypt bool) (tokens.Cipher, error) {
	o, a, err := t.begin(ctx, method, key)
	if err != nil {
		return nil, err
	}
	o.name = "Cipher"
	c := &crypting{operation: o}
	if kt, _ := a.KeyType(); kt == p11.CKK_AES {
		err = c.aes(m, a, encrypt)
	} else {
		err = c.rsa(m, a, encrypt)
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return c, nil
}

func (c *crypting) aes(m p11.Mechanism, a p11.Attributes, encrypt bool) error {
	value, _ := a.Get(p11.CKA_VALUE)
	b, err := aes.NewCipher(value)
	if err != nil {
		return p11.CKR_KEY_SIZE_RANGE
	}
	switch p := m.Param.(type) {
	case p11.IV:
		if len(p) != 16 {
			return p11.CKR_MECHANISM_PARAM_INVALID
		}
		c.final = func(data []byte) ([]byte, error) { return cbc(b, p, data, encrypt, m.Type == p11.CKM_AES_CBC_PAD) }
		return nil
	case *p11.CTRParams:
		c.stream = stdcipher.NewCTR(b, p.Counter[:])
		return nil
	case *p11.GCMParams:
		g, err := stdcipher.NewGCMWithNonceSize(b, len(p.IV))
		if err != nil {
			return p11.CKR_MECHANISM_PARAM_INVALID
		}
		c.final = func(data []byte) ([]byte, error) {
			if encrypt {
				return g.Seal(nil, p.IV, data, p.AAD), nil
			}
			out, err := g.Open(nil, p.IV, data, p.AAD)
			if err != nil {
				return nil, p11.CKR_ENCRYPTED_DATA_INVALID
			}
			return out, nil
		}
		return nil
	}
	return p11.CKR_MECHANISM_PARAM_INVALID
}

func cbc(b stdcipher.Block, iv, data []byte, encrypt, pad bool) ([]byte, error) {
	if encrypt && pad {
		n := 16 - len(data)%16
		data = append(bytes.Clone(data), bytes.Repeat([]byte{byte(n)}, n)...)
	}
	if len(data)%16 != 0 {
		if encrypt {
			return nil, p11.CKR_DATA_LEN_RANGE
		}
		return nil, p11.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	out := make([]byte, len(data))
	if encrypt {
		stdcipher.NewCBCEncrypter(b, iv).CryptBlocks(out, data)
		return out, nil
	}
	stdcipher.NewCBCDecrypter(b, iv).CryptBlocks(out, data)
	if !pad {
		return out, nil
	}
	if len(out) == 0 || out[len(out)-1] == 0 || out[len(out)-1] > 16 {
		return nil, p11.CKR_ENCRYPTED_DATA_INVALID
	}
	return out[:len(out)-int(out[len(out)-1])], nil
}

func (c *crypting) rsa(m p11.Mechanism, a p11.Attributes, encrypt bool) error {
	if encrypt {
		k, err := rsaPublic(a)
		if err != nil {
			return err
		}
		c.final = func(data []byte) (out []byte, err error) {
			if m.Type == p11.CKM_RSA_PKCS_OAEP {
				out, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, k, data, nil)
			} else {
				out, err = rsa.EncryptPKCS1v15(rand.Reader, k, data) //nolint:staticcheck // CKM_RSA_PKCS is this
			}
			if err != nil {
				return nil, p11.CKR_DATA_LEN_RANGE
			}
			return out, nil
		}
		return nil
	}
	k, err := rsaPrivate(a)
	if err != nil {
		return err
	}
	c.final = func(data []byte) (out []byte, err error) {
		if m.Type == p11.CKM_RSA_PKCS_OAEP {
			out, err = rsa.DecryptOAEP(sha256.New(), nil, k, data, nil)
		} else {
			out, err = rsa.DecryptPKCS1v15(nil, k, data) //nolint:staticcheck // CKM_RSA_PKCS is this
		}
		if err != nil {
			return nil, p11.CKR_ENCRYPTED_DATA_INVALID
		}
		return out, nil
	}
	return nil
}

var _ tokens.Token = (*Token)(nil)
