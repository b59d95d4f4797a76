package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// An Operation is a use of a mechanism in progress: a digest, a signature or its
// check, with or without recovery, an encryption or a decryption. Whoever began it
// calls Close. Wrapping, deriving and encapsulating are operations of one call.
//
// Every call is between enter and leave, which hold mu, so that calls on one
// operation go one after the other. Nobody else waits for mu: whoever cuts an
// operation that is in a call leaves the closing to the caller's leave.
type Operation struct {
	session *Session
	use     *use
	mech    p11.Mechanism
	key     *entry   // held; nil for a digest
	login   *login   // that lets the private key be used; nil for a public key or none, and by grants
	granted *granted // that lets it be used by grants
	fresh   bool     // the IV is none of the caller's choice
	size    int      // of the longest digest or signature

	signature []byte           // that a verification got first; nil in any other operation
	keyHandle p11.ObjectHandle // the token's, of the key of an operation that was saved

	ivs *ivCounter // of messages; nil if they are not counted

	stop atomic.Bool               // no more calls; what is held is given up as soon as mu is free
	call atomic.Pointer[tokenCall] // the token's call in progress; nil else

	mu      sync.Mutex       // guards all below; 9th and last in the order of doc.go
	open    bool             // it is registered with the session
	impl    tokens.Operation // the token's side; nil in an operation of one call, and of messages
	message *message         // of messages, the one that was begun in parts
	inCall  bool             // a call has not come back: it panicked
	calls   tokenCall        // serves one call after the other
	locked  bool             // CKA_ALWAYS_AUTHENTICATE, and not yet authenticated
	asked   uint64           // grows from one that is locked to the next of the session
	once    bool             // a call without that authentication ends it
	parts   bool             // Update was called
	replay  *replay          // nil unless the token's side needs it
	beside  int              // bytes that it takes beside the message
	held    int              // bytes in the account of the uid
}

// operationSize is what an operation takes beside what its parameter and message hold.
const operationSize = 1 << 10

// Begin starts an operation that no C_…Init knows of: any number of them may be in
// progress in a session. flag is the use of the mechanism: CKF_DIGEST, CKF_SIGN,
// CKF_VERIFY, CKF_ENCRYPT, CKF_DECRYPT, CKF_SIGN_RECOVER or CKF_VERIFY_RECOVER. A
// digest takes no key.
func (s *Session) Begin(ctx context.Context, flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle) (*Operation, error) {
	return s.beginParts(ctx, useOf(flag), m, key, false, false)
}

// BeginFresh is Begin of an encryption under an IV that the caller has just chosen at random,
// for whom it serves: to encrypt alone, by a grant, is no choice of IVs.
func (s *Session) BeginFresh(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle) (*Operation, error) {
	return s.beginParts(ctx, useOf(p11.CKF_ENCRYPT), m, key, false, true)
}

// beginParts starts an operation in parts, for a C_…Init or for Begin.
func (s *Session) beginParts(ctx context.Context, u *use, m p11.Mechanism, key p11.ObjectHandle, active, fresh bool) (*Operation, error) {
	o, err := s.beginWith(ctx, u, m, key, fresh)
	if err != nil {
		return nil, err
	}
	begun := false
	defer func() {
		if !begun {
			o.release() // also after a panic in the token
		}
	}()
	if err = o.takes(m.Bytes()); err != nil {
		return nil, err
	}
	if o.impl, err = o.atToken(ctx); err != nil {
		return nil, interruptedBy(ctx, err)
	}
	o.size, o.once = o.impl.Size(), active
	needs := !o.resumes()
	if _, sizes := o.impl.(tokens.Sizer); active {
		// A digest's or signature's length is known, and asking for it does nothing.
		needs = o.size == 0 && (needs || !sizes)
	}
	if needs {
		o.replay = &replay{}
	}
	begun = true // once it is registered, another thread may end it
	if err := o.register(); err != nil {
		return nil, err
	}
	return o, nil
}

// atToken starts the token's side.
func (o *Operation) atToken(ctx context.Context) (tokens.Operation, error) {
	var key *tokens.Object
	if o.key != nil {
		key = o.key.object
	}
	return o.token().Begin(ctx, o.use.atToken(), o.mech, key)
}

func (o *Operation) token() tokens.Token { return o.session.appSlot.slot.token }

// An ending says when a call ends its operation.
type ending int

const (
	never   ending = iota // an error is of the data so far
	onError               // PKCS#11 v3.1 §5.2
	always
)

