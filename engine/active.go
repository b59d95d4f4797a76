package engine

import (
	"context"
	"fmt"

	"p11fs/p11"
	"p11fs/secret"
)

// A session has at most one active operation of each use: the one that a C_…Init
// function began. Operations of different uses are independent, which the
// dual-function operations need. The functions here are those of PKCS#11 v3.1 §5.8
// to §5.17, with the use in place of the name: Init of CKF_SIGN is C_SignInit, Do is
// C_Sign, Update C_SignUpdate and Final C_SignFinal.

// What may stand for the room for a result instead of a length.
const (
	// NoLimit: any length will do.
	NoLimit = -1
	// OnlyLength: the caller has no buffer at all and asks for the length, also
	// where that is 0.
	OnlyLength = -2
)

// A BufferError says that the result does not fit the caller's room. It wraps
// CKR_BUFFER_TOO_SMALL. The operation is where it was before the call: what was
// computed is thrown away, and any call may follow, with these data or others
// (PKCS#11 v3.1 §5.2).
type BufferError struct{ Need int }

// Error says how much room it takes.
func (e *BufferError) Error() string { return fmt.Sprintf("the result has %d bytes", e.Need) }

// Unwrap returns the CK_RV.
func (e *BufferError) Unwrap() error { return p11.CKR_BUFFER_TOO_SMALL }

// fits returns a BufferError for a result of n bytes that is longer than room.
func fits(n, room int) error {
	if room == OnlyLength || room >= 0 && n > room {
		return &BufferError{Need: n}
	}
	return nil
}

// Init makes an operation the active one of its use, a CKF_ flag as for Begin. A
// digest takes no key.
func (s *Session) Init(ctx context.Context, flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.initWith(ctx, useOf(flag), m, key, nil)
}

// VerifySignatureInit is C_VerifySignatureInit (PKCS#11 v3.2 §5.15): a verification that
// gets its signature before the data. It is active in the place of any other.
func (s *Session) VerifySignatureInit(ctx context.Context, m p11.Mechanism, key p11.ObjectHandle, signature []byte) error {
	return s.initWith(ctx, useOf(p11.CKF_VERIFY), m, key, append([]byte{}, signature...))
}

func (s *Session) initWith(ctx context.Context, u *use, m p11.Mechanism, key p11.ObjectHandle, signature []byte) error {
	if s.closed() {
		return s.gone()
	}
	s.mu.Lock()
	err := s.mayActivateLocked(u)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	o, err := s.beginParts(ctx, u, m, key, true, false)
	if err != nil {
		return err
	}
	o.signature = signature
	switch {
	case len(signature) > o.size:
		err = p11.Errorf(p11.CKR_SIGNATURE_LEN_RANGE, "the signature has %d bytes, more than %d", len(signature), o.size)
	case signature != nil:
		err = o.takes(m.Bytes() + len(signature))
	}
	if err == nil {
		err = s.activate(o)
	}
	if err != nil {
		o.Close()
	}
	return err
}

// activate makes o the active operation of its use. The end of the login or session
// may have cut o already.
func (s *Session) activate(o *Operation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.mayActivateLocked(o.use)
	if err == nil {
		err = o.stands()
	}
	if err == nil {
		s.active[o.use.flag] = o
	}
	return err
}

// mayActivateLocked refuses a second operation of a use.
func (s *Session) mayActivateLocked(u *use) error {
	if s.active[u.flag] != nil {
		return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s is active in this session", u.noun)
	}
	return nil
}

// activeOf returns the session's operation of that use. A verification that got its
// signature first is another one: see presented.
func (s *Session) activeOf(flag p11.Flags) (*Operation, error) {
	return s.activeIf(flag, func(o *Operation) bool { return o.signature == nil })
}

// presented returns the session's verification that got its signature first.
func (s *Session) presented() (*Operation, error) {
	return s.activeIf(p11.CKF_VERIFY, func(o *Operation) bool { return o.signature != nil })
}

