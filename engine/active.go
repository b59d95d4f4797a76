package engine

import (
	"context"
	"crypto/sha256"
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
	// OnlyLength: the caller has no buffer at all and asks for the length. The
	// result is kept even where it is empty, and the operation goes on (PKCS#11
	// v3.1 §5.2).
	OnlyLength = -2
)

// A BufferError says that the result does not fit the caller's room. It wraps
// CKR_BUFFER_TOO_SMALL. The operation goes on: the same call with the same data
// and enough room gives the result (PKCS#11 v3.1 §5.2). Any other ends it, since
// the data has been taken.
type BufferError struct{ Need int }

// Error says how much room it takes.
func (e *BufferError) Error() string { return fmt.Sprintf("the result has %d bytes", e.Need) }

// Unwrap returns the CK_RV.
func (e *BufferError) Unwrap() error { return p11.CKR_BUFFER_TOO_SMALL }

// call is a C_ function that may be repeated with more room.
type call int

const (
	callDo call = iota + 1
	callUpdate
	callFinal
	callDual
)

// active is the session's operation of one use.
type active struct {
	*Operation

	// kept is a result that did not fit, for the repetition of the call that
	// made it, with the data of which keptOf is the SHA-256; last says that the
	// operation ends with it. Session.mu guards them.
	kept    []byte
	keptFor call
	keptOf  [sha256.Size]byte
	last    bool
}

// wipe forgets a kept result.
func (a *active) wipe() {
	secret.Wipe(a.kept)
	a.kept, a.keptFor = nil, 0
}

// Init makes an operation the active one of its use, a CKF_ flag as for Begin. A
// digest takes no key.
func (s *Session) Init(ctx context.Context, flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle) error {
	u := useOf(flag)
	if s.closed() {
		return s.gone()
	}
	s.mu.Lock()
	err := s.mayActivateLocked(u)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	o, err := s.beginParts(ctx, u, m, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err = s.mayActivateLocked(u); err == nil && s.closed() {
		err = s.gone()
	}
	if err == nil {
		s.active[flag] = &active{Operation: o}
	}
	s.mu.Unlock()
	if err != nil {
		o.Close()
	}
	return err
}

// mayActivateLocked refuses a second operation of a use.
func (s *Session) mayActivateLocked(u use) error {
	if s.active[u.flag] != nil {
		return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s is active in this session; finish it first", u.noun)
	}
	return nil
}

// activeOf returns the session's operation of that use. A result kept for another
// call than c is lost, and the operation with it, but for the empty result of a
// part.
func (s *Session) activeOf(flag p11.Flags, c call) (*active, error) {
	if s.closed() {
		return nil, s.gone()
	}
	s.mu.Lock()
	a := s.active[flag]
	other := a != nil && a.keptFor != 0 && a.keptFor != c
	if other && !a.last && len(a.kept) == 0 {
		a.wipe()
		other = false
	}
	s.mu.Unlock()
	if a == nil {
		return nil, notActive(useOf(flag).noun)
	}
	if other {
		return nil, s.lost(a)
	}
	return a, nil
}

// lost ends an operation whose kept result was not asked for: without it, what
// the operation gives would not be that of the data.
func (s *Session) lost(a *active) error {
	s.end(a)
	return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "a result of the %s was not taken by the same call with the same data, and that ended it", a.use.noun)
}

// settle takes the operation out of its place when it has ended.
func (s *Session) settle(a *active) {
	if !a.stop.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[a.use.flag] == a && a.keptFor == 0 {
		delete(s.active, a.use.flag)
	}
}

// end ends the operation and takes it out of its place.
func (s *Session) end(a *active) {
	a.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	a.wipe()
	if s.active[a.use.flag] == a {
		delete(s.active, a.use.flag)
	}
}

