package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A SignOp is a signature or MAC in progress. Whoever began it calls Close.
type SignOp struct {
	operation
	token tokens.Signature
}

func signing() keyUse {
	return keyUse{p11.CKA_SIGN, p11.CKF_SIGN, "sign", p11.CKR_KEY_HANDLE_INVALID}
}

// NewSign begins a signature with the private or secret key h.
func (s *Session) NewSign(ctx context.Context, m p11.Mechanism, h p11.ObjectHandle) (*SignOp, error) {
	e, err := s.key(ctx, m, h, signing())
	if err != nil {
		return nil, err
	}
	defer e.release()
	t, err := s.standing.slot.token.Sign(ctx, m, e.object)
	if err != nil {
		return nil, err
	}
	o := &SignOp{token: t}
	if err := o.begin(s, e, "signature", t); err != nil {
		return nil, err
	}
	return o, nil
}

// Update takes the next part of the data. An error ends the operation.
func (o *SignOp) Update(ctx context.Context, part []byte) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	o.parts = true
	return o.returned(o.token.Update(part))
}

// Result returns the signature of the data so far. The operation goes on, also
// after an error: the next Result, or Final, is of all the data. One
// authentication (CKA_ALWAYS_AUTHENTICATE) serves the whole message: the caller
// lets out one of its results.
func (o *SignOp) Result(ctx context.Context) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	signature, err := o.token.Final()
	return signature, o.answered(err)
}

// Final returns the signature and ends the operation.
func (o *SignOp) Final(ctx context.Context) ([]byte, error) {
	return o.finish(ctx, nil)
}

// finish takes the last data and returns the signature.
func (o *SignOp) finish(ctx context.Context, data []byte) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	defer o.stop.Store(true)
	if len(data) > 0 {
		if err := o.token.Update(data); err != nil {
			return nil, o.returned(err)
		}
	}
	signature, err := o.token.Final()
	return signature, o.returned(err)
}

// Size is the length in bytes of the longest signature.
func (o *SignOp) Size() int { return o.token.Size() }