func (s *Session) activeIf(flag p11.Flags, is func(*Operation) bool) (*Operation, error) {
	if s.closed() {
		return nil, s.gone()
	}
	s.mu.Lock()
	o := s.active[flag]
	s.mu.Unlock()
	if o == nil || !is(o) {
		return nil, notActive(useOf(flag).noun)
	}
	return o, nil
}

// settle takes the operation out of its place when it has ended. It is deferred,
// also for a panic in the token.
func (s *Session) settle(o *Operation) {
	if !o.stop.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[o.use.flag] == o {
		delete(s.active, o.use.flag)
	}
}

// end ends the operation and takes it out of its place.
func (s *Session) end(o *Operation) {
	o.Close()
	s.settle(o)
}

// sizeFits tells the length of a digest or signature, which is known before: nothing
// is asked of the operation for that.
func sizeFits(o *Operation, room int) error {
	if n := o.Size(); n > 0 {
		return fits(n, room)
	}
	return nil
}

// Do is the function that does an operation in one part (C_Digest, C_Sign,
// C_Verify with its signature, C_Encrypt, …). A result longer than room gives a
// *BufferError.
func (s *Session) Do(ctx context.Context, flag p11.Flags, data, signature []byte, room int) ([]byte, error) {
	return s.doInto(ctx, flag, nil, data, signature, room)
}

// DoInto is Do of an encryption or decryption for a caller that has memory for the output,
// as UpdateInto.
func (s *Session) DoInto(ctx context.Context, flag p11.Flags, into, data []byte, room int) ([]byte, error) {
	return s.doInto(ctx, flag, into, data, nil, room)
}

func (s *Session) doInto(ctx context.Context, flag p11.Flags, into, data, signature []byte, room int) ([]byte, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, err
	}
	return s.do(ctx, o, into, data, signature, room)
}

// VerifySignature is C_VerifySignature (PKCS#11 v3.2 §5.15).
func (s *Session) VerifySignature(ctx context.Context, data []byte) error {
	o, err := s.presented()
	if err != nil {
		return err
	}
	_, err = s.do(ctx, o, nil, data, o.signature, NoLimit)
	return err
}

func (s *Session) do(ctx context.Context, o *Operation, into, data, signature []byte, room int) ([]byte, error) {
	o.mu.Lock()
	parts := o.parts
	o.unlock()
	if parts {
		// PKCS#11 v3.1 §5.13.2: "C_Sign cannot be used to terminate a
		// multi-part operation".
		s.end(o)
		return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s in parts was begun", o.use.noun)
	}
	if err := sizeFits(o, room); err != nil {
		return nil, err
	}
	defer s.settle(o)
	return o.whole(ctx, into, data, signature, room)
}

// Update takes the next part of the data (C_DigestUpdate, C_EncryptUpdate, …), and
// returns the output of an encryption or decryption.
func (s *Session) Update(ctx context.Context, flag p11.Flags, part []byte, room int) ([]byte, error) {
	return s.UpdateInto(ctx, flag, nil, part, room)
}

// UpdateInto is Update for a caller that has memory for the output: it is in that of
// into, from its beginning to its capacity, where the token can put it there and it is long
// enough. part is elsewhere.
func (s *Session) UpdateInto(ctx context.Context, flag p11.Flags, into, part []byte, room int) ([]byte, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, err
	}
	defer s.settle(o)
	return o.updateWithin(ctx, into, part, room)
}

// VerifySignatureUpdate is C_VerifySignatureUpdate (PKCS#11 v3.2 §5.15).
func (s *Session) VerifySignatureUpdate(ctx context.Context, part []byte) error {
	o, err := s.presented()
	if err != nil {
		return err
	}
	defer s.settle(o)
	_, err = o.Update(ctx, part)
	return err
}

// VerifySignatureFinal is C_VerifySignatureFinal (PKCS#11 v3.2 §5.15).
func (s *Session) VerifySignatureFinal(ctx context.Context) error {
	o, err := s.presented()
	if err != nil {
		return err
	}
	defer s.settle(o)
	_, err = o.Final(ctx, o.signature)
	return err
}

