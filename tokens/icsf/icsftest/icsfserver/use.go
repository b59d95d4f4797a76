package icsfserver

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"

	"p11fs/p11"
	"p11fs/tokens/icsf/icsfwire"
)

// use does what a key is used for.
func (c *conn) use(r *icsfwire.Request) (icsfwire.Data, error) {
	rule := func(i int) string {
		if i < len(r.Rules) {
			return r.Rules[i]
		}
		return ""
	}
	switch d := r.Data.(type) {
	case *icsfwire.Encrypt:
		o, err := c.key(r.Handle, p11.CKA_ENCRYPT)
		if err != nil {
			return nil, err
		}
		out, err := o.encrypt(rule(0), rule(1), rule(2), d)
		return out, err
	case *icsfwire.Decrypt:
		o, err := c.key(r.Handle, p11.CKA_DECRYPT)
		if err != nil {
			return nil, err
		}
		out, err := o.decrypt(rule(0), rule(1), rule(2), d)
		return out, err
	case *icsfwire.PrivateUse:
		out, err := c.private(r.Handle, rule(0), rule(1) == "DECRYPT", d.Input)
		text, err := fits(out, d.Room, err)
		return &icsfwire.PrivateResult{Output: text, Length: len(out)}, err
	case *icsfwire.PublicEncrypt:
		out, err := c.publicEncrypt(r.Handle, rule(0), d.Clear)
		text, err := fits(out, d.Room, err)
		return &icsfwire.PublicResult{Output: text, Length: len(out)}, err
	case *icsfwire.PublicVerify:
		o, err := c.key(r.Handle, p11.CKA_VERIFY)
		if err == nil {
			err = o.verify(rule(0), d.Data, d.Signature)
		}
		return nil, err
	case *icsfwire.MAC:
		return c.mac(r, d)
	case *icsfwire.VerifyMAC:
		return c.verifyMAC(r, d)
	case *icsfwire.Hash:
		return c.hash(r, d)
	case *icsfwire.Wrap:
		out, err := c.wrap(r, d)
		text, err := fits(out, d.Room, err)
		return &icsfwire.Wrapped{Key: text, Length: len(out)}, err
	case *icsfwire.KeyMaterial:
		return c.keyMaterial(r.Handle, r.Rules, d)
	}
	return nil, errors.New("there is no such service")
}

// fits is a result, or nothing of it where there is no room.
func fits(out []byte, room int, err error) ([]byte, error) {
	if err == nil && room < len(out) {
		return nil, refused(noRoom)
	}
	return out, err
}

// block is the cipher of a secret key.
func (o *object) block(name string) (cipher.Block, error) {
	kt, _ := o.attrs.KeyType()
	value, _ := o.attrs.Get(p11.CKA_VALUE)
	var b cipher.Block
	err := refused(wrongType)
	switch {
	case name == "AES" && kt == p11.CKK_AES:
		b, err = aes.NewCipher(value)
	case name == "DES" && kt == p11.CKK_DES:
		b, err = des.NewCipher(value)
	case name == "DES3" && kt == p11.CKK_DES2 && len(value) == 16:
		b, err = des.NewTripleDESCipher(slices.Concat(value, value[:8]))
	case name == "DES3" && kt == p11.CKK_DES3:
		b, err = des.NewTripleDESCipher(value)
	}
	return b, err
}

// start is the vector that a part begins with.
func start(b cipher.Block, mode, step string, iv, chain []byte) ([]byte, error) {
	if mode == "ECB" {
		return nil, nil
	}
	if step == "CONTINUE" || step == "FINAL" {
		iv = chain
	}
	if len(iv) < b.BlockSize() {
		return nil, refused(badValue)
	}
	return iv[:b.BlockSize()], nil
}

func last(step string) bool { return step == "ONLY" || step == "FINAL" }

// chainOf is chain data that begins with something.
func chainOf(b []byte) []byte {
	out := make([]byte, icsfwire.ChainSize)
	copy(out, b)
	return out
}

