package engine

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/hooks"
)

const chachaKey = "class=secret-key key-type=chacha20 value=0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// messenger has the user's session with a token that has all mechanisms.
func messenger(t *testing.T, p swtok.Provider) *Session {
	t.Helper()
	token := hooks.New("tok", hooks.Options{})
	return benchOf(t, token, wholeToken{token, swtok.NewCrypto(p, nil).Mechanisms()}, Limits{}).user(t)
}

// TestMessages encrypts messages whole and in parts, and decrypts them likewise.
func TestMessages(t *testing.T) {
	ctx, text, associated := t.Context(), []byte("a message of some bytes"), []byte("associated")
	s := messenger(t, swtok.GoProvider())
	for _, c := range []struct {
		typ p11.MechanismType
		key string
		a   AEADMessage
	}{
		{p11.CKM_AES_GCM, aesKey, AEADMessage{IV: make([]byte, 12), Generator: p11.CKG_GENERATE, TagBits: 96}},
		{p11.CKM_CHACHA20_POLY1305, chachaKey, AEADMessage{IV: make([]byte, 12), TagBits: 128}},
	} {
		key := create(t, s, c.key)
		_, _, err := s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, c.a, nil, text, NoLimit)
		want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
		want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, c.typ, key), p11.CKR_OK)
		want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_DECRYPT, c.typ, key), p11.CKR_OK)
		want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_DECRYPT, c.typ, key), p11.CKR_OPERATION_ACTIVE)
		sealed, got, err := s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, c.a, associated, text, NoLimit)
		want(t, err, p11.CKR_OK)
		if len(sealed) != len(text) || len(got.Tag) != int(c.a.TagBits/8) {
			t.Errorf("%v: %x, tag %x", c.typ, sealed, got.Tag)
		}
		back, _, err := s.Message(ctx, p11.CKF_MESSAGE_DECRYPT, got, associated, sealed, NoLimit)
		if want(t, err, p11.CKR_OK); !bytes.Equal(back, text) {
			t.Errorf("%v: %q", c.typ, back)
		}
		bad := got
		bad.Tag = bytes.Clone(got.Tag)
		bad.Tag[0] ^= 1
		_, _, err = s.Message(ctx, p11.CKF_MESSAGE_DECRYPT, bad, associated, sealed, NoLimit)
		want(t, err, p11.CKR_AEAD_DECRYPT_FAILED)
		bad.Tag = got.Tag[1:]
		_, _, err = s.Message(ctx, p11.CKF_MESSAGE_DECRYPT, bad, associated, sealed, NoLimit)
		want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)

		// In parts, under an IV that was not used yet.
		next := c.a
		next.IV = []byte("another one!")
		next, err = s.MessageBegin(ctx, p11.CKF_MESSAGE_ENCRYPT, next, associated)
		want(t, err, p11.CKR_OK)
		_, err = s.MessageBegin(ctx, p11.CKF_MESSAGE_ENCRYPT, next, associated)
		want(t, err, p11.CKR_OPERATION_ACTIVE)
		_, _, err = s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, next, nil, text, NoLimit)
		want(t, err, p11.CKR_OPERATION_ACTIVE)
		first, _, err := s.MessageNext(ctx, p11.CKF_MESSAGE_ENCRYPT, next, text[:7], false, NoLimit)
		want(t, err, p11.CKR_OK)
		var short *BufferError
		if _, _, err := s.MessageNext(ctx, p11.CKF_MESSAGE_ENCRYPT, next, text[7:], true, OnlyLength); !errors.As(err, &short) || short.Need != len(text)-len(first) {
			t.Errorf("%v: the length of the rest: %v", c.typ, err)
		}
		rest, last, err := s.MessageNext(ctx, p11.CKF_MESSAGE_ENCRYPT, next, text[7:], true, NoLimit)
		want(t, err, p11.CKR_OK)
		next.Tag = last.Tag
		_, err = s.MessageBegin(ctx, p11.CKF_MESSAGE_DECRYPT, next, associated)
		want(t, err, p11.CKR_OK)
		early, _, err := s.MessageNext(ctx, p11.CKF_MESSAGE_DECRYPT, next, first, false, NoLimit)
		if want(t, err, p11.CKR_OK); len(early) != 0 {
			t.Errorf("%v: plaintext before its tag was checked", c.typ)
		}
		back, _, err = s.MessageNext(ctx, p11.CKF_MESSAGE_DECRYPT, next, rest, true, NoLimit)
		if want(t, err, p11.CKR_OK); !bytes.Equal(back, text) {
			t.Errorf("%v in parts: %q", c.typ, back)
		}
		_, _, err = s.MessageNext(ctx, p11.CKF_MESSAGE_DECRYPT, next, rest, true, NoLimit)
		want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)

		// A message that is cut leaves nothing, and none begins when its key has gone.
		_, err = s.MessageBegin(ctx, p11.CKF_MESSAGE_DECRYPT, next, nil)
		want(t, err, p11.CKR_OK)
		want(t, s.SessionCancel(ctx, p11.CKF_MESSAGE_DECRYPT), p11.CKR_OK)
		want(t, s.MessageFinal(ctx, p11.CKF_MESSAGE_DECRYPT), p11.CKR_OPERATION_NOT_INITIALIZED)
		want(t, s.DestroyObject(ctx, key), p11.CKR_OK)
		_, _, err = s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, next, nil, text, NoLimit)
		want(t, err, p11.CKR_KEY_HANDLE_INVALID)
		want(t, s.MessageFinal(ctx, p11.CKF_MESSAGE_ENCRYPT), p11.CKR_OPERATION_NOT_INITIALIZED)
	}
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_CBC, create(t, s, aesKey)), p11.CKR_MECHANISM_INVALID)
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, create(t, s, aesKey+" encrypt=false")), p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
}

