package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
)

// Encryption and decryption by message (PKCS#11 v3.2 §5.9, §5.11): one Init, and then any
// number of messages, each with an IV of its own. The flag of a function here is
// CKF_MESSAGE_ENCRYPT or CKF_MESSAGE_DECRYPT; MessageFinal is also that of signatures.

// A message is one that was begun in parts.
type message struct {
	impl    tokens.Operation
	a       AEADMessage
	in, out int // bytes of text that went in, and came out
}

// MessageInit is C_MessageEncryptInit or C_MessageDecryptInit. What the program gives as
// the parameter of its mechanism is not looked at: each message has its own.
func (s *Session) MessageInit(ctx context.Context, flag p11.Flags, t p11.MechanismType, key p11.ObjectHandle) error {
	return s.messagesInit(ctx, flag, p11.Mechanism{Type: t}, key, func(o *Operation) error {
		o.once = true
		if o.key.session() {
			o.ivs = s.appSlot.objects.ivsOf(o.key.handle)
		}
		return nil
	})
}

// messagesInit begins a process of messages, which prepare makes ready.
func (s *Session) messagesInit(ctx context.Context, flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle, prepare func(o *Operation) error) error {
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
	o, err := s.begin(ctx, u, m, key)
	if err != nil {
		return err
	}
	begun := false
	defer func() {
		if !begun {
			o.release() // also after a panic in the token
		}
	}()
	if err := o.takes(m.Bytes()); err != nil {
		return err
	}
	if err := prepare(o); err != nil {
		return interruptedBy(ctx, err)
	}
	begun = true // once it is registered, another thread may end it
	if err := o.register(); err != nil {
		return err
	}
	if err := s.activate(o); err != nil {
		o.Close()
		return err
	}
	return nil
}

// Message is C_EncryptMessage or C_DecryptMessage: a whole message. What becomes of a has
// the IV, and the tag of what was encrypted. A result longer than room gives a
// *BufferError, and uses no IV.
func (s *Session) Message(ctx context.Context, flag p11.Flags, a AEADMessage, associated, data []byte, room int) ([]byte, AEADMessage, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, a, err
	}
	defer s.settle(o)
	if err := o.mayBegin(ctx); err != nil {
		return nil, a, err
	}
	out, err := o.run(ctx, never, func(ctx context.Context) ([]byte, error) {
		if o.message != nil {
			return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a message in parts was begun")
		}
		if err := fits(len(data), room); err != nil {
			return nil, err
		}
		if err := o.beginMessage(ctx, &a, associated); err != nil {
			return nil, err
		}
		defer o.endMessage()
		return o.finishMessage(ctx, &a, data)
	})
	return out, a, err
}

// MessageBegin is C_EncryptMessageBegin or C_DecryptMessageBegin. What becomes of a has
// the IV.
func (s *Session) MessageBegin(ctx context.Context, flag p11.Flags, a AEADMessage, associated []byte) (AEADMessage, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return a, err
	}
	defer s.settle(o)
	if err := o.mayBegin(ctx); err != nil {
		return a, err
	}
	_, err = o.run(ctx, never, func(ctx context.Context) ([]byte, error) {
		if o.message != nil {
			return nil, p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a message in parts was begun")
		}
		return nil, o.beginMessage(ctx, &a, associated)
	})
	return a, err
}