// Final ends an operation in parts (C_DigestFinal, C_VerifyFinal with its signature,
// …), and returns the rest of the result.
func (s *Session) Final(ctx context.Context, flag p11.Flags, signature []byte, room int) ([]byte, error) {
	return s.finalInto(ctx, flag, nil, signature, room)
}

// FinalInto is Final of an encryption or decryption for a caller that has memory for the
// output, if it knows for how much: into gives memory for n bytes, at most once. See
// UpdateInto.
func (s *Session) FinalInto(ctx context.Context, flag p11.Flags, into func(n int) []byte, room int) ([]byte, error) {
	return s.finalInto(ctx, flag, into, nil, room)
}

func (s *Session) finalInto(ctx context.Context, flag p11.Flags, into func(n int) []byte, signature []byte, room int) ([]byte, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, err
	}
	if err := sizeFits(o, room); err != nil {
		return nil, err
	}
	defer s.settle(o)
	return o.finalWithin(ctx, into, signature, room)
}

// UpdateBoth is a dual-function operation (PKCS#11 v3.1 §5.17): it drives the active
// encryption or decryption, the use flag, and the active digest, signature or check,
// the use second, with one part of the plain text. An error ends the operation that
// gave it; an interrupt between the two ends the first.
func (s *Session) UpdateBoth(ctx context.Context, flag, second p11.Flags, part []byte, room int) ([]byte, error) {
	b, err := s.activeOf(second)
	if err != nil {
		return nil, err
	}
	a, err := s.activeOf(flag)
	if err != nil {
		return nil, err
	}
	defer s.settle(a)
	defer s.settle(b)
	if err := b.mayBegin(ctx); err != nil { // before the other one takes the part
		return nil, err
	}
	out, err := a.updateWithin(ctx, nil, part, room)
	if err != nil {
		return nil, err
	}
	plain := part
	if flag == p11.CKF_DECRYPT {
		plain = out
	}
	if _, err := b.Update(ctx, plain); err != nil {
		secret.Wipe(out)
		a.endHalfWay(err)
		return nil, err
	}
	return out, nil
}

// DigestKey is C_DigestKey (PKCS#11 v3.1 §5.12.4).
func (s *Session) DigestKey(ctx context.Context, key p11.ObjectHandle) error {
	o, err := s.activeOf(p11.CKF_DIGEST)
	if err != nil {
		return err
	}
	defer s.settle(o)
	return o.DigestKey(ctx, key)
}

// SessionCancel is C_SessionCancel (PKCS#11 v3.1 §5.6.5): it ends the operations
// that flags name (CKF_SIGN …, CKF_FIND_OBJECTS).
func (s *Session) SessionCancel(_ context.Context, flags p11.Flags) error {
	if s.closed() {
		return s.gone()
	}
	var named []*Operation
	s.mu.Lock()
	for flag, o := range s.active {
		if flags&flag != 0 {
			named = append(named, o)
		}
	}
	if flags&p11.CKF_FIND_OBJECTS != 0 {
		s.endSearchLocked()
	}
	s.mu.Unlock()
	for _, o := range named {
		s.end(o)
	}
	return nil
}

// authenticateActive is C_Login of CKU_CONTEXT_SPECIFIC: the PIN once more, for one use of
// the key: by the active operation that came last to want it (PKCS#11 v3.1 §4.9).
func (s *Session) authenticateActive(ctx context.Context, pin *secret.Bytes) error {
	var list []*Operation
	var waiting *Operation
	last := uint64(0)
	s.mu.Lock()
	for _, o := range s.active {
		list = append(list, o)
	}
	s.mu.Unlock()
	for _, o := range list {
		o.mu.Lock()
		if o.locked && o.asked > last {
			waiting, last = o, o.asked
		}
		o.unlock()
	}
	if waiting == nil {
		return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "no operation in this session wants the PIN again")
	}
	if err := s.reauthenticate(ctx, pin); err != nil {
		return err
	}
	waiting.mu.Lock()
	defer waiting.unlock()
	waiting.locked = false
	return nil
}
