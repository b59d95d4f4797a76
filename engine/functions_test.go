package engine

import (
	"context"
	"crypto/rsa"
	"math/big"

	"p11fs/p11"
)

// The functions of the standard by their names, for the tests.

func (s *Session) SignInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_SIGN, m, key)
}

func (s *Session) VerifyInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_VERIFY, m, key)
}

func (s *Session) SignRecoverInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_SIGN_RECOVER, m, key)
}

func (s *Session) VerifyRecoverInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_VERIFY_RECOVER, m, key)
}

func (s *Session) EncryptInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_ENCRYPT, m, key)
}

func (s *Session) DecryptInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.Init(ctx, p11.CKF_DECRYPT, m, key)
}

func (s *Session) DigestInit(ctx context.Context, m p11.Mechanism) error {
	return s.Init(ctx, p11.CKF_DIGEST, m, 0)
}

func (s *Session) Sign(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_SIGN, data, nil, room)
}

func (s *Session) SignUpdate(ctx context.Context, part []byte) error {
	_, err := s.Update(ctx, p11.CKF_SIGN, part, NoLimit)
	return err
}

func (s *Session) SignFinal(ctx context.Context, room int) ([]byte, error) {
	return s.Final(ctx, p11.CKF_SIGN, nil, room)
}

func (s *Session) SignRecover(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_SIGN_RECOVER, data, nil, room)
}

func (s *Session) Verify(ctx context.Context, data, signature []byte) error {
	_, err := s.Do(ctx, p11.CKF_VERIFY, data, signature, NoLimit)
	return err
}

func (s *Session) VerifyUpdate(ctx context.Context, part []byte) error {
	_, err := s.Update(ctx, p11.CKF_VERIFY, part, NoLimit)
	return err
}

func (s *Session) VerifyFinal(ctx context.Context, signature []byte) error {
	_, err := s.Final(ctx, p11.CKF_VERIFY, signature, NoLimit)
	return err
}

func (s *Session) VerifyRecover(ctx context.Context, signature []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_VERIFY_RECOVER, signature, nil, room)
}

func (s *Session) Encrypt(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_ENCRYPT, data, nil, room)
}

func (s *Session) EncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.Update(ctx, p11.CKF_ENCRYPT, part, room)
}

func (s *Session) EncryptFinal(ctx context.Context, room int) ([]byte, error) {
	return s.Final(ctx, p11.CKF_ENCRYPT, nil, room)
}

func (s *Session) Decrypt(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_DECRYPT, data, nil, room)
}

func (s *Session) DecryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.Update(ctx, p11.CKF_DECRYPT, part, room)
}

func (s *Session) DecryptFinal(ctx context.Context, room int) ([]byte, error) {
	return s.Final(ctx, p11.CKF_DECRYPT, nil, room)
}

func (s *Session) Digest(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.Do(ctx, p11.CKF_DIGEST, data, nil, room)
}

func (s *Session) DigestUpdate(ctx context.Context, part []byte) error {
	_, err := s.Update(ctx, p11.CKF_DIGEST, part, NoLimit)
	return err
}

func (s *Session) DigestFinal(ctx context.Context, room int) ([]byte, error) {
	return s.Final(ctx, p11.CKF_DIGEST, nil, room)
}

func (s *Session) DigestEncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.UpdateBoth(ctx, p11.CKF_ENCRYPT, p11.CKF_DIGEST, part, room)
}

func (s *Session) DecryptDigestUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.UpdateBoth(ctx, p11.CKF_DECRYPT, p11.CKF_DIGEST, part, room)
}

func (s *Session) SignEncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.UpdateBoth(ctx, p11.CKF_ENCRYPT, p11.CKF_SIGN, part, room)
}

func (s *Session) DecryptVerifyUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.UpdateBoth(ctx, p11.CKF_DECRYPT, p11.CKF_VERIFY, part, room)
}

// errOf is the error of a call that has a result, too.
func errOf(_ []byte, err error) error { return err }

// rsaPrivateKey returns the attributes that hold an RSA private key.
func rsaPrivateKey(k *rsa.PrivateKey) p11.Attributes {
	k.Precompute()
	return p11.Attributes{
		{Type: p11.CKA_MODULUS, Value: k.N.Bytes()},
		{Type: p11.CKA_PUBLIC_EXPONENT, Value: big.NewInt(int64(k.E)).Bytes()},
		{Type: p11.CKA_PRIVATE_EXPONENT, Value: k.D.Bytes()},
		{Type: p11.CKA_PRIME_1, Value: k.Primes[0].Bytes()},
		{Type: p11.CKA_PRIME_2, Value: k.Primes[1].Bytes()},
		{Type: p11.CKA_EXPONENT_1, Value: k.Precomputed.Dp.Bytes()},
		{Type: p11.CKA_EXPONENT_2, Value: k.Precomputed.Dq.Bytes()},
		{Type: p11.CKA_COEFFICIENT, Value: k.Precomputed.Qinv.Bytes()},
	}
}
