package rpc

import (
	"crypto/sha256"
	"errors"

	"p11fs/engine"
	"p11fs/mountd/rpc/wire"
	"p11fs/p11"
	"p11fs/secret"
)

// maxRandom bounds C_GenerateRandom, in bytes.
const maxRandom = 1 << 20

// initialise answers a C_…Init. A NULL mechanism cancels the operation that flag names
// (PKCS#11 v3.0 §5.8.1 and others).
func initialise(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		q.conn.state.settle(drain{q.session, flag}, q.call, nil)
		if q.mechanism.Null {
			return q.session.SessionCancel(q.ctx, flag)
		}
		return q.session.Init(q.ctx, flag, q.mechanism.Mechanism, q.object(0))
	}
}

// once answers an Init and its one-part operation in one request of our own module.
func once(flag p11.Flags, operation func(*request) error) func(*request) error {
	start := initialise(flag)
	return func(q *request) error {
		if err := start(q); err != nil {
			return err
		}
		return operation(q)
	}
}

// whole answers the one-part function of a use.
func whole(flag p11.Flags) func(*request) error {
	return answered(flag, func(q *request, room int) ([]byte, error) {
		data := q.data(0)
		if flag&(p11.CKF_ENCRYPT|p11.CKF_DECRYPT) == 0 {
			return q.session.Do(q.ctx, flag, data, nil, room)
		}
		return q.session.DoInto(q.ctx, flag, q.w.Room(len(data)), data, room)
	})
}

// part answers the C_…Update of an encryption or decryption.
func part(flag p11.Flags) func(*request) error {
	return answered(flag, func(q *request, room int) ([]byte, error) {
		part := q.data(0)
		return q.session.UpdateInto(q.ctx, flag, q.w.Room(len(part)), part, room)
	})
}

// both answers a dual-function operation.
func both(flag, second p11.Flags) func(*request) error {
	return answered(flag, func(q *request, room int) ([]byte, error) {
		return q.session.UpdateBoth(q.ctx, flag, second, q.data(0), room)
	})
}

// final answers a function that only returns a result.
func final(flag p11.Flags) func(*request) error {
	return answered(flag, func(q *request, room int) ([]byte, error) {
		return q.session.FinalInto(q.ctx, flag, q.w.Room, room)
	})
}

// silent answers a C_…Update that returns nothing.
func silent(flag p11.Flags) func(*request) error {
	return func(q *request) error {
		_, err := q.session.Update(q.ctx, flag, q.data(0), engine.NoLimit)
		return err
	}
}

func (q *request) verify() error {
	_, err := q.session.Do(q.ctx, p11.CKF_VERIFY, q.data(0), q.data(1), engine.NoLimit)
	return err
}

// verifySignatureInit answers C_VerifySignatureInit, whose NULL mechanism cancels any
// verification.
func (q *request) verifySignatureInit() error {
	if q.mechanism.Null {
		return q.session.SessionCancel(q.ctx, p11.CKF_VERIFY)
	}
	return q.session.VerifySignatureInit(q.ctx, q.mechanism.Mechanism, q.object(0), q.data(0))
}

func (q *request) verifyFinal() error {
	_, err := q.session.Final(q.ctx, p11.CKF_VERIFY, q.data(0), engine.NoLimit)
	return err
}

// answered writes the result of f, which is of the operation flag and gets the room as
// the engine takes it. In protocol 0 a question for the length looks like a buffer of no
// length, is taken for one, and f has ended the operation if the result is empty. The
// client may have asked for the length only, and so may make the same call once more,
// with the same answer.
func answered(flag p11.Flags, f func(q *request, room int) ([]byte, error)) func(*request) error {
	return func(q *request) error {
		if flag&(p11.CKF_ENCRYPT|p11.CKF_DECRYPT) != 0 {
			// The result is as long as the data, and is there twice before the reply is
			// sent; half of that leaves room for the longest request.
			n := len(q.data(0))
			if err := q.take(n + n/2); err != nil {
				return err
			}
		}
		if q.conn.protocol != wire.V0 {
			return q.result(f(q, q.limit()))
		}
		d := drain{q.session, flag}
		if q.conn.state.settle(d, q.call, q.data(0)) {
			q.w.Result(nil)
			return nil
		}
		b, err := f(q, q.room.Bytes())
		if err == nil && q.room.Query() {
			q.conn.state.drain(d, drainMark{call: q.call, part: sha256.Sum256(q.data(0))})
		}
		return q.result(b, err)
	}
}

