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
	k, err := c.hold(base)
	if err != nil {
		return nil, err
	}
	defer base.Release()
	value, err := u.row.derive(u, k, kt, n)
	if err != nil {
		return nil, err
	}
	return withValue(template, kt, value), nil
}
