package rpc

import (
	"context"
	"errors"

	"p11fs/engine"
	"p11fs/engine/p11"
	"p11fs/mountd/rpc/wire"
)

// maxRandom bounds C_GenerateRandom, in bytes.
const maxRandom = 1 << 20

// sizeOfKey is the length in bytes of the key handle that follows a mechanism.
const sizeOfKey = 8

// keyInit answers a C_…Init of an operation with a key. A NULL mechanism cancels
// the operation that flag names (PKCS#11 v3.0 §5.8.1 and others).
func keyInit(begin func(*engine.Session, context.Context, p11.Mechanism, p11.ObjectHandle) error, flag p11.Flags) func(*request) error {
	return func(q *request) error {
		s, err := q.session()
		if err != nil {
			return err
		}
		after := sizeOfKey
		if q.call >= wire.CallSignOnce {
			after = -1
		}
		m := q.r.Mechanism(after)
		key := q.object()
		if err := q.initEnd(); err != nil {
			return err
		}
		q.conn.state.settle(drain{s.Handle(), flag})
		if m.Null {
			return s.SessionCancel(q.ctx, flag)
		}
		return begin(s, q.ctx, m.Mechanism, key)
	}
}

// initEnd checks that the Init's part of the request is whole: of a combined
// call more follows.
func (q *request) initEnd() error {
	if q.call >= wire.CallSignOnce {
		return q.r.Err()
	}
	return q.r.End()
}

func (q *request) digestInit() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	after := 0
	if q.call >= wire.CallSignOnce {
		after = -1
	}
	m := q.r.Mechanism(after)
	if err := q.initEnd(); err != nil {
		return err
	}
	if m.Null {
		return s.SessionCancel(q.ctx, p11.CKF_DIGEST)
	}
	return s.DigestInit(q.ctx, m.Mechanism)
}

// A withRoom is a function of a session that takes data and returns a result
// for which the caller has so much room.
type withRoom func(*engine.Session, context.Context, []byte, int) ([]byte, error)

// transform answers such a function.
func transform(f withRoom) func(*request) error {
	return func(q *request) error {
		s, err := q.session()
		if err != nil {
			return err
		}
		return q.transform(s, f)
	}
}

func (q *request) transform(s *engine.Session, f withRoom) error {
	data, err := q.input()
	if err != nil {
		return err
	}
	room := q.r.Room()
	if err := q.r.End(); err != nil {
		return err
	}
	return q.result(f(s, q.ctx, data, room.Bytes()))
}

// once answers an Init and its one-part operation in one request of our own
// module.
func once(begin func(*request) error, f withRoom) func(*request) error {
	return func(q *request) error {
		peek := *q.r
		s, err := q.session()
		if err != nil {
			return err
		}
		*q.r = peek
		if err := begin(q); err != nil {
			return err
		}
		return q.transform(s, f)
	}
}

func (q *request) verifyOnce() error {
	peek := *q.r
	s, err := q.session()
	if err != nil {
		return err
	}
	*q.r = peek
	if err := keyInit((*engine.Session).VerifyInit, p11.CKF_VERIFY)(q); err != nil {
		return err
	}
	return q.verifyWith(s)
}

func (q *request) verify() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	return q.verifyWith(s)
}

func (q *request) verifyWith(s *engine.Session) error {
	data, err := q.input()
	if err != nil {
		return err
	}
	signature, err := q.input()
	if err != nil {
		return err
	}
	if err := q.r.End(); err != nil {
		return err
	}
	return s.Verify(q.ctx, data, signature)
}

// update answers a function that takes data and returns nothing.
func update(f func(*engine.Session, context.Context, []byte) error) func(*request) error {
	return func(q *request) error {
		s, err := q.session()
		if err != nil {
			return err
		}
		data, err := q.input()
		if err != nil {
			return err
		}
		if err := q.r.End(); err != nil {
			return err
		}
		return f(s, q.ctx, data)
	}
}

