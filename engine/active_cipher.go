package engine

import (
	"context"

	"p11fs/p11"
)

// EncryptInit is C_EncryptInit (PKCS#11 v3.1 §5.8.1).
func (s *Session) EncryptInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.cipherInit(ctx, activeEncrypt, m, key, s.NewEncrypt)
}

// DecryptInit is C_DecryptInit (PKCS#11 v3.1 §5.10.1).
func (s *Session) DecryptInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.cipherInit(ctx, activeDecrypt, m, key, s.NewDecrypt)
}

func (s *Session) cipherInit(ctx context.Context, kind activeKind, m p11.Mechanism, key p11.ObjectHandle,
	begin func(context.Context, p11.Mechanism, p11.ObjectHandle) (*CipherOp, error)) error {
	if err := s.mayActivate(kind); err != nil {
		return err
	}
	o, err := begin(ctx, m, key)
	if err != nil {
		return err
	}
	return s.activate(kind, o, &o.operation)
}

// Encrypt is C_Encrypt (PKCS#11 v3.1 §5.8.2). A result longer than room is kept
// for the repetition of the call (*BufferError).
func (s *Session) Encrypt(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.cipherOnce(ctx, activeEncrypt, data, room)
}

// EncryptUpdate is C_EncryptUpdate (PKCS#11 v3.1 §5.8.3).
func (s *Session) EncryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.cipherUpdate(ctx, activeEncrypt, part, room)
}

// EncryptFinal is C_EncryptFinal (PKCS#11 v3.1 §5.8.4).
func (s *Session) EncryptFinal(ctx context.Context, room int) ([]byte, error) {
	return s.cipherFinal(ctx, activeEncrypt, room)
}

// EncryptSize bounds what n more bytes and C_EncryptFinal can give together.
func (s *Session) EncryptSize(n int) (int, error) { return s.cipherSize(activeEncrypt, n) }

// Decrypt is C_Decrypt (PKCS#11 v3.1 §5.10.2). A result longer than room is kept
// for the repetition of the call (*BufferError).
func (s *Session) Decrypt(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.cipherOnce(ctx, activeDecrypt, data, room)
}

// DecryptUpdate is C_DecryptUpdate (PKCS#11 v3.1 §5.10.3).
func (s *Session) DecryptUpdate(ctx context.Context, part []byte, room int) ([]byte, error) {
	return s.cipherUpdate(ctx, activeDecrypt, part, room)
}

// DecryptFinal is C_DecryptFinal (PKCS#11 v3.1 §5.10.4).
func (s *Session) DecryptFinal(ctx context.Context, room int) ([]byte, error) {
	return s.cipherFinal(ctx, activeDecrypt, room)
}

// DecryptSize bounds what n more bytes and C_DecryptFinal can give together.
func (s *Session) DecryptSize(n int) (int, error) { return s.cipherSize(activeDecrypt, n) }

func (s *Session) cipher(kind activeKind, c call) (*active, *CipherOp, error) {
	a, err := s.activeOf(kind, c)
	if err != nil {
		return nil, nil, err
	}
	return a, a.op.(*CipherOp), nil
}

func (s *Session) cipherOnce(ctx context.Context, kind activeKind, data []byte, room int) ([]byte, error) {
	a, o, err := s.cipher(kind, callOnce)
	if err != nil {
		return nil, err
	}
	if err := s.oneCall(kind, a); err != nil {
		return nil, err
	}
	return s.deliver(kind, a, callOnce, data, room, true, func() ([]byte, error) { return o.finish(ctx, data) })
}

func (s *Session) cipherUpdate(ctx context.Context, kind activeKind, part []byte, room int) ([]byte, error) {
	a, o, err := s.cipher(kind, callUpdate)
	if err != nil {
		return nil, err
	}
	return s.deliver(kind, a, callUpdate, part, room, false, func() ([]byte, error) { return o.Update(ctx, part) })
}

func (s *Session) cipherFinal(ctx context.Context, kind activeKind, room int) ([]byte, error) {
	a, o, err := s.cipher(kind, callFinal)
	if err != nil {
		return nil, err
	}
	return s.deliver(kind, a, callFinal, nil, room, true, func() ([]byte, error) { return o.Final(ctx) })
}

func (s *Session) cipherSize(kind activeKind, n int) (int, error) {
	_, o, err := s.cipher(kind, 0)
	if err != nil {
		return 0, err
	}
	return o.Size(n), nil
}