func (o *object) encrypt(name, mode, step string, d *icsfwire.Encrypt) (*icsfwire.Encrypted, error) {
	b, err := o.block(name)
	if err != nil {
		return &icsfwire.Encrypted{}, err
	}
	iv, err := start(b, mode, step, d.IV, d.Chain)
	if err != nil {
		return &icsfwire.Encrypted{}, err
	}
	in, n := slices.Clone(d.Text), b.BlockSize()
	if mode == "CBC-PAD" && last(step) {
		in = pad(in, n)
	}
	if len(in)%n != 0 {
		return &icsfwire.Encrypted{}, refused(unaligned)
	}
	if d.Room < len(in) {
		return &icsfwire.Encrypted{Chain: chainOf(d.Chain), Length: len(in)}, refused(noRoom)
	}
	if mode == "ECB" {
		for i := 0; i < len(in); i += n {
			b.Encrypt(in[i:], in[i:])
		}
	} else {
		cipher.NewCBCEncrypter(b, iv).CryptBlocks(in, in)
		if len(in) > 0 {
			iv = in[len(in)-n:]
		}
	}
	return &icsfwire.Encrypted{Chain: chainOf(iv), Text: in, Length: len(in)}, nil
}

func (o *object) decrypt(name, mode, step string, d *icsfwire.Decrypt) (*icsfwire.Decrypted, error) {
	b, err := o.block(name)
	if err != nil {
		return &icsfwire.Decrypted{}, err
	}
	iv, err := start(b, mode, step, d.IV, d.Chain)
	if err != nil {
		return &icsfwire.Decrypted{}, err
	}
	out, n := slices.Clone(d.Text), b.BlockSize()
	if len(out)%n != 0 {
		return &icsfwire.Decrypted{}, refused(unaligned)
	}
	if mode == "ECB" {
		for i := 0; i < len(out); i += n {
			b.Decrypt(out[i:], out[i:])
		}
	} else {
		cipher.NewCBCDecrypter(b, iv).CryptBlocks(out, out)
		if len(out) > 0 {
			iv = d.Text[len(d.Text)-n:]
		}
	}
	if mode == "CBC-PAD" && last(step) {
		if out, err = unpad(out, n, unaligned); err != nil {
			return &icsfwire.Decrypted{}, err
		}
	}
	if d.Room < len(out) {
		return &icsfwire.Decrypted{Chain: chainOf(d.Chain), Length: len(out)}, refused(noRoom)
	}
	return &icsfwire.Decrypted{Chain: chainOf(iv), Text: out, Length: len(out)}, nil
}

func pad(b []byte, n int) []byte {
	k := n - len(b)%n
	for range k {
		b = append(b, byte(k))
	}
	return b
}

func unpad(b []byte, n, reason int) ([]byte, error) {
	if len(b) == 0 || b[len(b)-1] == 0 || int(b[len(b)-1]) > n {
		return nil, refused(reason)
	}
	k := int(b[len(b)-1])
	for _, x := range b[len(b)-k:] {
		if int(x) != k {
			return nil, refused(reason)
		}
	}
	return b[:len(b)-k], nil
}

// private signs or decrypts.
func (c *conn) private(h icsfwire.Handle, name string, decrypt bool, in []byte) ([]byte, error) {
	use := p11.CKA_SIGN
	if decrypt {
		use = p11.CKA_DECRYPT
	}
	o, err := c.key(h, use)
	if err != nil {
		return nil, err
	}
	switch name {
	case "ECDSA":
		return o.signEC(in)
	case "DSA":
		return o.signDSA(in)
	}
	k, err := o.rsaPrivate()
	if err != nil {
		return nil, err
	}
	switch {
	case name == "RSA-ZERO":
		x := new(big.Int).SetBytes(in)
		if x.Cmp(k.N) >= 0 {
			return nil, refused(badData)
		}
		return x.Exp(x, k.D, k.N).FillBytes(make([]byte, k.Size())), nil
	case name != "RSA-PKCS":
		return nil, refused(wrongType)
	case decrypt:
		out, err := rsa.DecryptPKCS1v15(nil, k, in) //nolint:staticcheck // what ICSF does
		if err != nil {
			return nil, refused(badData)
		}
		return out, nil
	}
	out, err := rsa.SignPKCS1v15(nil, k, 0, in)
	if err != nil {
		return nil, refused(unaligned)
	}
	return out, nil
}

func (o *object) signEC(digest []byte) ([]byte, error) {
	k, err := o.ecPrivate()
	if err != nil {
		return nil, err
	}
	r, s, err := ecdsa.Sign(rand.Reader, k, digest)
	if err != nil {
		return nil, err
	}
	n := (k.Params().BitSize + 7) / 8
	return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), nil
}

