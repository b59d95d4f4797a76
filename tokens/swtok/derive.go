package swtok

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// DeriveKey makes a secret key (PKCS#11 v3.1 §5.18.5, C_DeriveKey).
func (c *Crypto) DeriveKey(_ context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_DERIVE)
	if err != nil {
		return nil, err
	}
	return u.secretFrom(base, template, func(key any, kt p11.KeyType, n int) ([]byte, error) { return u.row.derive(u, key, kt, n) })
}

// EncapsulateKey makes a secret key, and what tells it to the owner of public (PKCS#11
// v3.2 §5.18.8, C_EncapsulateKey).
func (c *Crypto) EncapsulateKey(_ context.Context, m p11.Mechanism, public *tokens.Object, template p11.Attributes) (ciphertext []byte, _ p11.Attributes, _ error) {
	u, err := c.call(m, p11.CKF_ENCAPSULATE)
	if err != nil {
		return nil, nil, err
	}
	attrs, err := u.secretFrom(public, template, func(key any, kt p11.KeyType, n int) (value []byte, err error) {
		ciphertext, value, err = u.row.encapsulate(u, key, kt, n)
		return value, err
	})
	return ciphertext, attrs, err
}

// DecapsulateKey makes the secret key that ciphertext tells the owner of private (PKCS#11
// v3.2 §5.18.9, C_DecapsulateKey).
func (c *Crypto) DecapsulateKey(_ context.Context, m p11.Mechanism, private *tokens.Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error) {
	u, err := c.call(m, p11.CKF_DECAPSULATE)
	if err != nil {
		return nil, err
	}
	return u.secretFrom(private, template, func(key any, kt p11.KeyType, n int) ([]byte, error) {
		return u.row.decapsulate(u, key, ciphertext, kt, n)
	})
}

// secretFrom is the secret key of template whose value compute makes with the key of an
// object: of n bytes, or of its natural length if n is negative.
func (u call) secretFrom(o *tokens.Object, template p11.Attributes, compute func(key any, kt p11.KeyType, n int) ([]byte, error)) (p11.Attributes, error) {
	class, kt, err := templateKey(template)
	if err != nil {
		return nil, err
	}
	if class != p11.CKO_SECRET_KEY {
		return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "the mechanism makes secret keys")
	}
	n, err := secretLength(template, kt)
	if err != nil {
		return nil, err
	}
	k, err := u.hold(o)
	if err != nil {
		return nil, err
	}
	defer o.Release()
	value, err := compute(k, kt, n)
	if err != nil {
		return nil, err
	}
	return withValue(template, kt, value), nil
}
