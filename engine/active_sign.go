package engine

import (
	"context"

	"p11fs/p11"
)

// SignInit is C_SignInit (PKCS#11 v3.1 §5.13.1).
func (s *Session) SignInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	if err := s.mayActivate(activeSign); err != nil {
		return err
	}
	o, err := s.NewSign(ctx, m, key)
	if err != nil {
		return err
	}
	return s.activate(activeSign, o, &o.operation)
}

func (s *Session) signature(c call) (*active, *SignOp, error) {
	a, err := s.activeOf(activeSign, c)
	if err != nil {
		return nil, nil, err
	}
	return a, a.op.(*SignOp), nil
}

// Sign is C_Sign (PKCS#11 v3.1 §5.13.2). With less room than the longest
// signature takes nothing is done (*BufferError).
func (s *Session) Sign(ctx context.Context, data []byte, room int) ([]byte, error) {
	a, o, err := s.signature(callOnce)
	if err != nil {
		return nil, err
	}
	if err := s.oneCall(activeSign, a); err != nil {
		return nil, err
	}
	if room != NoLimit && room < o.Size() {
		return nil, &BufferError{Need: o.Size()}
	}
	defer s.settle(activeSign, a)
	return o.finish(ctx, data)
}

// SignUpdate is C_SignUpdate (PKCS#11 v3.1 §5.13.3).
func (s *Session) SignUpdate(ctx context.Context, part []byte) error {
	a, o, err := s.signature(callUpdate)
	if err != nil {
		return err
	}
	defer s.settle(activeSign, a)
	return o.Update(ctx, part)
}

// SignFinal is C_SignFinal (PKCS#11 v3.1 §5.13.4).
func (s *Session) SignFinal(ctx context.Context, room int) ([]byte, error) {
	a, o, err := s.signature(callFinal)
	if err != nil {
		return nil, err
	}
	if room != NoLimit && room < o.Size() {
		return nil, &BufferError{Need: o.Size()}
	}
	defer s.settle(activeSign, a)
	return o.Final(ctx)
}

// SignSize is the length in bytes of the longest signature that the active
// operation can give.
func (s *Session) SignSize() (int, error) {
	_, o, err := s.signature(0)
	if err != nil {
		return 0, err
	}
	return o.Size(), nil
}

// VerifyInit is C_VerifyInit (PKCS#11 v3.1 §5.15.1).
func (s *Session) VerifyInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	if err := s.mayActivate(activeVerify); err != nil {
		return err
	}
	o, err := s.NewVerify(ctx, m, key)
	if err != nil {
		return err
	}
	return s.activate(activeVerify, o, &o.operation)
}

func (s *Session) verification(c call) (*active, *VerifyOp, error) {
	a, err := s.activeOf(activeVerify, c)
	if err != nil {
		return nil, nil, err
	}
	return a, a.op.(*VerifyOp), nil
}

// Verify is C_Verify (PKCS#11 v3.1 §5.15.2).
func (s *Session) Verify(ctx context.Context, data, signature []byte) error {
	a, o, err := s.verification(callOnce)
	if err != nil {
		return err
	}
	if err := s.oneCall(activeVerify, a); err != nil {
		return err
	}
	defer s.settle(activeVerify, a)
	return o.finish(ctx, data, signature)
}

// VerifyUpdate is C_VerifyUpdate (PKCS#11 v3.1 §5.15.3).
func (s *Session) VerifyUpdate(ctx context.Context, part []byte) error {
	a, o, err := s.verification(callUpdate)
	if err != nil {
		return err
	}
	defer s.settle(activeVerify, a)
	return o.Update(ctx, part)
}

// VerifyFinal is C_VerifyFinal (PKCS#11 v3.1 §5.15.4).
func (s *Session) VerifyFinal(ctx context.Context, signature []byte) error {
	a, o, err := s.verification(callFinal)
	if err != nil {
		return err
	}
	defer s.settle(activeVerify, a)
	return o.Final(ctx, signature)
}