// final answers a function that only returns a result.
func final(f func(*engine.Session, context.Context, int) ([]byte, error)) func(*request) error {
	return func(q *request) error {
		s, err := q.session()
		if err != nil {
			return err
		}
		room := q.r.Room()
		if err := q.r.End(); err != nil {
			return err
		}
		return q.result(f(s, q.ctx, room.Bytes()))
	}
}

// cipherFinal answers C_EncryptFinal and C_DecryptFinal. Clients of protocol 0
// send a question for the length and a buffer of no length alike, and where
// the result is empty both get it: whichever it was, the client may ask once
// more and is told the same.
func cipherFinal(f func(*engine.Session, context.Context, int) ([]byte, error), flag p11.Flags) func(*request) error {
	return func(q *request) error {
		s, err := q.session()
		if err != nil {
			return err
		}
		room := q.r.Room()
		if err := q.r.End(); err != nil {
			return err
		}
		d := drain{s.Handle(), flag}
		if q.conn.protocol == wire.V0 && q.conn.state.settle(d) {
			q.w.Result(nil)
			return nil
		}
		b, err := f(s, q.ctx, room.Bytes())
		if err == nil && q.conn.protocol == wire.V0 && room.Query() {
			q.conn.state.drain(d)
		}
		return q.result(b, err)
	}
}

func (q *request) digestKey() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	key := q.object()
	if err := q.r.End(); err != nil {
		return err
	}
	return s.DigestKey(q.ctx, key)
}

func (q *request) generateKey() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	m := q.r.Mechanism(-1)
	template, err := q.template()
	if err != nil {
		return err
	}
	if err := q.r.End(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	return q.handleOf(s.GenerateKey(q.ctx, m.Mechanism, template))
}

func (q *request) generateKeyPair() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	m := q.r.Mechanism(-1)
	public, err := q.template()
	if err != nil {
		return err
	}
	private, err := q.template()
	if err != nil {
		return err
	}
	if err := q.r.End(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	pub, priv, err := s.GenerateKeyPair(q.ctx, m.Mechanism, public, private)
	if err != nil {
		return err
	}
	q.w.Ulong(uint64(pub))
	q.w.Ulong(uint64(priv))
	return nil
}

func (q *request) wrapKey() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	m := q.r.Mechanism(-1)
	wrapping, key, room := q.object(), q.object(), q.r.Room()
	if err := q.r.End(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	b, err := s.WrapKey(q.ctx, m.Mechanism, wrapping, key)
	if err == nil && len(b) > room.Bytes() {
		q.w.Need(len(b))
		return nil
	}
	return q.result(b, err)
}

func (q *request) unwrapKey() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	m := q.r.Mechanism(-1)
	unwrapping := q.object()
	wrapped, err := q.input()
	if err != nil {
		return err
	}
	template, err := q.template()
	if err != nil {
		return err
	}
	if err := q.r.End(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	return q.handleOf(s.UnwrapKey(q.ctx, m.Mechanism, unwrapping, wrapped, template))
}

// deriveKey answers C_DeriveKey, and C_DeriveKey2, whose reply carries the CK_RV
// and what the mechanism changed in its parameter, which no mechanism here does.
func (q *request) deriveKey() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	m := q.r.Mechanism(-1)
	base := q.object()
	template, err := q.template()
	if err != nil {
		return err
	}
	if err := q.r.End(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	h, err := s.DeriveKey(q.ctx, m.Mechanism, base, template)
	if err != nil {
		return err
	}
	if q.call == wire.CallDeriveKey2 {
		q.w.Ulong(uint64(p11.CKR_OK))
		q.w.ParamUpdate(m.Type)
	}
	q.w.Ulong(uint64(h))
	return nil
}

func (q *request) generateRandom() error {
	s, err := q.session()
	if err != nil {
		return err
	}
	n := q.r.Room().Bytes()
	if err := q.r.End(); err != nil {
		return err
	}
	if n > maxRandom {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%d random bytes at once are too many", n)
	}
	b, err := s.GenerateRandom(q.ctx, n)
	if err != nil {
		return err
	}
	if len(b) != n {
		return errors.New("the token gave fewer random bytes than were asked for")
	}
	q.w.Result(b)
	return nil
}
