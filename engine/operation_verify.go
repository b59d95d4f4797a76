package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A VerifyOp is the check of a signature or MAC in progress. Whoever began it
// calls Close.
type VerifyOp struct {
	operation
	token tokens.Verification
}

func verifying() keyUse {
	return keyUse{p11.CKA_VERIFY, p11.CKF_VERIFY, "verify", p11.CKR_KEY_HANDLE_INVALID}
}

// NewVerify begins a check with the public or secret key h.
func (s *Session) NewVerify(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle) (*VerifyOp, error) {
	e, err := s.key(ctx, m, h, verifying())
	if err != nil {
		return nil, err
	}
	defer e.release()
	t, err := s.standing.slot.token.Verify(ctx, m, e.object)
	if err != nil {
		return nil, err
	}
	o := &VerifyOp{token: t}
	if err := o.begin(s, e, "verification", t); err != nil {
		return nil, err
	}
	return o, nil
}

// Update takes the next part of the data. An error ends the operation.
func (o *VerifyOp) Update(ctx context.Context, part []byte) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	o.parts = true
	return o.returned(o.token.Update(part))
}

// Result checks the signature of the data so far. The operation goes on, also
// after an error: the next Result, or Final, is of all the data.
func (o *VerifyOp) Result(ctx context.Context, signature []byte) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	return o.answered(o.token.Final(signature))
}

// Final checks the signature and ends the operation. It gives
// CKR_SIGNATURE_INVALID or CKR_SIGNATURE_LEN_RANGE when it does not fit the data.
func (o *VerifyOp) Final(ctx context.Context, signature []byte) error {
	return o.finish(ctx, nil, signature)
}

func (o *VerifyOp) finish(ctx context.Context, data, signature []byte) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	defer o.stop.Store(true)
	if len(data) > 0 {
		if err := o.token.Update(data); err != nil {
			return o.returned(err)
		}
	}
	return o.returned(o.token.Final(signature))
}

// Size is the length in bytes of a signature.
func (o *VerifyOp) Size() int { return o.token.Size() }