func (c *conn) publicEncrypt(h icsfwire.Handle, name string, in []byte) ([]byte, error) {
	o, err := c.key(h, p11.CKA_ENCRYPT)
	if err != nil {
		return nil, err
	}
	k, err := o.rsaPublic()
	if err != nil {
		return nil, err
	}
	if name == "RSA-ZERO" {
		return raw(k, in)
	}
	out, err := rsa.EncryptPKCS1v15(rand.Reader, k, in) //nolint:staticcheck // what ICSF does
	if err != nil {
		return nil, refused(badData)
	}
	return out, nil
}

func raw(k *rsa.PublicKey, in []byte) ([]byte, error) {
	x := new(big.Int).SetBytes(in)
	if x.Cmp(k.N) >= 0 {
		return nil, refused(badData)
	}
	return x.Exp(x, big.NewInt(int64(k.E)), k.N).FillBytes(make([]byte, k.Size())), nil
}

// The refusals of a signature and of a MAC that do not fit.
func wrongSignature() error { return refusal{4, badData} }
func wrongMAC() error       { return refusal{4, 8000} }

func (o *object) verify(name string, data, signature []byte) error {
	if name == "ECDSA" {
		k, err := o.ecPublic()
		if err != nil {
			return err
		}
		n := (k.Params().BitSize + 7) / 8
		if len(signature) != 2*n || !ecdsa.Verify(k, data, new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])) {
			return wrongSignature()
		}
		return nil
	}
	if name == "DSA" {
		return o.verifyDSA(data, signature)
	}
	k, err := o.rsaPublic()
	if err != nil {
		return err
	}
	if name == "RSA-PKCS" {
		if rsa.VerifyPKCS1v15(k, 0, data, signature) != nil {
			return wrongSignature()
		}
		return nil
	}
	out, err := raw(k, signature)
	if err != nil || new(big.Int).SetBytes(out).Cmp(new(big.Int).SetBytes(data)) != 0 {
		return wrongSignature()
	}
	return nil
}

func (c *conn) hash(r *icsfwire.Request, d *icsfwire.Hash) (icsfwire.Data, error) {
	none := &icsfwire.HashResult{Chain: chainOf(nil)}
	if len(r.Rules) != 3 {
		return none, refused(badValue)
	}
	kind, err := hashOf(r.Rules[0])
	if err != nil {
		return none, err
	}
	h, err := c.state(r.Rules[2], d.Chain, kind.New)
	if err != nil {
		return none, err
	}
	step, verify := r.Rules[2], r.Rules[1][:min(3, len(r.Rules[1]))] == "VER"
	if step == "FIRST" || step == "MIDDLE" {
		if len(d.Text)%h.BlockSize() != 0 {
			return none, refused(unaligned)
		}
		h.Write(d.Text)
		chain, err := c.keep(h)
		return &icsfwire.HashResult{Chain: chain}, err
	}
	h.Write(d.Text)
	use := p11.CKA_SIGN
	if verify {
		use = p11.CKA_VERIFY
	}
	o, err := c.key(r.Handle, use)
	if err != nil {
		return none, err
	}
	if verify {
		return none, o.verifyHash(kind, h.Sum(nil), d.Signature)
	}
	out, err := o.signHash(kind, h.Sum(nil))
	text, err := fits(out, len(d.Signature), err)
	return &icsfwire.HashResult{Chain: chainOf(nil), Signature: text, Length: len(out)}, err
}

func (o *object) signHash(kind crypto.Hash, digest []byte) ([]byte, error) {
	switch kt, _ := o.attrs.KeyType(); kt {
	case p11.CKK_EC:
		return o.signEC(digest)
	case p11.CKK_DSA:
		return o.signDSA(digest)
	}
	k, err := o.rsaPrivate()
	if err != nil {
		return nil, err
	}
	return rsa.SignPKCS1v15(nil, k, kind, digest)
}

func (o *object) verifyHash(kind crypto.Hash, digest, signature []byte) error {
	switch kt, _ := o.attrs.KeyType(); kt {
	case p11.CKK_EC:
		return o.verify("ECDSA", digest, signature)
	case p11.CKK_DSA:
		return o.verifyDSA(digest, signature)
	}
	k, err := o.rsaPublic()
	if err == nil && rsa.VerifyPKCS1v15(k, kind, digest, signature) != nil {
		err = wrongSignature()
	}
	return err
}
