package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A recoverOp is a signature with data recovery, or its check: one part only.
type recoverOp struct {
	operation
	mech p11.Mechanism
	key  *tokens.Object // held until Close
}

// heldKey is the token's side of a recoverOp.
type heldKey struct{ *tokens.Object }

// Close lets go of the key.
func (k heldKey) Close() { k.Release() }

// SignRecoverInit is C_SignRecoverInit (PKCS#11 v3.1 §5.13.5).
func (s *Session) SignRecoverInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.recoverInit(ctx, activeSignRecover, m, key,
		keyUse{p11.CKA_SIGN_RECOVER, p11.CKF_SIGN_RECOVER, "sign with recovery", p11.CKR_KEY_HANDLE_INVALID})
}

// SignRecover is C_SignRecover (PKCS#11 v3.1 §5.13.6). A result longer than room
// is kept for the repetition of the call (*BufferError).
func (s *Session) SignRecover(ctx context.Context, data []byte, room int) ([]byte, error) {
	return s.recover(ctx, activeSignRecover, data, room, tokens.Token.SignRecover)
}

// VerifyRecoverInit is C_VerifyRecoverInit (PKCS#11 v3.1 §5.15.5).
func (s *Session) VerifyRecoverInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.recoverInit(ctx, activeVerifyRecover, m, key,
		keyUse{p11.CKA_VERIFY_RECOVER, p11.CKF_VERIFY_RECOVER, "verify with recovery", p11.CKR_KEY_HANDLE_INVALID})
}

// VerifyRecover is C_VerifyRecover (PKCS#11 v3.1 §5.15.6).
func (s *Session) VerifyRecover(ctx context.Context, signature []byte, room int) ([]byte, error) {
	return s.recover(ctx, activeVerifyRecover, signature, room, tokens.Token.VerifyRecover)
}

func (s *Session) recoverInit(ctx context.Context, kind activeKind, m p11.Mechanism, key p11.ObjectHandle, use keyUse) error {
	if err := s.mayActivate(kind); err != nil {
		return err
	}
	e, err := s.key(ctx, m, key, use)
	if err != nil {
		return err
	}
	defer e.release()
	if _, err := e.object.Acquire(); err != nil {
		return err
	}
	o := &recoverOp{mech: m, key: e.object}
	if err := o.begin(s, e, kind.String(), heldKey{e.object}); err != nil {
		return err
	}
	return s.activate(kind, o, &o.operation)
}

type recoverCall func(tokens.Token, context.Context, p11.Mechanism, *tokens.Object, []byte) ([]byte, error)

func (s *Session) recover(ctx context.Context, kind activeKind, data []byte, room int, compute recoverCall) ([]byte, error) {
	a, err := s.activeOf(kind, callOnce)
	if err != nil {
		return nil, err
	}
	o := a.op.(*recoverOp)
	return s.deliver(kind, a, callOnce, data, room, true, func() ([]byte, error) {
		if err := o.enter(ctx); err != nil {
			return nil, err
		}
		defer o.leave()
		defer o.stop.Store(true)
		out, err := compute(s.standing.slot.token, ctx, o.mech, o.key, data)
		return out, o.returned(err)
	})
}
