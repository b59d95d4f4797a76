package p11

import (
	"context"
	"errors"
	"fmt"
)

// RV is CK_RV, the return value of a PKCS#11 function, as a Go error. The CKR_
// constants are of this type and work with errors.Is; errors.As and RVOf find
// the number through any wrapping. CKR_OK is never an error value: Err turns it
// into nil.
type RV uint64

// Error returns the standard's name, or the number in hexadecimal.
func (v RV) Error() string { return v.String() }

// Err returns v as an error, and nil for CKR_OK.
func (v RV) Err() error {
	if v == CKR_OK {
		return nil
	}
	return v
}

// RVOf returns the return value that err carries: CKR_OK for nil,
// CKR_FUNCTION_CANCELED for an ended context, CKR_GENERAL_ERROR for an error
// that carries none.
func RVOf(err error) RV {
	if err == nil {
		return CKR_OK
	}
	var rv RV
	switch {
	case errors.As(err, &rv) && rv != CKR_OK:
		return rv
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return CKR_FUNCTION_CANCELED
	}
	return CKR_GENERAL_ERROR
}

// Errorf returns an error that reads as the formatted text and wraps rv, and
// also what a %w in format names. rv stands first: RVOf finds it and not a
// return value below. No secret goes into args.
func Errorf(rv RV, format string, args ...any) error {
	if rv == CKR_OK {
		panic("p11: Errorf of CKR_OK")
	}
	return &rvError{rv, fmt.Errorf(format, args...)}
}

// Advise adds to err, which goes on as it is, what to do about it, where the advice of
// its return value does not fit.
func Advise(err error, advice string) error { return &advised{err, advice} }

// AdviceOf says in one line what to do about err: what Advise has added last, or else
// the advice of its return value.
func AdviceOf(err error) string {
	var a *advised
	if errors.As(err, &a) {
		return a.advice
	}
	return RVOf(err).Advice()
}

// An advised error knows what to do about it.
type advised struct {
	error
	advice string
}

func (e *advised) Unwrap() error { return e.error }

// An rvError is a return value with the reason for it.
type rvError struct {
	rv  RV
	why error
}

func (e *rvError) Error() string   { return e.why.Error() }
func (e *rvError) Unwrap() []error { return []error{e.rv, e.why} }
