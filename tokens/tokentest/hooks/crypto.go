package hooks

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

var (
	_ tokens.KeyGenerator = (*Token)(nil)
	_ tokens.KeyWrapper   = (*Token)(nil)
	_ tokens.KeyDeriver   = (*Token)(nil)
	_ tokens.KeyJoiner    = (*Token)(nil)
	_ tokens.Encapsulator = (*Token)(nil)
	_ tokens.RandomSeeder = (*Token)(nil)
	_ tokens.Adopter      = (*Token)(nil)
	_ tokens.Operation    = operation{}
	_ tokens.Resumer      = operation{}
	_ tokens.Sizer        = operation{}
	_ tokens.KeyDigester  = operation{}
	_ tokens.Duplicator   = operation{}
)

// listed are the mechanisms that the token has of those of the cryptography: few
// enough that tests can name one that is absent.
func listed(t p11.MechanismType) bool {
	switch t {
	case p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_AES_KEY_GEN, p11.CKM_GENERIC_SECRET_KEY_GEN,
		p11.CKM_RSA_PKCS, p11.CKM_SHA256_RSA_PKCS, p11.CKM_SHA256_RSA_PKCS_PSS, p11.CKM_RSA_PKCS_OAEP,
		p11.CKM_DH_PKCS_KEY_PAIR_GEN, p11.CKM_DH_PKCS_DERIVE, p11.CKM_DSA_KEY_PAIR_GEN, p11.CKM_DSA_PARAMETER_GEN, p11.CKM_DSA_SHA256,
		p11.CKM_ECDSA, p11.CKM_ECDSA_SHA256, p11.CKM_ECDH1_DERIVE, p11.CKM_PUB_KEY_FROM_PRIV_KEY, p11.CKM_ECDH_AES_KEY_WRAP, p11.CKM_CONCATENATE_BASE_AND_KEY, p11.CKM_EXTRACT_KEY_FROM_KEY, p11.CKM_HKDF_DERIVE, p11.CKM_HKDF_DATA,
		p11.CKM_AES_CBC, p11.CKM_AES_CBC_PAD, p11.CKM_AES_CTR, p11.CKM_AES_GCM, p11.CKM_AES_KEY_WRAP_KWP, p11.CKM_P11FS_STREAM,
		p11.CKM_SHA_1, p11.CKM_SHA256, p11.CKM_SHA384, p11.CKM_SHA512, p11.CKM_SHA256_HMAC:
		return true
	}
	return false
}

// Mechanisms is tokens.Crypto's.
func (t *Token) Mechanisms() []p11.MechanismInfo {
	var list []p11.MechanismInfo
	for _, m := range t.crypto.Mechanisms() {
		if listed(m.Type) || slices.Contains(t.options.Also, m.Type) {
			list = append(list, m)
		}
	}
	return list
}

// GenerateRandom is tokens.Crypto's.
func (t *Token) GenerateRandom(ctx context.Context, b []byte) error {
	if err := t.before("GenerateRandom"); err != nil {
		return err
	}
	return t.crypto.GenerateRandom(ctx, b)
}

// Begin is tokens.Crypto's.
func (t *Token) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	method, name := names(use)
	if err := t.before(method); err != nil {
		return nil, err
	}
	o, err := t.crypto.Begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	op := operation{o, t, name}
	switch {
	case t.options.NoResumer && t.options.NoSizer:
		return struct{ tokens.Operation }{op}, nil
	case t.options.NoResumer:
		return struct {
			tokens.Operation
			tokens.Sizer
		}{op, op}, nil
	case t.options.NoSizer:
		return struct {
			tokens.Operation
			tokens.Resumer
		}{op, op}, nil
	}
	return op, nil
}

// names are what Options.Before knows a use by.
func names(use p11.Flags) (method, operation string) {
	switch use {
	case p11.CKF_DIGEST:
		return "Digest", "Digest"
	case p11.CKF_SIGN:
		return "Sign", "Signature"
	case p11.CKF_VERIFY:
		return "Verify", "Verification"
	case p11.CKF_SIGN_RECOVER:
		return "SignRecover", "SignRecover"
	case p11.CKF_VERIFY_RECOVER:
		return "VerifyRecover", "VerifyRecover"
	case p11.CKF_ENCRYPT:
		return "Encrypt", "Cipher"
	}
	return "Decrypt", "Cipher"
}

// operation asks Options.Before at each call.
type operation struct {
	tokens.Operation
	token *Token
	name  string
}

func (o operation) Update(ctx context.Context, part []byte) ([]byte, error) {
	if err := o.token.before(o.name + ".Update"); err != nil {
		return nil, err
	}
	return o.Operation.Update(ctx, part)
}

