package engine

import (
	"context"

	"p11fs/p11"
)

// DigestInit is C_DigestInit (PKCS#11 v3.1 §5.12.1).
func (s *Session) DigestInit(ctx context.Context, m p11.Mechanism) error {
	if err := s.mayActivate(activeDigest); err != nil {
		return err
	}
	o, err := s.NewDigest(ctx, m)
	if err != nil {
		return err
	}
	return s.activate(activeDigest, o, &o.operation)
}

func (s *Session) digest(c call) (*active, *DigestOp, error) {
	a, err := s.activeOf(activeDigest, c)
	if err != nil {
		return nil, nil, err
	}
	return a, a.op.(*DigestOp), nil
}

// Digest is C_Digest (PKCS#11 v3.1 §5.12.2). With less room than the digest has
// bytes nothing is done (*BufferError).
func (s *Session) Digest(ctx context.Context, data []byte, room int) ([]byte, error) {
	a, o, err := s.digest(callOnce)
	if err != nil {
		return nil, err
	}
	if err := s.oneCall(activeDigest, a); err != nil {
		return nil, err
	}
	if room != NoLimit && room < o.Size() {
		return nil, &BufferError{Need: o.Size()}
	}
	defer s.settle(activeDigest, a)
	return o.finish(ctx, data)
}

// DigestUpdate is C_DigestUpdate (PKCS#11 v3.1 §5.12.3).
func (s *Session) DigestUpdate(ctx context.Context, part []byte) error {
	a, o, err := s.digest(callUpdate)
	if err != nil {
		return err
	}
	defer s.settle(activeDigest, a)
	return o.Update(ctx, part)
}

// DigestKey is C_DigestKey (PKCS#11 v3.1 §5.12.4).
func (s *Session) DigestKey(ctx context.Context, key p11.ObjectHandle) error {
	a, o, err := s.digest(callUpdate)
	if err != nil {
		return err
	}
	defer s.settle(activeDigest, a)
	return o.DigestKey(ctx, key)
}

// DigestFinal is C_DigestFinal (PKCS#11 v3.1 §5.12.5).
func (s *Session) DigestFinal(ctx context.Context, room int) ([]byte, error) {
	a, o, err := s.digest(callFinal)
	if err != nil {
		return nil, err
	}
	if room != NoLimit && room < o.Size() {
		return nil, &BufferError{Need: o.Size()}
	}
	defer s.settle(activeDigest, a)
	return o.Final(ctx)
}

// DigestSize is the length in bytes of the active digest.
func (s *Session) DigestSize() (int, error) {
	_, o, err := s.digest(0)
	if err != nil {
		return 0, err
	}
	return o.Size(), nil
}