// A logout ends messages with private keys.
func TestMessagesAfterLogout(t *testing.T) {
	ctx, s := t.Context(), messenger(t, swtok.GoProvider())
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, create(t, s, aesKey+" private=true")), p11.CKR_OK)
	a := AEADMessage{IV: make([]byte, 12), Generator: p11.CKG_GENERATE, TagBits: 128}
	_, err := s.MessageBegin(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil)
	want(t, err, p11.CKR_OK)
	want(t, s.Logout(ctx), p11.CKR_OK)
	_, _, err = s.MessageNext(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, true, NoLimit)
	want(t, err, p11.CKR_OPERATION_NOT_INITIALIZED)
}

// No IV comes twice with one key: in any session, of any copy, by any generator, and for
// a wrapped key.
func TestIVsOnce(t *testing.T) {
	ctx := t.Context()
	for _, generator := range []p11.IVGenerator{p11.CKG_GENERATE, p11.CKG_GENERATE_RANDOM, p11.CKG_GENERATE_COUNTER, p11.CKG_GENERATE_COUNTER_XOR} {
		t.Run(generator.Short(), func(t *testing.T) {
			s := messenger(t, swtok.GoProvider())
			key := create(t, s, aesKey+" private=false wrap=true")
			other := create(t, s, "class=secret-key key-type=generic-secret value=0x01 extractable=true private=false")
			again, err := s.CopyObject(ctx, key, tmpl(t, "label=copy"))
			want(t, err, p11.CKR_OK)
			second, err := s.appSlot.app.OpenSession(ctx, s.Slot(), rw)
			want(t, err, p11.CKR_OK)
			seen := map[string]bool{}
			note := func(a AEADMessage, err error) {
				t.Helper()
				if want(t, err, p11.CKR_OK); seen[string(a.IV)] || !bytes.HasPrefix(a.IV, []byte("abcd")) {
					t.Errorf("the IV %x", a.IV)
				}
				seen[string(a.IV)] = true
			}
			a := AEADMessage{IV: []byte("abcdefghijkl"), FixedBits: 32, Generator: generator, TagBits: 128}
			for range 3 {
				for _, use := range []struct {
					s   *Session
					key p11.ObjectHandle
				}{{s, key}, {second, key}, {s, again}} {
					want(t, use.s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, use.key), p11.CKR_OK)
					_, whole, err := use.s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, []byte("text"), NoLimit)
					note(whole, err)
					begun, err := use.s.MessageBegin(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil)
					note(begun, err)
					want(t, use.s.MessageFinal(ctx, p11.CKF_MESSAGE_ENCRYPT), p11.CKR_OK)
				}
				_, wrapped, err := s.WrapKeyAuthenticated(ctx, p11.CKM_AES_GCM, a, key, other, nil, NoLimit)
				note(wrapped, err)
			}
			if len(seen) != 21 {
				t.Errorf("%d IVs", len(seen))
			}
		})
	}
}

