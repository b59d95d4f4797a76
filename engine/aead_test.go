package engine

import (
	"bytes"
	"errors"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/swtok"
	"p11fs/tokens/tokentest/hooks"
)

// A key wrapped with a tag of its own comes back under the same IV, tag and associated
// data, and under no others.
func TestWrapKeyAuthenticated(t *testing.T) {
	ctx := t.Context()
	token := hooks.New("tok", hooks.Options{})
	b := benchOf(t, token, wholeToken{token, swtok.NewCrypto(swtok.GoProvider(), nil).Mechanisms()}, Limits{})
	s := b.user(t)
	aes := create(t, s, aesKey+" wrap=true unwrap=true")
	key := create(t, s, "class=secret-key key-type=generic-secret value=0x0102030405060708 extractable=true sensitive=false")
	template := tmpl(t, "class=secret-key key-type=generic-secret sensitive=false")
	associated := []byte("where it goes")
	for _, typ := range []p11.MechanismType{p11.CKM_AES_GCM} {
		a := AEADMessage{IV: []byte("abcdefghijkl"), FixedBits: 20, Generator: p11.CKG_GENERATE, TagBits: 128}
		wrapped, got, err := s.WrapKeyAuthenticated(ctx, typ, a, aes, key, associated, NoLimit)
		if err != nil {
			t.Fatal(err)
		}
		if len(wrapped) != 8 || len(got.Tag) != 16 || len(got.IV) != 12 || !bytes.HasPrefix(got.IV, []byte("ab")) || got.IV[2]>>4 != 'c'>>4 || bytes.Equal(got.IV, a.IV) {
			t.Errorf("%x, IV %x, tag %x", wrapped, got.IV, got.Tag)
		}
		_, again, err := s.WrapKeyAuthenticated(ctx, typ, a, aes, key, associated, NoLimit)
		if err != nil || bytes.Equal(again.IV, got.IV) {
			t.Errorf("the same IV twice: %x, %v", again.IV, err)
		}
		got.Generator = p11.CKG_NO_GENERATE
		h, err := s.UnwrapKeyAuthenticated(ctx, typ, got, aes, wrapped, template, associated)
		if err != nil {
			t.Fatal(err)
		}
		if v := get(t, s, h, p11.CKA_VALUE); string(v.Value) != "\x01\x02\x03\x04\x05\x06\x07\x08" {
			t.Errorf("%x", v.Value)
		}
		if flag(t, s, h, p11.CKA_NEVER_EXTRACTABLE) || flag(t, s, h, p11.CKA_LOCAL) {
			t.Error("the key says that it was always here")
		}
		other := got
		other.Tag = bytes.Clone(got.Tag)
		other.Tag[3] ^= 1
		_, err = s.UnwrapKeyAuthenticated(ctx, typ, other, aes, wrapped, template, associated)
		want(t, err, p11.CKR_WRAPPED_KEY_INVALID)
		_, err = s.UnwrapKeyAuthenticated(ctx, typ, got, aes, wrapped, template, []byte("elsewhere"))
		want(t, err, p11.CKR_WRAPPED_KEY_INVALID)
		other.Tag = got.Tag[:12]
		_, err = s.UnwrapKeyAuthenticated(ctx, typ, other, aes, wrapped, template, associated)
		want(t, err, p11.CKR_MECHANISM_PARAM_INVALID)
		for _, room := range []int{OnlyLength, 7} {
			var short *BufferError
			if _, _, err := s.WrapKeyAuthenticated(ctx, typ, a, aes, key, associated, room); !errors.As(err, &short) || short.Need != 8 {
				t.Errorf("room %d: %v", room, err)
			}
		}
		for name, bad := range map[string]AEADMessage{
			"nothing to count": {IV: a.IV, FixedBits: 96, Generator: p11.CKG_GENERATE_COUNTER, TagBits: 128},
			"little to choose": {IV: a.IV, FixedBits: 40, Generator: p11.CKG_GENERATE_RANDOM, TagBits: 128},
			"more than all":    {IV: a.IV, FixedBits: 1 << 63, Generator: p11.CKG_GENERATE, TagBits: 128},
			"no generator":     {IV: a.IV, Generator: 77, TagBits: 128},
			"a huge IV":        {IV: make([]byte, 257), Generator: p11.CKG_GENERATE, TagBits: 128},
			"half a byte":      {IV: a.IV, TagBits: 100},
			"a huge tag":       {IV: a.IV, TagBits: 1 << 62},
			"no tag":           {IV: a.IV},
		} {
			_, _, err := s.WrapKeyAuthenticated(ctx, typ, bad, aes, key, associated, NoLimit)
			if p11.RVOf(err) != p11.CKR_MECHANISM_PARAM_INVALID {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	_, _, err := s.WrapKeyAuthenticated(ctx, p11.CKM_AES_KEY_WRAP_KWP, AEADMessage{TagBits: 128}, aes, key, nil, NoLimit)
	want(t, err, p11.CKR_MECHANISM_INVALID)
}
