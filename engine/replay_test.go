package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/tokentest/hooks"
)

// endingToken is a token whose operations end with their result, as those of a card do.
type endingToken struct {
	*hooks.Token
	begun int
	// longer has what is begun anew give more output than before.
	longer bool
}

func (t *endingToken) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	o, err := t.Token.Begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	t.begun++
	return &endingOperation{o: o, longer: t.longer && t.begun > 1}, nil
}

// endingOperation is no Resumer.
type endingOperation struct {
	o      tokens.Operation
	longer bool
	ended  bool
}

func (e *endingOperation) Update(ctx context.Context, part []byte) ([]byte, error) {
	if e.ended {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	out, err := e.o.Update(ctx, part)
	if e.longer {
		out = append(out, 0)
	}
	return out, err
}

func (e *endingOperation) Final(ctx context.Context, signature []byte) ([]byte, error) {
	if e.ended {
		return nil, p11.CKR_OPERATION_NOT_INITIALIZED
	}
	e.ended = true
	return e.o.Final(ctx, signature)
}

func (e *endingOperation) Size() int { return e.o.Size() }
func (e *endingOperation) Close()    { e.o.Close() }

func newEndingBench(t *testing.T) (*bench, *endingToken) {
	t.Helper()
	token := &endingToken{Token: hooks.New("tok", hooks.Options{})}
	return benchOf(t, token.Token, token, Limits{}), token
}

// An operation goes on after its result also where the token's does not.
func TestReplay(t *testing.T) {
	ctx := t.Context()
	b, token := newEndingBench(t)
	s := b.user(t)
	mac, aes := create(t, s, macKey), create(t, s, aesKey)
	data := bytes.Repeat([]byte("16 bytes a block"), 6)
	cbc, hmac := mech(t, "aes-cbc-pad,iv="+zeroIV), mech(t, "sha256-hmac")
	whole := func(flag p11.Flags, m p11.Mechanism, key p11.ObjectHandle, in []byte) []byte {
		o, err := s.Begin(ctx, flag, m, key)
		if err != nil {
			t.Fatal(err)
		}
		return run(t, o, in)
	}
	for _, c := range []struct {
		name string
		flag p11.Flags
		m    p11.Mechanism
		key  p11.ObjectHandle
	}{
		{"digest", p11.CKF_DIGEST, mech(t, "sha256"), 0},
		{"sign", p11.CKF_SIGN, hmac, mac},
		{"encrypt", p11.CKF_ENCRYPT, cbc, aes},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := s.Begin(ctx, c.flag, c.m, c.key)
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			token.begun = 1
			var out []byte
			at := 0
			for i, end := range []int{5, 16, 50, len(data)} {
				x, err := o.Update(ctx, data[at:end])
				want(t, err, p11.CKR_OK)
				out, at = append(out, x...), end
				for range 2 {
					rest, err := o.Result(ctx, nil)
					want(t, err, p11.CKR_OK)
					if got := append(bytes.Clone(out), rest...); !bytes.Equal(got, whole(c.flag, c.m, c.key, data[:end])) {
						t.Errorf("%d: the first %d bytes give %x", i, end, got)
					}
				}
			}
			rest, err := o.Final(ctx, nil)
			want(t, err, p11.CKR_OK)
			if got := append(out, rest...); !bytes.Equal(got, whole(c.flag, c.m, c.key, data)) {
				t.Errorf("the whole gives %x", got)
			}
		})
	}
	t.Run("verify", func(t *testing.T) {
		o, err := s.Begin(ctx, p11.CKF_VERIFY, hmac, mac)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		want(t, errOf(o.Update(ctx, data[:20])), p11.CKR_OK)
		want(t, errOf(o.Result(ctx, make([]byte, 32))), p11.CKR_SIGNATURE_INVALID)
		want(t, errOf(o.Update(ctx, data[20:])), p11.CKR_OK)
		want(t, errOf(o.Result(ctx, whole(p11.CKF_SIGN, hmac, mac, data))), p11.CKR_OK)
	})
	t.Run("a destroyed key", func(t *testing.T) {
		key := create(t, s, macKey+" token=true")
		o, err := s.Begin(ctx, p11.CKF_SIGN, hmac, key)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		want(t, errOf(o.Update(ctx, data[:1])), p11.CKR_OK)
		want(t, errOf(o.Result(ctx, nil)), p11.CKR_OK)
		want(t, s.DestroyObject(ctx, key), p11.CKR_OK)
		want(t, errOf(o.Update(ctx, data[1:])), p11.CKR_OK)
		sig, err := o.Final(ctx, nil)
		if err != nil || !bytes.Equal(sig, whole(p11.CKF_SIGN, hmac, mac, data)) {
			t.Errorf("%x, %v", sig, err)
		}
	})
}

