package rpc

import (
	"context"
	"crypto/sha256"
	"errors"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
)

// maxRandom bounds C_GenerateRandom, in bytes.
const maxRandom = 1 << 20

// sizeOfKey is the length in bytes of the key handle that follows a mechanism.
const sizeOfKey = 8

// initialise answers a C_…Init. A NULL mechanism cancels the operation that flag
// names (PKCS#11 v3.0 §5.8.1 and others).
func initialise(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		_, err := q.begin(flag)
		return err
	}
}

// begin reads and answers the Init part of a request. In a combined call other
// arguments follow.
func (q *request) begin(flag p11.Flags) (*engine.Session, error) {
	s := q.session()
	after, end := sizeOfKey, q.end
	if flag == p11.CKF_DIGEST {
		after = 0
	}
	if q.call >= wire.CallSignOnce {
		after, end = -1, q.failure
	}
	m := q.r.Mechanism(after)
	var key p11.ObjectHandle
	if flag != p11.CKF_DIGEST {
		key = q.object()
	}
	if err := end(); err != nil {
		return nil, err
	}
	q.conn.state.settle(drain{s, flag}, q.call, nil)
	if m.Null {
		return s, s.SessionCancel(q.ctx, flag)
	}
	return s, s.Init(q.ctx, flag, m.Mechanism, key)
}

// A withRoom is a function of a session that takes data and the room for its
// result, and returns the result.
type withRoom func(*engine.Session, context.Context, []byte, int) ([]byte, error)

// whole is the one-part function of a use.
func whole(flag p11.Flags) withRoom {
	return func(s *engine.Session, ctx context.Context, data []byte, room int) ([]byte, error) {
		return s.Do(ctx, flag, data, nil, room)
	}
}

// part is the C_…Update of an encryption or decryption.
func part(flag p11.Flags) withRoom {
	return func(s *engine.Session, ctx context.Context, data []byte, room int) ([]byte, error) {
		return s.Update(ctx, flag, data, room)
	}
}

// both is a dual-function operation.
func both(flag, second p11.Flags) withRoom {
	return func(s *engine.Session, ctx context.Context, data []byte, room int) ([]byte, error) {
		return s.UpdateBoth(ctx, flag, second, data, room)
	}
}

// silent is a C_…Update that returns nothing.
func silent(flag p11.Flags) func(*engine.Session, context.Context, []byte) error {
	return func(s *engine.Session, ctx context.Context, data []byte) error {
		_, err := s.Update(ctx, flag, data, engine.NoLimit)
		return err
	}
}

func (q *request) verifyFinal() error {
	s := q.session()
	signature := q.input()
	if err := q.end(); err != nil {
		return err
	}
	_, err := s.Final(q.ctx, p11.CKF_VERIFY, signature, engine.NoLimit)
	return err
}

// transform answers a function with data and a result. flag is its operation.
func transform(f withRoom, flag p11.Flags) func(*request) error {
	return func(q *request) error {
		s := q.session()
		return q.transform(s, f, flag)
	}
}

func (q *request) transform(s *engine.Session, f withRoom, flag p11.Flags) error {
	data := q.input()
	room := q.r.Room()
	if err := q.end(); err != nil {
		return err
	}
	return q.answered(drain{s, flag}, data, room, func() ([]byte, error) { return f(s, q.ctx, data, q.room(room)) })
}

// room is a Room as the engine takes it. In protocol 0 a question for the length
// looks like a buffer of no length, and is taken for one.
func (q *request) room(room wire.Room) int {
	if room.Query() && q.conn.protocol != wire.V0 {
		return engine.OnlyLength
	}
	return room.Bytes()
}

// once answers an Init and its one-part operation in one request of our own
// module.
func once(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		s, err := q.begin(flag)
		if err != nil {
			return err
		}
		return q.transform(s, whole(flag), flag)
	}
}

func (q *request) verifyOnce() error {
	s, err := q.begin(p11.CKF_VERIFY)
	if err != nil {
		return err
	}
	return q.verifyWith(s)
}

func (q *request) verify() error {
	s := q.session()
	return q.verifyWith(s)
}

func (q *request) verifyWith(s *engine.Session) error {
	data := q.input()
	signature := q.input()
	if err := q.end(); err != nil {
		return err
	}
	_, err := s.Do(q.ctx, p11.CKF_VERIFY, data, signature, engine.NoLimit)
	return err
}

// update answers a function that takes data and returns nothing.
func update(f func(*engine.Session, context.Context, []byte) error) func(*request) error {
	return func(q *request) error {
		s := q.session()
		data := q.input()
		if err := q.end(); err != nil {
			return err
		}
		return f(s, q.ctx, data)
	}
}

// final answers a function that only returns a result.
func final(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		s := q.session()
		room := q.r.Room()
		if err := q.end(); err != nil {
			return err
		}
		return q.answered(drain{s, flag}, nil, room, func() ([]byte, error) {
			return s.Final(q.ctx, flag, nil, q.room(room))
		})
	}
}

// answered writes the result of f, which takes data. In protocol 0 a question for
// the length looks like a buffer of no length, and f has ended the operation if the
// result is empty. The client may have asked for the length only, and so may make
// the same call once more, with the same answer.
func (q *request) answered(d drain, data []byte, room wire.Room, f func() ([]byte, error)) error {
	if q.conn.protocol != wire.V0 {
		b, err := f()
		return q.result(b, err)
	}
	if q.conn.state.settle(d, q.call, data) {
		q.w.Result(nil)
		return nil
	}
	b, err := f()
	if err == nil && room.Query() {
		q.conn.state.drain(d, drainMark{call: q.call, part: sha256.Sum256(data)})
	}
	return q.result(b, err)
}

func (q *request) digestKey() error {
	s := q.session()
	key := q.object()
	if err := q.end(); err != nil {
		return err
	}
	return s.DigestKey(q.ctx, key)
}

func (q *request) generateKey() error {
	s := q.session()
	m := q.r.Mechanism(-1)
	template := q.template()
	if err := q.end(); err != nil {
		return err
	}
	if m.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	return q.handleOf(s.GenerateKey(q.ctx, m.Mechanism, template))
}

func (q *request) generateKeyPair() error {
	s := q.session()
	m := q.r.Mechanism(-1)
	public := q.template()
	private := q.template()
	if err := q.end(); err != nil {
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
	s := q.session()
	m := q.r.Mechanism(-1)
	wrapping, key, room := q.object(), q.object(), q.r.Room()
	if err := q.end(); err != nil {
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
	s := q.session()
	m := q.r.Mechanism(-1)
	unwrapping := q.object()
	wrapped := q.input()
	template := q.template()
	if err := q.end(); err != nil {
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
	s := q.session()
	m := q.r.Mechanism(-1)
	base := q.object()
	template := q.template()
	if err := q.end(); err != nil {
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
		q.w.ParamUpdate(m.Mechanism)
	}
	q.w.Ulong(uint64(h))
	return nil
}

func (q *request) generateRandom() error {
	s := q.session()
	room := q.r.Room()
	n := room.Bytes()
	if err := q.end(); err != nil {
		return err
	}
	if room.Query() { // nothing random
		q.nothing()
		return nil
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