// run is where each call comes to the token, and where each result leaves. A call
// that was interrupted, or whose result did not fit, ends nothing, since it did
// nothing. A result that comes after the end of the login or session is not given
// out.
func (o *Operation) run(ctx context.Context, end ending, call func(context.Context) ([]byte, error)) ([]byte, error) {
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	defer o.leave()
	began := time.Now()
	c := o.calls.begin(ctx, o.session.appSlot.app.account, began)
	o.call.Store(c)
	if o.stop.Load() {
		c.interrupt() // cut just now
	}
	defer c.end()
	out, err := call(c)
	o.inCall = false
	err = interruptedBy(c, err)
	o.session.appSlot.called(o.mech.Type, began, err)
	if cut := o.stands(); cut != nil {
		err = cut
	}
	if err == nil {
		if end == always {
			o.stop.Store(true)
		}
		return out, nil
	}
	_, tooLong := errors.AsType[*BufferError](err)
	if end != never && !tooLong && p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
		o.stop.Store(true)
	}
	secret.Wipe(out)
	return nil, err
}

// Update takes the next part of the data and returns what output there is. An
// error ends the operation.
func (o *Operation) Update(ctx context.Context, part []byte) ([]byte, error) {
	return o.updateWithin(ctx, nil, part, NoLimit)
}

// updateWithin is Update if the output fits room, and takes nothing if it does not. The
// output may be in the memory of into.
func (o *Operation) updateWithin(ctx context.Context, into, part []byte, room int) ([]byte, error) {
	if err := o.mayBegin(ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, onError, func(ctx context.Context) ([]byte, error) { return o.update(ctx, into, part, room) })
}

func (o *Operation) update(ctx context.Context, into, part []byte, room int) ([]byte, error) {
	if err := o.resume(ctx); err != nil {
		return nil, err
	}
	if z, ok := o.impl.(tokens.Sizer); ok {
		if err := fits(z.UpdateSize(len(part)), room); err != nil {
			return nil, err
		}
	}
	keeps := o.kept()
	if keeps >= 0 {
		if err := o.count(keeps + len(part)); err != nil {
			return nil, err
		}
		defer func() { _ = o.count(max(o.kept(), 0)) }() // not more than that
	}
	out, err := o.place(ctx, into, part)
	if err != nil {
		return nil, err
	}
	if err := fits(len(out), room); err != nil {
		secret.Wipe(out)
		return nil, o.goBack(err)
	}
	o.parts = true
	if r := o.replay; r != nil {
		r.given += len(out)
		if r.long || len(r.data)+len(part) > maxReplay {
			r.drop()
		} else {
			r.data = secret.Append(r.data, part)
		}
	}
	return out, nil
}

// place is the token's Update, into that memory if the token can.
func (o *Operation) place(ctx context.Context, into, part []byte) ([]byte, error) {
	if p, ok := o.impl.(tokens.Placer); ok && into != nil {
		return p.UpdateInto(ctx, into, part)
	}
	return o.impl.Update(ctx, part)
}

// Result returns the rest of the result of the data so far; see Final. The
// operation goes on, also after an error: the next Result, or Final, is of all the
// data, and what Update gives next does not follow this rest. Two tags of one
// authenticated encryption tell its authentication key, and one authentication
// (CKA_ALWAYS_AUTHENTICATE) serves the whole message: the caller lets out one of
// its results.
func (o *Operation) Result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.mayBegin(ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, never, func(ctx context.Context) ([]byte, error) { return o.result(ctx, signature) })
}

func (o *Operation) result(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.resume(ctx); err != nil {
		return nil, err
	}
	if err := o.countResult(); err != nil {
		return nil, err
	}
	defer func() { _ = o.count(max(o.kept(), 0)) }() // not more than that
	if r, ok := o.impl.(tokens.Resumer); ok {
		return r.Result(ctx, signature)
	}
	out, err := o.impl.Final(ctx, signature)
	if o.replay != nil && p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
		o.replay.ended = true
	}
	return out, err
}

// Final returns the rest of the result and ends the operation. A verification
// returns nothing: it gives CKR_SIGNATURE_INVALID or CKR_SIGNATURE_LEN_RANGE when
// signature, which other operations do not look at, does not fit the data.
func (o *Operation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if err := o.mayBegin(ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, always, func(ctx context.Context) ([]byte, error) {
		if err := o.resume(ctx); err != nil {
			return nil, err
		}
		if err := o.countResult(); err != nil {
			return nil, err
		}
		return o.impl.Final(ctx, signature)
	})
}

// finalWithin is Final if the rest fits room. It may be in memory that into gives.
func (o *Operation) finalWithin(ctx context.Context, into func(n int) []byte, signature []byte, room int) ([]byte, error) {
	if o.size > 0 {
		return o.Final(ctx, signature)
	}
	if err := o.mayBegin(ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, always, func(ctx context.Context) ([]byte, error) {
		if p, ok := o.impl.(tokens.Placer); ok && p.FinalSize() >= 0 {
			return o.finalInto(ctx, p, into, signature, room)
		}
		out, err := o.result(ctx, signature)
		if err != nil {
			return nil, err
		}
		if err := fits(len(out), room); err != nil {
			secret.Wipe(out)
			return nil, err
		}
		return out, nil
	})
}