// Data is kept for it up to a bound, and a longer message ends with its result.
func TestReplayIsBounded(t *testing.T) {
	ctx := t.Context()
	b, _ := newEndingBench(t)
	s := b.user(t)
	data := make([]byte, maxReplay)
	o, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, part := range [][]byte{data[:maxReplay/2], data[maxReplay/2:]} {
		want(t, errOf(o.Update(ctx, part)), p11.CKR_OK)
		want(t, errOf(o.Result(ctx, nil)), p11.CKR_OK)
	}
	want(t, errOf(o.Update(ctx, []byte("x"))), p11.CKR_OK)
	if len(o.replay.data) != 0 {
		t.Errorf("%d bytes are kept of what is too long", len(o.replay.data))
	}
	sum := sha256.Sum256(append(data, 'x'))
	if got, err := o.Result(ctx, nil); err != nil || !bytes.Equal(got, sum[:]) {
		t.Errorf("%x, %v", got, err)
	}
	want(t, errOf(o.Result(ctx, nil)), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, errOf(o.Update(ctx, []byte("y"))), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, errOf(o.Final(ctx, nil)), p11.CKR_OPERATION_NOT_INITIALIZED)

	// Nothing is kept where nobody asks for a result on the way.
	want(t, s.DigestInit(ctx, mech(t, "sha256")), p11.CKR_OK)
	want(t, s.DigestUpdate(ctx, data), p11.CKR_OK)
	if a := s.active[p11.CKF_DIGEST]; a.replay != nil {
		t.Error("C_DigestUpdate keeps its data")
	}
}

// Output that was given out is not given anew in another length.
func TestReplayGivesTheSame(t *testing.T) {
	ctx := t.Context()
	b, token := newEndingBench(t)
	token.longer = true
	s := b.user(t)
	o, err := s.Begin(ctx, p11.CKF_ENCRYPT, mech(t, "aes-ctr,bits=128,counter="+zeroIV), create(t, s, aesKey))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	want(t, errOf(o.Update(ctx, []byte("data"))), p11.CKR_OK)
	want(t, errOf(o.Result(ctx, nil)), p11.CKR_OK)
	want(t, errOf(o.Update(ctx, []byte("data"))), p11.CKR_FUNCTION_FAILED)
}

// A message with a key in it is not kept: it ends with its result.
func TestReplayOfAKey(t *testing.T) {
	ctx := t.Context()
	token := &keyEndingToken{endingToken{Token: hooks.New("tok", hooks.Options{})}}
	b := benchOf(t, token.Token, token, Limits{})
	s := b.user(t)
	key := create(t, s, macKey+" sensitive=false extractable=true")
	o, err := s.Begin(ctx, p11.CKF_DIGEST, mech(t, "sha256"), 0)
	want(t, err, p11.CKR_OK)
	_, err = o.Update(ctx, []byte("x"))
	want(t, err, p11.CKR_OK)
	_, err = o.Result(ctx, nil)
	want(t, err, p11.CKR_OK)
	want(t, o.DigestKey(ctx, key), p11.CKR_OK)
	got, err := o.Result(ctx, nil)
	sum := sha256.Sum256([]byte("x\x00\x01\x02\x03\x04\x05\x06\x07"))
	if err != nil || !bytes.Equal(got, sum[:]) {
		t.Errorf("%x, %v", got, err)
	}
	_, err = o.Update(ctx, []byte("y"))
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
}

// keyEndingToken is an endingToken whose digests take keys.
type keyEndingToken struct{ endingToken }

type keyEndingOperation struct{ *endingOperation }

func (t *keyEndingToken) Begin(ctx context.Context, use p11.Flags, m p11.Mechanism, key *tokens.Object) (tokens.Operation, error) {
	o, err := t.endingToken.Begin(ctx, use, m, key)
	if err != nil {
		return nil, err
	}
	return keyEndingOperation{o.(*endingOperation)}, nil
}

func (o keyEndingOperation) DigestKey(ctx context.Context, key *tokens.Object) error {
	if o.ended {
		return p11.CKR_OPERATION_NOT_INITIALIZED
	}
	return o.o.(tokens.KeyDigester).DigestKey(ctx, key)
}

// What is kept of a message counts in the account of the uid.
func TestReplayIsCounted(t *testing.T) {
	ctx := t.Context()
	token := &endingToken{Token: hooks.New("tok", hooks.Options{})}
	b := benchOf(t, token.Token, token, Limits{Bytes: 200 << 10})
	s := b.user(t)
	key := create(t, s, macKey)
	account := b.Account(1000)
	before := account.Held()
	first, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), key)
	want(t, err, p11.CKR_OK)
	_, err = first.Update(ctx, make([]byte, 150<<10))
	want(t, err, p11.CKR_OK)
	if n := account.Held() - before; n != 150<<10+operationSize {
		t.Errorf("%d bytes are counted", n)
	}
	second, err := s.Begin(ctx, p11.CKF_SIGN, mech(t, "sha256-hmac"), key)
	want(t, err, p11.CKR_OK)
	_, err = second.Update(ctx, make([]byte, 100<<10))
	want(t, err, p11.CKR_DEVICE_MEMORY)
	first.Close()
	second.Close()
	if n := account.Held(); n != before {
		t.Errorf("%d bytes are left over", n-before)
	}
}
