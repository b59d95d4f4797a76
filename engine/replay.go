package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// A replay is how an operation goes on after a result, or after an output that did
// not fit, where the token's side cannot (tokens.Resumer, tokens.Sizer): it is begun
// anew and given the data once more.
type replay struct {
	data  []byte // of the message so far
	given int    // bytes that Update has returned
	long  bool   // the message is not kept: it is too long, or holds a key
	ended bool   // the token's side has gone past the data
}

// drop gives up the data.
func (r *replay) drop() {
	secret.Wipe(r.data)
	r.data, r.long = nil, true
}

// maxReplay bounds the data that is kept for that, in bytes.
const maxReplay = 1 << 20

// goBack has the message begun anew at the next call, since the token's side has
// gone past the data.
func (o *Operation) goBack(err error) error {
	if o.replay == nil {
		return p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token gave more than it had said")
	}
	o.replay.ended = true
	return err
}

// resumes says whether the token's side can go on after its result.
func (o *Operation) resumes() bool {
	_, ok := o.impl.(tokens.Resumer)
	return ok
}

// resume begins the message anew where a result has ended it.
func (o *Operation) resume(ctx context.Context) error {
	r := o.replay
	if r == nil || !r.ended {
		return nil
	}
	if r.long {
		return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED,
			"the message ended with its result: this token cannot go on with one of more than %d bytes, or with a key in it", maxReplay)
	}
	impl, err := o.atToken(ctx)
	if err != nil {
		return err
	}
	out, err := impl.Update(ctx, r.data)
	if err == nil && len(out) != r.given {
		err = p11.Errorf(p11.CKR_FUNCTION_FAILED, "the token gave another output for the same data")
	}
	secret.Wipe(out)
	if err != nil {
		impl.Close()
		return err
	}
	o.impl.Close()
	o.impl, r.ended = impl, false
	return nil
}

// kept is how many bytes of the message are kept: -1 where none ever are.
func (o *Operation) kept() int {
	n := -1
	if k, ok := o.impl.(tokens.Keeper); ok {
		n = k.Kept()
	}
	if o.replay != nil {
		n = max(n, 0) + len(o.replay.data)
	}
	return n
}

// takes counts the operation itself, and n bytes beside its message.
func (o *Operation) takes(n int) error {
	o.beside = operationSize + n
	return o.count(0)
}

// count has the operation hold n bytes of a message in the account of the uid.
func (o *Operation) count(n int) error {
	n += o.beside
	err := o.session.appSlot.app.account.Take(n - o.held)
	if err == nil {
		o.held = n
	}
	return err
}

// countResult counts half of what is kept of the message once more: its result may be
// as long, and the longest message has to have one within what a uid may hold.
func (o *Operation) countResult() error {
	n := max(o.kept(), 0)
	return o.count(n + n/2)
}