// finalInto is finalWithin of what tells its size.
func (o *Operation) finalInto(ctx context.Context, p tokens.Placer, into func(n int) []byte, signature []byte, room int) ([]byte, error) {
	n := p.FinalSize()
	err := fits(n, room)
	if err == nil {
		err = o.countResult()
	}
	if err != nil {
		return nil, err
	}
	var memory []byte
	if into != nil {
		memory = into(n)
	}
	return p.FinalInto(ctx, memory, signature)
}

// whole is Update and Final in one call, if the result fits room. One that does not
// is thrown away and the operation begun anew, so that it can take other data, and
// nothing of an IV has been used. It may be in the memory of into.
func (o *Operation) whole(ctx context.Context, into, data, signature []byte, room int) ([]byte, error) {
	if err := o.mayBegin(ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, always, func(ctx context.Context) ([]byte, error) {
		if err := o.resume(ctx); err != nil {
			return nil, err
		}
		out, err := o.all(ctx, into, data, signature)
		if err != nil {
			return nil, err
		}
		small := fits(len(out), room)
		if small == nil {
			return out, nil
		}
		secret.Wipe(out)
		impl, err := o.atToken(ctx)
		if err != nil {
			o.stop.Store(true) // also if it was interrupted: the data has been taken
			return nil, err
		}
		o.impl.Close()
		o.impl = impl
		return nil, small
	})
}

// endHalfWay ends an operation that has taken its part of a call which err then
// interrupted: made again, the call would give it the part twice.
func (o *Operation) endHalfWay(err error) {
	if p11.RVOf(err) == p11.CKR_FUNCTION_CANCELED {
		o.Close()
	}
}

// all gives the token's side all data and takes all of the result.
func (o *Operation) all(ctx context.Context, into, data, signature []byte) ([]byte, error) {
	if p, ok := o.impl.(tokens.Placer); ok {
		out, err := p.WholeInto(ctx, into, data, signature)
		if err != nil {
			o.endHalfWay(interruptedBy(ctx, err))
		}
		return out, err
	}
	out, err := o.impl.Update(ctx, data)
	if err != nil {
		return nil, err
	}
	rest, err := o.impl.Final(ctx, signature)
	switch {
	case err != nil:
		secret.Wipe(out)
		o.endHalfWay(interruptedBy(ctx, err))
		return nil, err
	case len(out) == 0:
		return rest, nil
	}
	whole := bytes.Join([][]byte{out, rest}, nil)
	secret.Wipe(out)
	secret.Wipe(rest)
	return whole, nil
}

// Size is the longest digest or signature in bytes, 0 for other operations.
func (o *Operation) Size() int { return o.size }

// DigestKey takes the value of a secret key as the next part of a digest (PKCS#11
// v3.1 §5.12.4, C_DigestKey). A sensitive key, or one that cannot be extracted,
// gives CKR_KEY_INDIGESTIBLE: the digest of a guessable value would tell it. Where
// there is no such key the digest goes on.
func (o *Operation) DigestKey(ctx context.Context, h p11.ObjectHandle) error {
	e, err := o.session.openKey(ctx, h, p11.CKR_KEY_HANDLE_INVALID)
	if err != nil {
		return err
	}
	defer e.release()
	if err := o.digestKey(ctx, e); err != nil {
		if p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
			o.Close()
		}
		return err
	}
	return nil
}

func (o *Operation) digestKey(ctx context.Context, e *entry) error {
	if class, _ := e.attrs.Class(); class != p11.CKO_SECRET_KEY {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "only secret keys are digested")
	}
	if e.visibility(p11.CKA_VALUE) != tokens.Readable {
		return p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "the key is sensitive or not extractable")
	}
	_, err := o.run(ctx, onError, func(ctx context.Context) ([]byte, error) {
		if err := o.resume(ctx); err != nil {
			return nil, err
		}
		d, ok := o.impl.(tokens.KeyDigester)
		if !ok {
			return nil, p11.Advise(p11.Errorf(p11.CKR_KEY_INDIGESTIBLE, "the token digests no keys"), "digest the value itself, if you have it")
		}
		o.parts = true
		err := d.DigestKey(ctx, e.object)
		if o.replay != nil && err == nil {
			o.replay.drop() // a key's value is not kept
		}
		return nil, err
	})
	return err
}

// oneCall runs an operation that is one call of the token.
func (o *Operation) oneCall(ctx context.Context, call func(ctx context.Context, key *tokens.Object) ([]byte, error)) ([]byte, error) {
	if err := o.register(); err != nil {
		return nil, err
	}
	defer o.Close()
	return o.run(ctx, always, func(ctx context.Context) ([]byte, error) { return call(ctx, o.key.object) })
}
