package engine

import (
	"context"

	"p11fs/p11"
)

// Signature and verification by message (PKCS#11 v3.2 §5.14, §5.16): one Init with the
// mechanism and its parameter, and then any number of messages, which have no parameter of
// their own: no mechanism has one that could be given. The flag of a function here is
// CKF_MESSAGE_SIGN or CKF_MESSAGE_VERIFY. A key that wants the PIN each time wants it for
// each message.

// SignMessagesInit is C_MessageSignInit or C_MessageVerifyInit.
func (s *Session) SignMessagesInit(ctx context.Context, flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle) error {
	return s.messagesInit(ctx, flag, m, key, func(o *Operation) (err error) {
		// The first message's, so that what is wrong with the key is said here.
		if o.impl, err = o.atToken(ctx); err == nil {
			o.size = o.impl.Size()
		}
		return err
	})
}

// SignMessage is C_SignMessage, or C_VerifyMessage with its signature: a whole message. A
// result longer than room gives a *BufferError.
func (s *Session) SignMessage(ctx context.Context, flag p11.Flags, data, signature []byte, room int) ([]byte, error) {
	return s.signing(ctx, flag, (*Operation).mayBegin, func(ctx context.Context, o *Operation) ([]byte, error) {
		if o.message != nil {
			return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a message in parts was begun")
		}
		if err := sizeFits(o, room); err != nil {
			return nil, err
		}
		if err := o.beginSigned(ctx); err != nil {
			return nil, err
		}
		return o.finishSigned(ctx, data, signature)
	})
}

// SignMessageBegin is C_SignMessageBegin or C_VerifyMessageBegin.
func (s *Session) SignMessageBegin(ctx context.Context, flag p11.Flags) error {
	_, err := s.signing(ctx, flag, (*Operation).mayBegin, func(ctx context.Context, o *Operation) ([]byte, error) {
		if o.message != nil {
			return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a message in parts was begun")
		}
		return nil, o.beginSigned(ctx)
	})
	return err
}

// SignMessageNext is C_SignMessageNext or C_VerifyMessageNext with a part that is not the
// last. An error ends the message.
func (s *Session) SignMessageNext(ctx context.Context, flag p11.Flags, part []byte) error {
	_, err := s.signing(ctx, flag, (*Operation).goesOn, func(ctx context.Context, o *Operation) ([]byte, error) {
		if o.message == nil {
			return nil, notActive("message")
		}
		out, err := o.feed(ctx, part)
		if err != nil {
			o.endMessage()
		}
		return out, err
	})
	return err
}

// SignMessageEnd is C_SignMessageNext with the last part, or C_VerifyMessageNext with it
// and the signature. It ends the message, but for a *BufferError.
func (s *Session) SignMessageEnd(ctx context.Context, flag p11.Flags, part, signature []byte, room int) ([]byte, error) {
	return s.signing(ctx, flag, (*Operation).goesOn, func(ctx context.Context, o *Operation) ([]byte, error) {
		if o.message == nil {
			return nil, notActive("message")
		}
		if err := sizeFits(o, room); err != nil {
			return nil, err
		}
		return o.finishSigned(ctx, part, signature)
	})
}

// signing makes a call about the session's messages of that use, if may lets it.
func (s *Session) signing(ctx context.Context, flag p11.Flags, may func(*Operation, context.Context) error, call func(ctx context.Context, o *Operation) ([]byte, error)) ([]byte, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, err
	}
	defer s.settle(o)
	if err := may(o, ctx); err != nil {
		return nil, err
	}
	return o.run(ctx, never, func(ctx context.Context) ([]byte, error) { return call(ctx, o) })
}

// goesOn lets a call be made that begins no message.
func (o *Operation) goesOn(context.Context) error { return nil }

// beginSigned begins a message.
func (o *Operation) beginSigned(ctx context.Context) (err error) {
	impl := o.impl
	if o.impl = nil; impl == nil {
		if impl, err = o.atToken(ctx); err != nil {
			return err
		}
	}
	o.message = &message{impl: impl}
	return nil
}

// finishSigned takes the last part of the message.
func (o *Operation) finishSigned(ctx context.Context, part, signature []byte) ([]byte, error) {
	defer o.endMessage()
	if _, err := o.feed(ctx, part); err != nil {
		return nil, err
	}
	out, err := o.message.impl.Final(ctx, signature)
	if p11.RVOf(err) != p11.CKR_FUNCTION_CANCELED {
		o.lock()
	}
	return out, err
}
