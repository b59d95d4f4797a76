package cca

import (
	"context"
	"errors"

	"p11fs/p11"
	"p11fs/tokens/card"
)

// Value is the return value of a call: the return code in the upper half, the reason in
// the lower.
func (e Error) Value() uint64 { return uint64(e.Return)<<32 | uint64(e.Reason) }

// call makes a call. A return code is the error: one with a CK_RV, in which an Error is.
func call(ctx context.Context, via card.Transport, c *card.Call) error {
	if err := via.Call(ctx, c); err != nil {
		return err
	}
	e := Error{uint32(c.Return >> 32), uint32(c.Return)}
	if e.Return == 0 {
		return nil
	}
	rv, words := meaning(e)
	return p11.Errorf(rv, "%s: %s: %w", c.Function.Name, words, e)
}

// meaning is the CK_RV of an error, and what messages say of it.
func meaning(e Error) (p11.RV, string) {
	switch e {
	case ErrSignature, Error{4, 1}:
		return p11.CKR_SIGNATURE_INVALID, "the signature does not fit"
	case ErrKeyword:
		return p11.CKR_FUNCTION_FAILED, "the card does not know that use"
	case ErrTag:
		return p11.CKR_ENCRYPTED_DATA_INVALID, "the authentication tag does not fit"
	case ErrToken:
		return p11.CKR_DEVICE_ERROR, "the key belongs to another master key, or is damaged"
	case ErrData:
		return p11.CKR_DATA_INVALID, "the data does not suit the key"
	case ErrBuffer:
		return p11.CKR_FUNCTION_FAILED, "a length is wrong"
	case ErrUsage:
		return p11.CKR_KEY_FUNCTION_NOT_PERMITTED, "the key is not for this use"
	case ErrValues:
		return p11.CKR_ATTRIBUTE_VALUE_INVALID, "the card takes no key with these values"
	case ErrNoKey:
		return p11.CKR_DEVICE_ERROR, "the domain has no master key"
	case ErrNoCard:
		return p11.CKR_DEVICE_REMOVED, "no card answered"
	}
	return p11.CKR_FUNCTION_FAILED, "the card refuses"
}

// complete says whether no argument is missing that a Card counts on.
func complete(*card.Call) bool { return true }

// finish sets the return value, and takes back what is not to be had.
func finish(c *card.Call, err error, fits bool) {
	var e Error
	switch {
	case err != nil && !errors.As(err, &e):
		e = ErrData
	case err == nil && !fits:
		e = ErrBuffer
	}
	if c.Return = e.Value(); c.Return != 0 {
		c.Drop()
	} else if c.Asks() {
		c.KeepStates()
	}
}
