package swtok

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A part is what the operations here have to say for themselves. result leaves the
// message where it is, so that it may go on.
type part interface {
	update(part []byte) ([]byte, error)
	result(signature []byte) ([]byte, error)
	size() int
	close()
}

// operation makes a tokens.Operation of a part. Nothing here takes long enough to be
// interrupted.
type operation struct{ part }

var (
	_ tokens.Operation = operation{}
	_ tokens.Resumer   = operation{}
)

// Update is tokens.Operation.
func (o operation) Update(_ context.Context, part []byte) ([]byte, error) { return o.update(part) }

// Final is tokens.Operation.
func (o operation) Final(_ context.Context, signature []byte) ([]byte, error) {
	return o.result(signature)
}

// Result is tokens.Resumer.
func (o operation) Result(_ context.Context, signature []byte) ([]byte, error) {
	return o.result(signature)
}

// Size is tokens.Operation.
func (o operation) Size() int { return o.size() }

// Close is tokens.Operation.
func (o operation) Close() { o.close() }

// digestOperation is an operation that takes keys.
type digestOperation struct {
	operation
	d *digest
}

var _ tokens.KeyDigester = digestOperation{}

// DigestKey is tokens.KeyDigester.
func (o digestOperation) DigestKey(_ context.Context, key *tokens.Object) error {
	return o.d.digestKey(key)
}

// Begin is tokens.Crypto.
func (c *Crypto) Begin(_ context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	mech, err := c.mechanism(m, use)
	if err != nil {
		return nil, err
	}
	var p part
	switch use {
	case p11.CKF_DIGEST:
		d, err := c.digest(mech, m)
		if err != nil {
			return nil, err
		}
		return digestOperation{operation{d}, d}, nil
	case p11.CKF_SIGN, p11.CKF_SIGN_RECOVER:
		p, err = c.sign(mech, m, key)
	case p11.CKF_VERIFY:
		p, err = c.verify(mech, m, key)
	case p11.CKF_VERIFY_RECOVER:
		p, err = c.verifyRecover(mech, m, key)
	case p11.CKF_ENCRYPT:
		p, err = c.encrypt(mech, m, key)
	default:
		p, err = c.decrypt(mech, m, key)
	}
	if err != nil {
		return nil, err
	}
	return operation{p}, nil
}