// deliver runs compute, which takes data, or takes its kept result, and keeps the
// result if it is longer than room. last says that the operation ends with it.
func (s *Session) deliver(a *active, c call, data []byte, room int, last bool, compute func() ([]byte, error)) ([]byte, error) {
	defer s.settle(a) // also after a panic in the token
	s.mu.Lock()
	repeated := a.keptFor == c
	out, of := a.kept, a.keptOf
	s.mu.Unlock()
	if repeated {
		if of != sha256.Sum256(data) {
			return nil, s.lost(a)
		}
		if err := a.stands(); err != nil {
			s.end(a)
			return nil, err
		}
	} else {
		if n := a.Size(); last && n > 0 && room != NoLimit && room < n {
			return nil, &BufferError{Need: n} // nothing needs to be computed for that
		}
		var err error
		if out, err = compute(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if room == OnlyLength || room >= 0 && len(out) > room {
		if !repeated {
			a.keptOf = sha256.Sum256(data)
		}
		a.kept, a.keptFor, a.last = out, c, last
		return nil, &BufferError{Need: len(out)}
	}
	a.kept, a.keptFor = nil, 0
	return out, nil
}

// Do is the function that does an operation in one part (C_Digest, C_Sign,
// C_Verify with its signature, C_Encrypt, …). A result longer than room is kept for
// the repetition of the call (*BufferError); where its length is known before, as a
// digest's or signature's is, nothing is done.
func (s *Session) Do(ctx context.Context, flag p11.Flags, data, signature []byte, room int) ([]byte, error) {
	a, err := s.activeOf(flag, callDo)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	parts := a.parts
	a.unlock()
	if parts {
		// PKCS#11 v3.1 §5.13.2: "C_Sign cannot be used to terminate a
		// multi-part operation".
		s.end(a)
		return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s in parts was begun, and ends with its Final function", a.use.noun)
	}
	return s.deliver(a, callDo, data, room, true, func() ([]byte, error) { return a.whole(ctx, data, signature) })
}

// Update takes the next part of the data (C_DigestUpdate, C_EncryptUpdate, …), and
// returns the output of an encryption or decryption.
func (s *Session) Update(ctx context.Context, flag p11.Flags, part []byte, room int) ([]byte, error) {
	a, err := s.activeOf(flag, callUpdate)
	if err != nil {
		return nil, err
	}
	return s.deliver(a, callUpdate, part, room, false, func() ([]byte, error) { return a.Operation.Update(ctx, part) })
}

// Final ends an operation in parts (C_DigestFinal, C_VerifyFinal with its signature,
// …), and returns the rest of the result.
func (s *Session) Final(ctx context.Context, flag p11.Flags, signature []byte, room int) ([]byte, error) {
	a, err := s.activeOf(flag, callFinal)
	if err != nil {
		return nil, err
	}
	return s.deliver(a, callFinal, nil, room, true, func() ([]byte, error) { return a.Operation.Final(ctx, signature) })
}

// UpdateBoth is a dual-function operation (PKCS#11 v3.1 §5.17): it drives the active
// encryption or decryption, the use flag, and the active digest, signature or check,
// the use second, with one part of the plain text. An error ends the operation that
// gave it.
func (s *Session) UpdateBoth(ctx context.Context, flag, second p11.Flags, part []byte, room int) ([]byte, error) {
	b, err := s.activeOf(second, callUpdate)
	if err != nil {
		return nil, err
	}
	a, err := s.activeOf(flag, callDual)
	if err != nil {
		return nil, err
	}
	return s.deliver(a, callDual, part, room, false, func() ([]byte, error) {
		defer s.settle(b)
		plain := part
		var out []byte
		if flag == p11.CKF_DECRYPT {
			if out, err = a.Operation.Update(ctx, part); err != nil {
				return nil, err
			}
			plain = out
		}
		if _, err := b.Operation.Update(ctx, plain); err != nil {
			secret.Wipe(out)
			return nil, err
		}
		if flag == p11.CKF_DECRYPT {
			return out, nil
		}
		return a.Operation.Update(ctx, part)
	})
}

// DigestKey is C_DigestKey (PKCS#11 v3.1 §5.12.4).
func (s *Session) DigestKey(ctx context.Context, key p11.ObjectHandle) error {
	a, err := s.activeOf(p11.CKF_DIGEST, callUpdate)
	if err != nil {
		return err
	}
	defer s.settle(a)
	return a.Operation.DigestKey(ctx, key)
}

// SessionCancel is C_SessionCancel (PKCS#11 v3.1 §5.6.5): it ends the operations
// that flags name (CKF_SIGN …, CKF_FIND_OBJECTS).
func (s *Session) SessionCancel(_ context.Context, flags p11.Flags) error {
	if s.closed() {
		return s.gone()
	}
	var named []*active
	s.mu.Lock()
	for flag, a := range s.active {
		if flags&flag != 0 {
			named = append(named, a)
		}
	}
	if flags&p11.CKF_FIND_OBJECTS != 0 {
		s.search = nil
	}
	s.mu.Unlock()
	for _, a := range named {
		s.end(a)
	}
	return nil
}

// authenticateActive is C_Login of CKU_CONTEXT_SPECIFIC: the PIN once more, for
// the active operations whose keys want it.
func (s *Session) authenticateActive(ctx context.Context, pin *secret.Bytes) error {
	var list, waiting []*Operation
	s.mu.Lock()
	for _, a := range s.active {
		list = append(list, a.Operation)
	}
	s.mu.Unlock()
	for _, o := range list {
		o.mu.Lock()
		if o.locked {
			waiting = append(waiting, o)
		}
		o.unlock()
	}
	if len(waiting) == 0 {
		return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "no operation in this session wants the PIN again")
	}
	if err := s.reauthenticate(ctx, pin); err != nil {
		return err
	}
	for _, o := range waiting {
		o.mu.Lock()
		o.locked = false
		o.unlock()
	}
	return nil
}