// MessageNext is C_EncryptMessageNext or C_DecryptMessageNext: a part of a message, the
// last one with end. With that what becomes of a has the tag of what was encrypted, and
// to decrypt it must have the tag. An error ends the message, but one of room.
func (s *Session) MessageNext(ctx context.Context, flag p11.Flags, a AEADMessage, part []byte, end bool, room int) ([]byte, AEADMessage, error) {
	o, err := s.activeOf(flag)
	if err != nil {
		return nil, a, err
	}
	defer s.settle(o)
	out, err := o.run(ctx, never, func(ctx context.Context) ([]byte, error) {
		m := o.message
		if m == nil {
			return nil, p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "no message was begun")
		}
		if end {
			if err := fits(m.in+len(part)-m.out, room); err != nil {
				return nil, err
			}
			defer o.endMessage()
			m.a.Tag = a.Tag
			out, err := o.finishMessage(ctx, &m.a, part)
			a.Tag = m.a.Tag
			return out, err
		}
		if z, ok := m.impl.(tokens.Sizer); ok {
			if err := fits(z.UpdateSize(len(part)), room); err != nil {
				return nil, err
			}
		}
		out, err := o.feed(ctx, part)
		if err != nil {
			o.endMessage()
		}
		return out, err
	})
	return out, a, err
}

// MessageFinal is C_MessageEncryptFinal, C_MessageDecryptFinal, C_MessageSignFinal or
// C_MessageVerifyFinal.
func (s *Session) MessageFinal(ctx context.Context, flag p11.Flags) error {
	o, err := s.activeOf(flag)
	if err != nil {
		return err
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	s.end(o)
	return nil
}

// beginMessage begins one under a, whose IV it chooses if it is to.
func (o *Operation) beginMessage(ctx context.Context, a *AEADMessage, associated []byte) error {
	if o.use.flag == p11.CKF_MESSAGE_ENCRYPT {
		if err := a.generate(ctx, o.session, o.ivs); err != nil {
			return err
		}
	}
	m, err := a.mechanism(o.mech.Type, associated)
	if err == nil && o.use.flag == p11.CKF_MESSAGE_ENCRYPT && o.granted != nil && a.Generator == p11.CKG_NO_GENERATE {
		err = o.granted.mayUse(useOf(p11.CKF_ENCRYPT), m, false)
	}
	if err != nil {
		return err
	}
	if err := o.takes(m.Bytes()); err != nil {
		return err
	}
	impl, err := o.token().Begin(ctx, o.use.atToken(), m, o.key.object)
	if err != nil {
		_ = o.takes(0) // which is less
		return interruptedBy(ctx, err)
	}
	o.message = &message{impl: impl, a: *a}
	return nil
}

// feed gives a part of the message to the token.
func (o *Operation) feed(ctx context.Context, part []byte) ([]byte, error) {
	m := o.message
	kept := 0
	if k, ok := m.impl.(tokens.Keeper); ok {
		kept = max(k.Kept(), 0)
	}
	if err := o.count(kept + len(part)); err != nil {
		return nil, err
	}
	out, err := m.impl.Update(ctx, part)
	if err != nil {
		return nil, err
	}
	m.in += len(part)
	m.out += len(out)
	return out, nil
}

// finishMessage takes the last part of the message, with its tag or for it.
func (o *Operation) finishMessage(ctx context.Context, a *AEADMessage, part []byte) ([]byte, error) {
	decrypt := o.use.flag == p11.CKF_MESSAGE_DECRYPT
	if decrypt {
		var err error
		if part, err = a.join(part); err != nil {
			return nil, err
		}
	}
	out, err := o.feed(ctx, part)
	if err != nil {
		return nil, err
	}
	rest, err := o.message.impl.Final(ctx, nil)
	if err != nil {
		secret.Wipe(out)
		if p11.RVOf(err) == p11.CKR_ENCRYPTED_DATA_INVALID {
			err = p11.Errorf(p11.CKR_AEAD_DECRYPT_FAILED, "the authentication tag is wrong")
		}
		return nil, err
	}
	out = secret.Append(out, rest)
	if decrypt {
		secret.Wipe(rest)
		return out, nil
	}
	return a.split(out), nil
}

// endMessage gives up the message that was begun.
func (o *Operation) endMessage() {
	if o.message != nil {
		o.message.impl.Close()
		o.message = nil
	}
	_ = o.takes(o.mech.Bytes()) // which is less
}
