package soft

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
)

// DigestInit is of ep11.Card.
func (d *domain) DigestInit(ctx context.Context, mech p11.Mechanism) ([]byte, error) {
	return d.begin(ctx, p11.CKF_DIGEST, mech, nil)
}

// Digest is of ep11.Card.
func (d *domain) Digest(ctx context.Context, state, data []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_DIGEST, state, data, nil)
}

// DigestUpdate is of ep11.Card.
func (d *domain) DigestUpdate(ctx context.Context, state, data []byte) ([]byte, error) {
	newState, _, err := d.update(ctx, p11.CKF_DIGEST, state, data)
	return newState, err
}

// DigestFinal is of ep11.Card.
func (d *domain) DigestFinal(ctx context.Context, state []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_DIGEST, state, nil, nil)
}

// DigestSingle is of ep11.Card.
func (d *domain) DigestSingle(ctx context.Context, mech p11.Mechanism, data []byte) ([]byte, error) {
	return d.single(ctx, p11.CKF_DIGEST, mech, nil, data, nil)
}

// DigestKey digests the value of a secret key.
func (d *domain) DigestKey(ctx context.Context, state, blob []byte) ([]byte, error) {
	k, err := d.open(blob)
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	value, ok := k.attrs.Get(p11.CKA_VALUE)
	if !ok || k.class() != p11.CKO_SECRET_KEY {
		return nil, p11.CKR_KEY_INDIGESTIBLE
	}
	newState, _, err := d.update(ctx, p11.CKF_DIGEST, state, value)
	return newState, err
}

// EncryptInit is of ep11.Card.
func (d *domain) EncryptInit(ctx context.Context, mech p11.Mechanism, key []byte) ([]byte, error) {
	return d.begin(ctx, p11.CKF_ENCRYPT, mech, key)
}

// EncryptUpdate is of ep11.Card.
func (d *domain) EncryptUpdate(ctx context.Context, state, data []byte) ([]byte, []byte, error) {
	return d.update(ctx, p11.CKF_ENCRYPT, state, data)
}

// Encrypt is of ep11.Card.
func (d *domain) Encrypt(ctx context.Context, state, data []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_ENCRYPT, state, data, nil)
}

// EncryptFinal is of ep11.Card.
func (d *domain) EncryptFinal(ctx context.Context, state []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_ENCRYPT, state, nil, nil)
}

// EncryptSingle is of ep11.Card.
func (d *domain) EncryptSingle(ctx context.Context, key []byte, mech p11.Mechanism, data []byte) ([]byte, error) {
	return d.single(ctx, p11.CKF_ENCRYPT, mech, key, data, nil)
}

// DecryptInit is of ep11.Card.
func (d *domain) DecryptInit(ctx context.Context, mech p11.Mechanism, key []byte) ([]byte, error) {
	return d.begin(ctx, p11.CKF_DECRYPT, mech, key)
}

// DecryptUpdate is of ep11.Card.
func (d *domain) DecryptUpdate(ctx context.Context, state, data []byte) ([]byte, []byte, error) {
	return d.update(ctx, p11.CKF_DECRYPT, state, data)
}

// Decrypt is of ep11.Card.
func (d *domain) Decrypt(ctx context.Context, state, data []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_DECRYPT, state, data, nil)
}

// DecryptFinal is of ep11.Card.
func (d *domain) DecryptFinal(ctx context.Context, state []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_DECRYPT, state, nil, nil)
}

// DecryptSingle is of ep11.Card.
func (d *domain) DecryptSingle(ctx context.Context, key []byte, mech p11.Mechanism, data []byte) ([]byte, error) {
	return d.single(ctx, p11.CKF_DECRYPT, mech, key, data, nil)
}

// ReencryptSingle decrypts with one key and encrypts with another.
func (d *domain) ReencryptSingle(ctx context.Context, decryptKey, encryptKey []byte, decrypt, encrypt p11.Mechanism, in []byte) ([]byte, error) {
	plain, err := d.single(ctx, p11.CKF_DECRYPT, decrypt, decryptKey, in, nil)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(plain)
	return d.single(ctx, p11.CKF_ENCRYPT, encrypt, encryptKey, plain, nil)
}

// SignInit is of ep11.Card.
func (d *domain) SignInit(ctx context.Context, mech p11.Mechanism, key []byte) ([]byte, error) {
	return d.begin(ctx, p11.CKF_SIGN, mech, key)
}

// SignUpdate is of ep11.Card.
func (d *domain) SignUpdate(ctx context.Context, state, data []byte) ([]byte, error) {
	newState, _, err := d.update(ctx, p11.CKF_SIGN, state, data)
	return newState, err
}

// Sign is of ep11.Card.
func (d *domain) Sign(ctx context.Context, state, data []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_SIGN, state, data, nil)
}

// SignFinal is of ep11.Card.
func (d *domain) SignFinal(ctx context.Context, state []byte) ([]byte, error) {
	return d.final(ctx, p11.CKF_SIGN, state, nil, nil)
}

// SignSingle is of ep11.Card.
func (d *domain) SignSingle(ctx context.Context, key []byte, mech p11.Mechanism, data []byte) ([]byte, error) {
	return d.single(ctx, p11.CKF_SIGN, mech, key, data, nil)
}

// VerifyInit is of ep11.Card.
func (d *domain) VerifyInit(ctx context.Context, mech p11.Mechanism, key []byte) ([]byte, error) {
	return d.begin(ctx, p11.CKF_VERIFY, mech, key)
}

// VerifyUpdate is of ep11.Card.
func (d *domain) VerifyUpdate(ctx context.Context, state, data []byte) ([]byte, error) {
	newState, _, err := d.update(ctx, p11.CKF_VERIFY, state, data)
	return newState, err
}

// Verify is of ep11.Card.
func (d *domain) Verify(ctx context.Context, state, data, signature []byte) error {
	_, err := d.final(ctx, p11.CKF_VERIFY, state, data, signature)
	return err
}

// VerifyFinal is of ep11.Card.
func (d *domain) VerifyFinal(ctx context.Context, state, signature []byte) error {
	_, err := d.final(ctx, p11.CKF_VERIFY, state, nil, signature)
	return err
}

// VerifySingle is of ep11.Card.
func (d *domain) VerifySingle(ctx context.Context, key []byte, mech p11.Mechanism, data, signature []byte) error {
	_, err := d.single(ctx, p11.CKF_VERIFY, mech, key, data, signature)
	return err
}