func (q *request) generateKeyPair() error {
	if q.mechanism.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	pub, priv, err := q.session.GenerateKeyPair(q.ctx, q.mechanism.Mechanism, q.templates[0], q.templates[1])
	if err != nil {
		return err
	}
	q.w.Ulong(uint64(pub))
	q.w.Ulong(uint64(priv))
	return nil
}

func (q *request) wrapKey() error {
	if q.mechanism.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	b, err := q.session.WrapKey(q.ctx, q.mechanism.Mechanism, q.object(0), q.object(1))
	if err == nil && len(b) > q.room.Bytes() {
		q.w.Need(len(b))
		return nil
	}
	return q.result(b, err)
}

// encapsulateKey answers C_EncapsulateKey: without a ciphertext, the key is 0.
func (q *request) encapsulateKey() error {
	if q.mechanism.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	ciphertext, key, err := q.session.EncapsulateKey(q.ctx, q.mechanism.Mechanism, q.object(0), q.templates[0], q.limit())
	if err := q.result(ciphertext, err); err != nil {
		return err
	}
	q.w.Ulong(uint64(key))
	return nil
}

// wrapKeyAuthenticated answers C_WrapKeyAuthenticated: IV and tag come with the wrapped
// key, and empty without.
func (q *request) wrapKeyAuthenticated() error {
	n := q.numbers
	a := engine.AEADMessage{IV: q.data(0), FixedBits: n[3], Generator: p11.IVGenerator(n[4]), TagBits: n[5]}
	wrapped, a, err := q.session.WrapKeyAuthenticated(q.ctx, p11.MechanismType(n[0]), a, q.object(1), q.object(2), q.data(1), q.limit())
	if err != nil {
		a = engine.AEADMessage{}
	}
	if err := q.result(wrapped, err); err != nil {
		return err
	}
	q.w.Array(wire.Array{Data: a.IV})
	q.w.Array(wire.Array{Data: a.Tag})
	return nil
}

func (q *request) unwrapKeyAuthenticated() (p11.ObjectHandle, error) {
	a := engine.AEADMessage{IV: q.data(0), TagBits: q.numbers[2], Tag: q.data(1)}
	return q.session.UnwrapKeyAuthenticated(q.ctx, p11.MechanismType(q.numbers[0]), a, q.object(1), q.data(2), q.templates[0], q.data(3))
}

// limit is the room of the call as the engine takes it.
func (q *request) limit() int {
	if q.room.Query() {
		return engine.OnlyLength
	}
	return q.room.Bytes()
}

// deriveKeys answers C_DeriveKeys: the key, those that the parameter asks for, and the
// bytes that come beside keys, or how many they are, and then no keys.
func (q *request) deriveKeys() error {
	if q.mechanism.Null {
		return p11.CKR_ARGUMENTS_BAD
	}
	d, err := q.session.DeriveKeys(q.ctx, q.mechanism.Mechanism, q.object(0), q.templates[0])
	var short *engine.BufferError
	if err != nil && !errors.As(err, &short) {
		return err
	}
	q.w.Ulong(uint64(d.Key))
	wire.Ulongs(q.w, d.More)
	return q.result(d.Out, err)
}

// deriveKey answers C_DeriveKey, and C_DeriveKey2, whose reply carries the CK_RV
// and what the mechanism changed in its parameter, which no mechanism here does.
func (q *request) deriveKey() (p11.ObjectHandle, error) {
	h, err := q.session.DeriveKey(q.ctx, q.mechanism.Mechanism, q.object(0), q.templates[0])
	if err == nil && q.call == wire.CallDeriveKey2 {
		q.w.Ulong(uint64(p11.CKR_OK))
		q.w.ParamUpdate(q.mechanism.Mechanism)
	}
	return h, err
}

func (q *request) generateRandom() error {
	if q.room.Query() { // nothing random
		q.nothing()
		return nil
	}
	n := q.room.Bytes()
	if n > maxRandom {
		return p11.Errorf(p11.CKR_DATA_LEN_RANGE, "%d random bytes at once are too many", n)
	}
	if err := q.take(n); err != nil {
		return err
	}
	b := q.w.Room(n)
	for {
		part, err := q.session.GenerateRandom(q.ctx, min(n-len(b), engine.RandomTurn))
		if err != nil {
			return err
		}
		b = append(b, part...)
		secret.Wipe(part)
		if len(b) == n {
			q.w.Result(b)
			return nil
		}
		if len(part) == 0 {
			return errors.New("the token gave fewer random bytes than were asked for")
		}
		q.turn = q.conn.account.Again(q.ctx, q.turn)
	}
}
