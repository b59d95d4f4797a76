package swtok

import (
	"context"
	"crypto"
	"encoding/binary"

	"p11fs/p11"
	"p11fs/tokens"
)

// DeriveKey makes a secret key by ECDH (PKCS#11 v3.1 §5.18.5, C_DeriveKey, and
// §6.3.17, CKM_ECDH1_DERIVE). With cofactor 1, which all curves here have,
// CKM_ECDH1_COFACTOR_DERIVE is the same.
func (c *Crypto) DeriveKey(_ context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	if _, err := c.mechanism(m, p11.CKF_DERIVE); err != nil {
		return nil, err
	}
	p, ok := m.Param.(*p11.ECDH1Params)
	if !ok || p == nil {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s needs its parameters: public and kdf", m.Type.Short())
	}
	h, ok := kdfHash(p.KDF)
	switch {
	case !ok:
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "the key derivation function %s is not supported", p.KDF)
	case h == 0 && len(p.SharedData) != 0:
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "shared data needs a key derivation function")
	}
	class, kt, err := templateKey(template)
	if err != nil {
		return nil, err
	}
	if class != p11.CKO_SECRET_KEY {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism derives secret keys")
	}
	n, err := secretLength(template, kt)
	if err != nil {
		return nil, err
	}
	k, err := hold[*ecPrivate](c, base)
	if err != nil {
		return nil, err
	}
	defer base.Release()
	point, ok := k.curve.rawPoint(p.PublicData)
	if !ok {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public is no uncompressed point of %s", k.curve.Name)
	}
	z, err := k.key.ECDH(point)
	if err != nil {
		return nil, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "public is no point of %s", k.curve.Name)
	}
	defer wipe(z)
	value, err := stretch(z, h, p.SharedData, n, kt)
	if err != nil {
		return nil, err
	}
	return withValue(template, kt, value), nil
}

// stretch makes the key of n bytes, or of the natural length if n is negative,
// from the shared secret: without a hash by removing bytes from its leading
// end, with one by ANSI X9.63 (SEC 1 §3.6.1).
func stretch(z []byte, h crypto.Hash, shared []byte, n int, kt p11.KeyType) ([]byte, error) {
	natural := len(z)
	if h != 0 {
		natural = h.Size()
	}
	if n < 0 {
		if kt == p11.CKK_AES && !aesLength(natural) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCOMPLETE, "the template needs value-len")
		}
		n = natural
	}
	if h == 0 {
		if n > len(z) {
			return nil, p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "the shared secret has %d bytes, fewer than value-len", len(z))
		}
		return clone(z[len(z)-n:]), nil
	}
	out := make([]byte, 0, n+h.Size())
	d := h.New()
	var counter [4]byte
	for i := uint32(1); len(out) < n; i++ {
		d.Reset()
		d.Write(z)
		binary.BigEndian.PutUint32(counter[:], i)
		d.Write(counter[:])
		d.Write(shared)
		out = d.Sum(out)
	}
	wipe(out[n:])
	return out[:n:n], nil
}
