package swtok

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A call is one use of a mechanism of the table.
type call struct {
	*Crypto
	row    *row
	m      p11.Mechanism
	others []any  // the parsed keys that the parameter names, nil where it names none
	closed []bool // which keys of a derivation are not to be read, the base key first
}

// call finds the row of m, which must have the function of flag.
func (c *Crypto) call(m p11.Mechanism, flag p11.Flags) (call, error) {
	r := c.rows[m.Type]
	if r == nil || r.Flags&flag == 0 {
		return call{}, p11.Errorf(p11.CKR_MECHANISM_INVALID, "the token has no mechanism %s for this", m.Type.Short())
	}
	return call{Crypto: c, row: r, m: m}, nil
}

// param is the call's parameter, for which Mechanism.Validate lets bytes pass too.
func param[P p11.Param](u call) (P, error) {
	p, ok := u.m.Param.(P)
	if !ok {
		return p, p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "%s does not take its parameter as bytes", u.m.Type.Short())
	}
	return p, nil
}

// keyOf is key as the type that the mechanism needs.
func keyOf[K any](key any) (K, error) {
	k, ok := key.(K)
	if !ok {
		return k, p11.Errorf(p11.CKR_KEY_TYPE_INCONSISTENT, "the mechanism needs another type of key")
	}
	return k, nil
}

// fits checks a key's size in bits against the row.
func (u call) fits(bits int) error {
	if n := uint64(bits); n < u.row.MinKeySize || n > u.row.MaxKeySize {
		return p11.Errorf(p11.CKR_KEY_SIZE_RANGE, "%s takes keys of %d to %d bits, not %d", u.m.Type.Short(), u.row.MinKeySize, u.row.MaxKeySize, n)
	}
	return nil
}

// A part is what one use of a mechanism has to say for itself. After an error of
// update none of its functions is called but close.
type part interface {
	// update may put what it gives into the memory of into, where that is long enough.
	update(into, part []byte) ([]byte, error)
	// updateSize is how many bytes update gives for a part of n.
	updateSize(n int) int
	// result leaves the message where it is, so that it may go on.
	result(signature []byte) ([]byte, error)
	close()
}

// An ender is a part with an end of its own, behind which nothing comes.
type ender interface {
	// final is result, in the memory of into where that is long enough.
	final(into []byte) ([]byte, error)
	// finalSize is how many bytes it has, -1 where that is not known.
	finalSize() int
	// whole is update and final of a message of which there is nothing yet.
	whole(into, message []byte) ([]byte, error)
}

// operation makes a tokens.Operation of a part. Of these only a message may have a result
// that takes long enough to be interrupted.
type operation struct {
	part part           // nil after Close
	key  *tokens.Object // held until Close; nil for a digest
	err  error          // of an Update, and so of all calls after it
}

var (
	_ tokens.Operation   = (*operation)(nil)
	_ tokens.Resumer     = (*operation)(nil)
	_ tokens.Sizer       = (*operation)(nil)
	_ tokens.Placer      = (*operation)(nil)
	_ tokens.Keeper      = (*operation)(nil)
	_ tokens.Duplicator  = (*operation)(nil)
	_ tokens.Duplicator  = digestOperation{}
	_ tokens.KeyDigester = digestOperation{}
)

// Begin is tokens.Crypto.
func (c *Crypto) Begin(_ context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	u, err := c.call(m, use)
	if err != nil {
		return nil, err
	}
	o, err := u.begin(use, key)
	switch {
	case err != nil:
		return nil, err
	case use == p11.CKF_DIGEST:
		return digestOperation{o}, nil
	}
	return o, nil
}

// begin has the row's family begin the use, and holds the key until the operation
// is closed.
func (u call) begin(use p11.Flags, o *tokens.Object) (*operation, error) {
	var key any
	if o != nil {
		var err error
		if key, err = u.hold(o); err != nil {
			return nil, err
		}
	}
	p, err := u.row.uses[use](u, key)
	if err != nil {
		if o != nil {
			o.Release()
		}
		return nil, err
	}
	return &operation{part: p, key: o}, nil
}

func (o *operation) usable() error {
	if o.part == nil {
		return p11.CKR_OPERATION_NOT_INITIALIZED
	}
	return o.err
}

// Update is tokens.Operation.
func (o *operation) Update(ctx context.Context, part []byte) ([]byte, error) {
	return o.UpdateInto(ctx, nil, part)
}

// UpdateInto is tokens.Placer.
func (o *operation) UpdateInto(_ context.Context, into, part []byte) ([]byte, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	out, err := o.part.update(into, part)
	o.err = err
	return out, err
}

