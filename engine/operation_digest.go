package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A DigestOp is a message digest in progress. Whoever began it calls Close.
type DigestOp struct {
	operation
	token tokens.Digest
}

// NewDigest begins a digest.
func (s *Session) NewDigest(ctx context.Context, m p11.Mechanism) (*DigestOp, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	if err := s.standing.slot.usable(m.Type, p11.CKF_DIGEST, "digest"); err != nil {
		return nil, err
	}
	t, err := s.standing.slot.token.Digest(ctx, m)
	if err != nil {
		return nil, err
	}
	o := &DigestOp{token: t}
	if err := o.begin(s, nil, "digest", t); err != nil {
		return nil, err
	}
	return o, nil
}

// Update takes the next part of the data. An error ends the operation.
func (o *DigestOp) Update(ctx context.Context, part []byte) error {
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	o.parts = true
	return o.returned(o.token.Update(part))
}

// DigestKey takes the value of a secret key as the next part (PKCS#11 v3.1
// §5.12.4, C_DigestKey). A sensitive key, or one that cannot be extracted, gives
// CKR_KEY_INDIGESTIBLE: the digest of a guessable value would tell it.
func (o *DigestOp) DigestKey(ctx context.Context, h p11.ObjectHandle) error {
	err := o.digestKey(ctx, h)
	if err != nil && p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
		o.cut()
	}
	return err
}

func (o *DigestOp) digestKey(ctx context.Context, h p11.ObjectHandle) error {
	e, err := o.session.openKey(ctx, h, p11.CKR_KEY_HANDLE_INVALID)
	if err != nil {
		return err
	}
	defer e.release()
	if class, _ := e.attrs.Class(); class != p11.CKO_SECRET_KEY {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "only a secret key can be digested")
	}
	if hidden(e.attrs, p11.CKA_VALUE) {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "the key is sensitive or not extractable")
	}
	if err := o.enter(ctx); err != nil {
		return err
	}
	defer o.leave()
	o.parts = true
	return o.returned(o.token.DigestKey(e.object))
}

// Result returns the digest of the data so far. The operation goes on, also after
// an error: the next Result, or Final, is of all the data.
func (o *DigestOp) Result(ctx context.Context) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	digest, err := o.token.Final()
	return digest, o.answered(err)
}

// Final returns the digest and ends the operation.
func (o *DigestOp) Final(ctx context.Context) ([]byte, error) {
	return o.finish(ctx, nil)
}

func (o *DigestOp) finish(ctx context.Context, data []byte) ([]byte, error) {
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
	digest, err := o.token.Final()
	return digest, o.returned(err)
}

// Size is the digest's length in bytes.
func (o *DigestOp) Size() int { return o.token.Size() }