func (o operation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.token.before(o.name + ".Final"); err != nil {
		return nil, err
	}
	return o.Operation.Final(ctx, signature)
}

func (o operation) Result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.token.before(o.name + ".Final"); err != nil {
		return nil, err
	}
	return o.Operation.(tokens.Resumer).Result(ctx, signature)
}

func (o operation) UpdateSize(n int) int { return o.Operation.(tokens.Sizer).UpdateSize(n) }

func (o operation) DigestKey(ctx context.Context, key *tokens.Object) error {
	return o.Operation.(tokens.KeyDigester).DigestKey(ctx, key)
}

func (o operation) MayDuplicate() bool {
	d, ok := o.Operation.(tokens.Duplicator)
	return ok && d.MayDuplicate()
}

func (o operation) Duplicate() (tokens.Operation, error) {
	c, err := o.Operation.(tokens.Duplicator).Duplicate()
	if err != nil {
		return nil, err
	}
	return operation{c, o.token, o.name}, nil
}

// Adopt is tokens.Adopter's.
func (t *Token) Adopt(ctx context.Context, attrs p11.Attributes) (p11.Attributes, error) {
	if err := t.before("Adopt"); err != nil {
		attrs.Wipe()
		return nil, err
	}
	return t.crypto.Adopt(ctx, attrs)
}

// GenerateKey is tokens.KeyGenerator's.
func (t *Token) GenerateKey(ctx context.Context, m p11.Mechanism, template p11.Attributes) (p11.Attributes, error) {
	if err := t.before("GenerateKey"); err != nil {
		return nil, err
	}
	return t.crypto.GenerateKey(ctx, m, template)
}

// GenerateKeyPair is tokens.KeyGenerator's.
func (t *Token) GenerateKeyPair(ctx context.Context, m p11.Mechanism, public, private p11.Attributes) (p11.Attributes, p11.Attributes, error) {
	if err := t.before("GenerateKeyPair"); err != nil {
		return nil, nil, err
	}
	return t.crypto.GenerateKeyPair(ctx, m, public, private)
}

// WrapKey is tokens.KeyWrapper's.
func (t *Token) WrapKey(ctx context.Context, m p11.Mechanism, wrapping, key *tokens.Object) ([]byte, error) {
	if err := t.before("WrapKey"); err != nil {
		return nil, err
	}
	return t.crypto.WrapKey(ctx, m, wrapping, key)
}

// UnwrapKey is tokens.KeyWrapper's.
func (t *Token) UnwrapKey(ctx context.Context, m p11.Mechanism, unwrapping *tokens.Object, wrapped []byte, template p11.Attributes) (p11.Attributes, error) {
	if err := t.before("UnwrapKey"); err != nil {
		return nil, err
	}
	return t.crypto.UnwrapKey(ctx, m, unwrapping, wrapped, template)
}

// DeriveKey is tokens.KeyDeriver's.
func (t *Token) DeriveKey(ctx context.Context, m p11.Mechanism, base *tokens.Object, template p11.Attributes) (p11.Attributes, error) {
	if err := t.before("DeriveKey"); err != nil {
		return nil, err
	}
	return t.crypto.DeriveKey(ctx, m, base, template)
}

// JoinKeys is tokens.KeyJoiner's.
func (t *Token) JoinKeys(ctx context.Context, m p11.Mechanism, keys []*tokens.Object, templates []p11.Attributes) ([]p11.Attributes, []byte, error) {
	if err := t.before("JoinKeys"); err != nil {
		return nil, nil, err
	}
	return t.crypto.JoinKeys(ctx, m, keys, templates)
}

// EncapsulateKey is tokens.Encapsulator's.
func (t *Token) EncapsulateKey(ctx context.Context, m p11.Mechanism, public *tokens.Object, template p11.Attributes) ([]byte, p11.Attributes, error) {
	if err := t.before("EncapsulateKey"); err != nil {
		return nil, nil, err
	}
	return t.crypto.EncapsulateKey(ctx, m, public, template)
}

// DecapsulateKey is tokens.Encapsulator's.
func (t *Token) DecapsulateKey(ctx context.Context, m p11.Mechanism, private *tokens.Object, ciphertext []byte, template p11.Attributes) (p11.Attributes, error) {
	if err := t.before("DecapsulateKey"); err != nil {
		return nil, err
	}
	return t.crypto.DecapsulateKey(ctx, m, private, ciphertext, template)
}

// SeedRandom is tokens.RandomSeeder's.
func (t *Token) SeedRandom(context.Context, []byte) error {
	if err := t.before("SeedRandom"); err != nil {
		return err
	}
	return p11.CKR_RANDOM_SEED_NOT_SUPPORTED
}