// Final is tokens.Operation.
func (o *operation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	return o.FinalInto(ctx, nil, signature)
}

// FinalInto is tokens.Placer.
func (o *operation) FinalInto(ctx context.Context, into, signature []byte) ([]byte, error) {
	e, ok := o.part.(ender)
	if !ok {
		return o.Result(ctx, signature)
	}
	if o.err != nil {
		return nil, o.err
	}
	o.err = p11.CKR_OPERATION_NOT_INITIALIZED
	return e.final(into)
}

// FinalSize is tokens.Placer.
func (o *operation) FinalSize() int {
	if e, ok := o.part.(ender); ok && o.err == nil {
		return e.finalSize()
	}
	return -1
}

// WholeInto is tokens.Placer.
func (o *operation) WholeInto(ctx context.Context, into, message, signature []byte) ([]byte, error) {
	if e, ok := o.part.(ender); ok && o.err == nil {
		o.err = p11.CKR_OPERATION_NOT_INITIALIZED
		return e.whole(into, message)
	}
	out, err := o.UpdateInto(ctx, into, message)
	if err != nil {
		return nil, err
	}
	rest, err := o.Result(ctx, signature)
	switch {
	case err != nil:
		wipe(out)
		return nil, err
	case len(out) == 0:
		return rest, nil
	}
	out = secret.Append(out, rest)
	wipe(rest)
	return out, nil
}

// Result is tokens.Resumer.
func (o *operation) Result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	if m, ok := o.part.(*message); ok {
		return m.resultWithin(ctx, signature)
	}
	return o.part.result(signature)
}

// roomIn is n bytes, in the memory of into if that is long enough.
func roomIn(into []byte, n int) []byte {
	if cap(into) >= n {
		return into[:n]
	}
	return make([]byte, n)
}

// UpdateSize is tokens.Sizer.
func (o *operation) UpdateSize(n int) int {
	if o.usable() != nil {
		return 0
	}
	return o.part.updateSize(n)
}

// A duplicable part makes another one in the same state, if it can.
type duplicable interface {
	mayDuplicate() bool
	duplicate() (part, error)
}

// MayDuplicate is tokens.Duplicator.
func (o *operation) MayDuplicate() bool {
	d, ok := o.part.(duplicable)
	return ok && o.err == nil && d.mayDuplicate()
}

// Duplicate is tokens.Duplicator.
func (o *operation) Duplicate() (tokens.Operation, error) {
	c, err := o.another()
	if err != nil {
		return nil, err // not a *operation that is nil
	}
	return c, nil
}

func (o *operation) another() (*operation, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	d, ok := o.part.(duplicable)
	if !ok {
		return nil, p11.CKR_STATE_UNSAVEABLE
	}
	p, err := d.duplicate()
	if err != nil {
		return nil, err
	}
	if o.key != nil {
		if _, err := o.key.Acquire(); err != nil {
			p.close()
			return nil, err
		}
	}
	return &operation{part: p, key: o.key}, nil
}

// Kept is tokens.Keeper.
func (o *operation) Kept() int {
	if k, ok := o.part.(interface{ kept() int }); ok {
		return k.kept()
	}
	return -1
}

// Size is tokens.Operation.
func (o *operation) Size() int {
	if m, ok := o.part.(*message); ok {
		return m.size
	}
	return 0
}

// Close is tokens.Operation.
func (o *operation) Close() {
	if o.part == nil {
		return
	}
	o.part.close()
	o.part = nil
	if o.key != nil {
		o.key.Release()
	}
}

// all is the whole operation over in; it is closed.
func (o *operation) all(ctx context.Context, in []byte) ([]byte, error) {
	defer o.Close()
	return o.WholeInto(ctx, nil, in, nil)
}

// digestOperation is an operation that takes keys.
type digestOperation struct{ *operation }

// Duplicate is tokens.Duplicator.
func (o digestOperation) Duplicate() (tokens.Operation, error) {
	c, err := o.another()
	if err != nil {
		return nil, err
	}
	return digestOperation{c}, nil
}

// DigestKey is tokens.KeyDigester.
func (o digestOperation) DigestKey(ctx context.Context, key *tokens.Object) error {
	a, err := key.Acquire()
	if err != nil {
		return err
	}
	defer key.Release()
	value, ok := a.Get(p11.CKA_VALUE)
	if class, _ := a.Class(); class != p11.CKO_SECRET_KEY || !ok {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "only secret keys are digested")
	}
	_, err = o.Update(ctx, value)
	return err
}
