package engine

import (
	"bytes"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// An operation that was saved goes on where it was, as often as it is restored, in this
// session or another.
func TestOperationState(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, hooks.Options{})
	s := b.user(t)
	other := b.session(t, s.Application(), rw)
	aes, mac := create(t, s, aesKey), create(t, s, macKey)
	data := []byte("some data of which the beginning has gone in before")
	save := func(s *Session) []byte {
		t.Helper()
		for _, room := range []int{OnlyLength, 5} {
			want(t, errOf(s.GetOperationState(ctx, room)), p11.CKR_BUFFER_TOO_SMALL)
		}
		state, err := s.GetOperationState(ctx, NoLimit)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	want(t, errOf(s.GetOperationState(ctx, NoLimit)), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.FindObjectsInit(ctx, nil), p11.CKR_OK)
	want(t, errOf(s.GetOperationState(ctx, NoLimit)), p11.CKR_OPERATION_NOT_INITIALIZED)
	want(t, s.SetOperationState(ctx, []byte("what is this?"), 0, 0), p11.CKR_SAVED_STATE_INVALID)

	for _, c := range []struct {
		name string
		flag p11.Flags
		mech string
		key  p11.ObjectHandle
	}{
		{"digest", p11.CKF_DIGEST, "sha256", 0},
		{"sign", p11.CKF_SIGN, "sha256-hmac", mac},
		{"encrypt", p11.CKF_ENCRYPT, "aes-cbc-pad,iv=" + zeroIV, aes},
		{"decrypt", p11.CKF_DECRYPT, "aes-cbc,iv=" + zeroIV, aes},
	} {
		t.Run(c.name, func(t *testing.T) {
			encryption, authentication := c.key, p11.ObjectHandle(0)
			if c.flag == p11.CKF_SIGN {
				encryption, authentication = 0, c.key
			}
			in := data
			if c.flag == p11.CKF_DECRYPT {
				in = data[:48]
			}
			want(t, s.Init(ctx, c.flag, mech(t, c.mech), c.key), p11.CKR_OK)
			whole, err := s.Do(ctx, c.flag, in, nil, NoLimit)
			want(t, err, p11.CKR_OK)
			want(t, s.Init(ctx, c.flag, mech(t, c.mech), c.key), p11.CKR_OK)
			first, err := s.Update(ctx, c.flag, in[:21], NoLimit)
			want(t, err, p11.CKR_OK)
			state := save(s)
			want(t, errOf(s.Update(ctx, c.flag, []byte("which is not of it, and 32 bytes"), NoLimit)), p11.CKR_OK)
			for range 2 {
				for _, to := range []*Session{s, other} {
					want(t, to.SetOperationState(ctx, state, encryption, authentication), p11.CKR_OK)
					rest, err := to.Update(ctx, c.flag, in[21:], NoLimit)
					want(t, err, p11.CKR_OK)
					end, err := to.Final(ctx, c.flag, nil, NoLimit)
					want(t, err, p11.CKR_OK)
					if got := bytes.Join([][]byte{first, rest, end}, nil); !bytes.Equal(got, whole) {
						t.Errorf("%x, want %x", got, whole)
					}
				}
			}
			want(t, s.SetOperationState(ctx, state, 0, 0), p11.CKR_OK) // which the state has
			want(t, s.SetOperationState(ctx, state, authentication, encryption), map[bool]p11.RV{true: p11.CKR_OK, false: p11.CKR_KEY_NOT_NEEDED}[c.key == 0])
			if c.key != 0 {
				another := create(t, s, aesKey)
				want(t, s.SetOperationState(ctx, state, min(encryption, 1)*another, min(authentication, 1)*another), p11.CKR_KEY_CHANGED)
			}
			want(t, s.SessionCancel(ctx, ^p11.Flags(0)), p11.CKR_OK)
		})
	}

	t.Run("two at once", func(t *testing.T) {
		want(t, s.DigestInit(ctx, mech(t, "sha256")), p11.CKR_OK)
		want(t, s.EncryptInit(ctx, mech(t, "aes-cbc,iv="+zeroIV), aes), p11.CKR_OK)
		want(t, errOf(s.DigestEncryptUpdate(ctx, data[:16], NoLimit)), p11.CKR_OK)
		state := save(s)
		want(t, s.SessionCancel(ctx, ^p11.Flags(0)), p11.CKR_OK)
		want(t, other.SignInit(ctx, mech(t, "sha256-hmac"), mac), p11.CKR_OK)
		want(t, other.SetOperationState(ctx, state, aes, 0), p11.CKR_OK)
		want(t, errOf(other.DigestEncryptUpdate(ctx, data[16:32], NoLimit)), p11.CKR_OK)
		want(t, errOf(other.SignFinal(ctx, NoLimit)), p11.CKR_OPERATION_NOT_INITIALIZED) // cancelled
	})
	t.Run("what is not saved", func(t *testing.T) {
		for _, m := range []string{"aes-ctr,bits=128,counter=" + zeroIV, "aes-gcm,iv=0x000000000000000000000000"} {
			want(t, s.EncryptInit(ctx, mech(t, m), aes), p11.CKR_OK)
			want(t, errOf(s.GetOperationState(ctx, NoLimit)), p11.CKR_STATE_UNSAVEABLE)
			want(t, s.SessionCancel(ctx, p11.CKF_ENCRYPT), p11.CKR_OK)
		}
	})
	t.Run("limits", func(t *testing.T) {
		want(t, s.DigestInit(ctx, mech(t, "sha256")), p11.CKR_OK)
		first := save(s)
		want(t, s.SetOperationState(ctx, first, 0, 0), p11.CKR_OK)
		before := b.Stats().Operations
		for range 3 * maxSaved {
			save(s)
		}
		want(t, s.SetOperationState(ctx, first, 0, 0), p11.CKR_SAVED_STATE_INVALID)
		if n := b.Stats().Operations; n > before+maxSaved {
			t.Errorf("%d operations, %d before", n, before)
		}
	})
	t.Run("another state", func(t *testing.T) {
		state := save(s)
		want(t, b.session(t, s.Application(), ro).SetOperationState(ctx, state, 0, 0), p11.CKR_SAVED_STATE_INVALID)
		want(t, b.user(t).SetOperationState(ctx, state, 0, 0), p11.CKR_SAVED_STATE_INVALID)
	})
	t.Run("logout", func(t *testing.T) {
		want(t, s.SignInit(ctx, mech(t, "sha256-hmac"), mac), p11.CKR_OK)
		state := save(s)
		want(t, s.Logout(ctx), p11.CKR_OK)
		logIn(t, s, p11.CKU_USER, "1234")
		want(t, s.SetOperationState(ctx, state, 0, 0), p11.CKR_SAVED_STATE_INVALID)
	})
}
