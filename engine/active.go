package engine

import (
	"context"
	"crypto/sha256"
	"fmt"

	"p11fs/p11"
	"p11fs/secret"
)

// activeKind is a kind of operation of which a session has at most one that was
// begun by a C_…Init function. Operations of different kinds are independent,
// which the dual-function operations need.
type activeKind int

const (
	activeDigest activeKind = iota
	activeSign
	activeSignRecover
	activeVerify
	activeVerifyRecover
	activeEncrypt
	activeDecrypt

	activeKinds
)

func (k activeKind) String() string {
	switch k {
	case activeDigest:
		return "digest"
	case activeSign:
		return "signature"
	case activeSignRecover:
		return "signature with recovery"
	case activeVerify:
		return "verification"
	case activeVerifyRecover:
		return "verification with recovery"
	case activeEncrypt:
		return "encryption"
	}
	return "decryption"
}

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
	callOnce call = iota + 1
	callUpdate
	callFinal
	callDual
)

// active is the session's operation of one kind.
type active struct {
	operation *operation
	op        any // *SignOp …

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

// mayActivate refuses a second operation of a kind.
func (s *Session) mayActivate(kind activeKind) error {
	if s.closed() {
		return s.gone()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mayActivateLocked(kind)
}

func (s *Session) mayActivateLocked(kind activeKind) error {
	if s.active[kind] != nil {
		return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s is active in this session; finish it first", kind)
	}
	return nil
}

// activate makes op the session's operation of that kind, or closes it.
func (s *Session) activate(kind activeKind, op any, o *operation) error {
	s.mu.Lock()
	err := s.mayActivateLocked(kind)
	if err == nil && s.closed() {
		err = s.gone()
	}
	if err == nil {
		s.active[kind] = &active{operation: o, op: op}
	}
	s.mu.Unlock()
	if err != nil {
		o.Close()
	}
	return err
}

// activeOf returns the session's operation of that kind. A result kept for
// another call than c (0: none, a look) is lost, and the operation with it, but
// for the empty result of a part.
func (s *Session) activeOf(kind activeKind, c call) (*active, error) {
	if s.closed() {
		return nil, s.gone()
	}
	s.mu.Lock()
	a := s.active[kind]
	other := a != nil && c != 0 && a.keptFor != 0 && a.keptFor != c
	if other && !a.last && len(a.kept) == 0 {
		a.wipe()
		other = false
	}
	s.mu.Unlock()
	if a == nil {
		return nil, notActive(kind.String())
	}
	if other {
		return nil, s.lost(kind, a)
	}
	return a, nil
}

// lost ends an operation whose kept result was not asked for: without it, what
// the operation gives would not be that of the data.
func (s *Session) lost(kind activeKind, a *active) error {
	s.drop(kind, a)
	return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "a result of the %s was not taken by the same call with the same data, and that ended it", kind)
}

// settle takes the operation out of its place when it has ended.
func (s *Session) settle(kind activeKind, a *active) {
	if !a.operation.stop.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[kind] == a && a.keptFor == 0 {
		s.active[kind] = nil
	}
}

// drop ends the operation and takes it out of its place.
func (s *Session) drop(kind activeKind, a *active) {
	a.operation.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	a.wipe()
	if s.active[kind] == a {
		s.active[kind] = nil
	}
}

// deliver runs compute, which takes data, or takes its kept result, and keeps the
// result if it is longer than room.
func (s *Session) deliver(kind activeKind, a *active, c call, data []byte, room int, last bool, compute func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	repeated := a.keptFor == c
	out, of := a.kept, a.keptOf
	s.mu.Unlock()
	if repeated {
		if of != sha256.Sum256(data) {
			return nil, s.lost(kind, a)
		}
		if err := a.operation.stands(); err != nil {
			s.drop(kind, a)
			return nil, err
		}
	} else {
		var err error
		if out, err = compute(); err != nil {
			s.settle(kind, a)
			return nil, err
		}
	}
	s.mu.Lock()
	if room == OnlyLength || room >= 0 && len(out) > room {
		if !repeated {
			a.keptOf = sha256.Sum256(data)
		}
		a.kept, a.keptFor, a.last = out, c, last
		s.mu.Unlock()
		return nil, &BufferError{Need: len(out)}
	}
	a.kept, a.keptFor = nil, 0
	s.mu.Unlock()
	s.settle(kind, a)
	return out, nil
}

// oneCall refuses the one-part function after parts were given, which ends the
// operation: PKCS#11 v3.1 §5.13.2, "C_Sign cannot be used to terminate a
// multi-part operation".
func (s *Session) oneCall(kind activeKind, a *active) error {
	a.operation.mu.Lock()
	parts := a.operation.parts
	a.operation.unlock()
	if !parts {
		return nil
	}
	s.drop(kind, a)
	return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a %s in parts was begun, and ends with its Final function", kind)
}

// SessionCancel is C_SessionCancel (PKCS#11 v3.1 §5.6.5): it ends the operations
// that flags name (CKF_SIGN …, CKF_FIND_OBJECTS).
func (s *Session) SessionCancel(_ context.Context, flags p11.Flags) error {
	if s.closed() {
		return s.gone()
	}
	for kind := range activeKinds {
		if flags&kind.flag() == 0 {
			continue
		}
		s.mu.Lock()
		a := s.active[kind]
		s.mu.Unlock()
		if a != nil {
			s.drop(kind, a)
		}
	}
	if flags&p11.CKF_FIND_OBJECTS != 0 {
		s.mu.Lock()
		s.search = nil
		s.mu.Unlock()
	}
	return nil
}

func (k activeKind) flag() p11.Flags {
	switch k {
	case activeDigest:
		return p11.CKF_DIGEST
	case activeSign:
		return p11.CKF_SIGN
	case activeSignRecover:
		return p11.CKF_SIGN_RECOVER
	case activeVerify:
		return p11.CKF_VERIFY
	case activeVerifyRecover:
		return p11.CKF_VERIFY_RECOVER
	case activeEncrypt:
		return p11.CKF_ENCRYPT
	}
	return p11.CKF_DECRYPT
}

// authenticateActive is C_Login of CKU_CONTEXT_SPECIFIC: the PIN once more, for
// the active operations whose keys want it.
func (s *Session) authenticateActive(ctx context.Context, pin *secret.Bytes) error {
	var waiting []*operation
	s.mu.Lock()
	var list []*operation
	for _, a := range s.active {
		if a != nil {
			list = append(list, a.operation)
		}
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