// The numbers begin with 0, end, and are counted in one way.
func TestIVCounter(t *testing.T) {
	count := func(c *ivCounter, iv string, fixed uint64, g p11.IVGenerator) string {
		got, err := c.iv(&AEADMessage{IV: []byte(iv), FixedBits: fixed, Generator: g})
		if err != nil {
			return p11.RVOf(err).String()
		}
		return fmt.Sprintf("%x", got)
	}
	for _, c := range []struct {
		iv    string
		fixed uint64
		g     p11.IVGenerator
		next  uint64
		want  string
	}{
		{"abcdefghijkl", 32, p11.CKG_GENERATE_COUNTER, 0, "616263640000000000000000"},
		{"abcdefghijkl", 32, p11.CKG_GENERATE_COUNTER, 0x0102, "616263640000000000000102"},
		{"abcdefghijkl", 0, p11.CKG_GENERATE_COUNTER, 1<<64 - 2, "00000000fffffffffffffffe"},
		{"abcdefghijkl", 0, p11.CKG_GENERATE_COUNTER, 1<<64 - 1, "CKR_KEY_EXHAUSTED"},
		{"abcdefghijkl", 12, p11.CKG_GENERATE_COUNTER, 3, "616000000000000000000003"},
		{"\xff\xff", 12, p11.CKG_GENERATE_COUNTER, 15, "ffff"},
		{"\xff\xff", 12, p11.CKG_GENERATE_COUNTER, 16, "CKR_KEY_EXHAUSTED"},
		{"abcdefghijkl", 32, p11.CKG_GENERATE_COUNTER_XOR, 0, "6162636465666768696a6b6c"},
		{"abcdefghijkl", 32, p11.CKG_GENERATE_COUNTER_XOR, 0xff01, "6162636465666768696a946d"},
	} {
		if got := count(&ivCounter{next: c.next}, c.iv, c.fixed, c.g); got != c.want {
			t.Errorf("%q, %d, %v, %#x: %s, want %s", c.iv, c.fixed, c.g, c.next, got, c.want)
		}
	}
	var c ivCounter
	for _, v := range []struct {
		iv    string
		fixed uint64
		g     p11.IVGenerator
		want  string
	}{
		{"abcdefgh", 16, p11.CKG_GENERATE_COUNTER_XOR, "6162636465666768"},
		{"xycdefgh", 16, p11.CKG_GENERATE_COUNTER_XOR, "7879636465666769"},
		{"abcdefgX", 16, p11.CKG_GENERATE_COUNTER_XOR, "CKR_MECHANISM_PARAM_INVALID"},
		{"abcdefgh", 8, p11.CKG_GENERATE_COUNTER_XOR, "CKR_MECHANISM_PARAM_INVALID"},
		{"abcdefgh", 16, p11.CKG_GENERATE_COUNTER, "CKR_MECHANISM_PARAM_INVALID"},
		{"abcdefghi", 16, p11.CKG_GENERATE_COUNTER_XOR, "CKR_MECHANISM_PARAM_INVALID"},
		{"abcdefgh", 16, p11.CKG_GENERATE_COUNTER_XOR, "616263646566676a"},
	} {
		if got := count(&c, v.iv, v.fixed, v.g); got != v.want {
			t.Errorf("%q, %d, %v: %s, want %s", v.iv, v.fixed, v.g, got, v.want)
		}
	}
}

// The IVs of a token object are not counted.
func TestIVsOfTokenObjects(t *testing.T) {
	ctx, s := t.Context(), messenger(t, swtok.GoProvider())
	want(t, s.MessageInit(ctx, p11.CKF_MESSAGE_ENCRYPT, p11.CKM_AES_GCM, create(t, s, aesKey+" token=true")), p11.CKR_OK)
	a := AEADMessage{IV: make([]byte, 12), Generator: p11.CKG_GENERATE_COUNTER, TagBits: 128}
	_, _, err := s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, []byte("text"), NoLimit)
	want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)
	a.Generator = p11.CKG_GENERATE
	_, _, err = s.Message(ctx, p11.CKF_MESSAGE_ENCRYPT, a, nil, []byte("text"), NoLimit)
	want(t, err, p11.CKR_OK)
}
