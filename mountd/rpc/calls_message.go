package rpc

import (
	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// ofMessages answers a call of our own module about messages, whose first number is the
// use: CKF_MESSAGE_ENCRYPT or CKF_MESSAGE_DECRYPT.
func ofMessages(f func(q *request, flag p11.Flags) error) func(*request) error {
	return func(q *request) error {
		flag := p11.Flags(q.numbers[0])
		if flag != p11.CKF_MESSAGE_ENCRYPT && flag != p11.CKF_MESSAGE_DECRYPT {
			return p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%#x is no use of messages", uint64(flag))
		}
		return f(q, flag)
	}
}

// ofSigned answers a call of messages that are signed or verified. They have no parameter.
func ofSigned(flag p11.Flags, f func(q *request, flag p11.Flags) error) func(*request) error {
	return func(q *request) error {
		if len(q.data(0)) > 0 {
			return p11.Errorf(p11.CKR_MECHANISM_PARAM_INVALID, "a message that is signed has no parameter of its own")
		}
		return f(q, flag)
	}
}

// signMessagesInit answers C_MessageSignInit and C_MessageVerifyInit, which a NULL
// mechanism makes cancel.
func signMessagesInit(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		if q.mechanism.Null {
			return q.session.SessionCancel(q.ctx, flag)
		}
		return q.session.SignMessagesInit(q.ctx, flag, q.mechanism.Mechanism, q.object(0))
	}
}

func signMessagesFinal(flag p11.Flags) func(*request) error {
	return func(q *request) error { return q.session.MessageFinal(q.ctx, flag) }
}

func (q *request) signMessage(flag p11.Flags) error {
	return q.result(q.session.SignMessage(q.ctx, flag, q.data(1), nil, q.limit()))
}

func (q *request) signMessageBegin(flag p11.Flags) error {
	return q.session.SignMessageBegin(q.ctx, flag)
}

// signMessageNext answers C_SignMessageNext, with the signature where the program has a
// place for its length.
func (q *request) signMessageNext(flag p11.Flags) error {
	if q.numbers[0] != 0 {
		return q.result(q.session.SignMessageEnd(q.ctx, flag, q.data(1), nil, q.limit()))
	}
	if err := q.session.SignMessageNext(q.ctx, flag, q.data(1)); err != nil {
		return err
	}
	q.nothing()
	return nil
}

func (q *request) verifyMessage(flag p11.Flags) error {
	_, err := q.session.SignMessage(q.ctx, flag, q.data(1), q.data(2), engine.NoLimit)
	return err
}

// verifyMessageNext answers C_VerifyMessageNext, whose last part comes with a signature.
func (q *request) verifyMessageNext(flag p11.Flags) error {
	if q.arrays[2].IsNull() {
		return q.session.SignMessageNext(q.ctx, flag, q.data(1))
	}
	_, err := q.session.SignMessageEnd(q.ctx, flag, q.data(1), q.data(2), engine.NoLimit)
	return err
}

func (q *request) messageInit(flag p11.Flags) error {
	return q.session.MessageInit(q.ctx, flag, p11.MechanismType(q.numbers[1]), q.object(2))
}

// message is what a request has of one, but for its tag.
func (q *request) message() engine.AEADMessage {
	n := q.numbers
	return engine.AEADMessage{DataLen: n[1], IV: q.data(0), FixedBits: n[2], Generator: p11.IVGenerator(n[3]), TagBits: n[4]}
}

// messageOne answers C_EncryptMessage and C_DecryptMessage: behind the result stand the IV
// and the tag of what was encrypted, empty if there is none.
func (q *request) messageOne(flag p11.Flags) error {
	data := q.data(3)
	if err := q.take(len(data) + len(data)/2); err != nil {
		return err
	}
	a := q.message()
	a.Tag = q.data(1)
	out, a, err := q.session.Message(q.ctx, flag, a, q.data(2), data, q.limit())
	if err != nil || flag == p11.CKF_MESSAGE_DECRYPT {
		a = engine.AEADMessage{}
	}
	if err := q.result(out, err); err != nil {
		return err
	}
	q.w.Array(wire.Array{Data: a.IV})
	q.w.Array(wire.Array{Data: a.Tag})
	return nil
}

// messageBegin answers with the IV of what is to be encrypted.
func (q *request) messageBegin(flag p11.Flags) error {
	a, err := q.session.MessageBegin(q.ctx, flag, q.message(), q.data(1))
	if err != nil {
		return err
	}
	if flag == p11.CKF_MESSAGE_DECRYPT {
		a.IV = nil
	}
	q.w.Array(wire.Array{Data: a.IV})
	return nil
}

// messageNext answers with the tag behind the last part of what is encrypted.
func (q *request) messageNext(flag p11.Flags) error {
	part, end := q.data(1), q.numbers[1] != 0
	if err := q.take(len(part) + len(part)/2); err != nil {
		return err
	}
	a := engine.AEADMessage{TagBits: q.numbers[2], Tag: q.data(0)}
	out, a, err := q.session.MessageNext(q.ctx, flag, a, part, end, q.limit())
	if err != nil || !end || flag == p11.CKF_MESSAGE_DECRYPT {
		a.Tag = nil
	}
	if err := q.result(out, err); err != nil {
		return err
	}
	q.w.Array(wire.Array{Data: a.Tag})
	return nil
}
