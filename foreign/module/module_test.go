package module

import (
	"crypto/aes"
	"crypto/cipher"
	"slices"
	"strings"
	"testing"

	"p11fs/foreign"
	"p11fs/p11"
)

// A fakeToken has one object, and may refuse keys that are brought.
type fakeToken struct {
	calls   // what is not below is not called
	object  p11.Attributes
	refuses bool
	can     []p11.MechanismType
	key     []byte // that wraps
	gone    bool
}

const theObject, theKey = 1, 2

func (f *fakeToken) open(p11.SlotID) (p11.SessionHandle, error)         { return 1, nil }
func (f *fakeToken) close(p11.SessionHandle) error                      { return nil }
func (f *fakeToken) mechanisms(p11.SlotID) ([]p11.MechanismType, error) { return f.can, nil }
func (f *fakeToken) destroy(p11.SessionHandle, p11.ObjectHandle) error  { f.gone = true; return nil }
func (f *fakeToken) find(p11.SessionHandle, int) ([]p11.ObjectHandle, error) {
	return []p11.ObjectHandle{theObject}, nil
}

func (f *fakeToken) get(_ p11.SessionHandle, o p11.ObjectHandle, t p11.AttributeType, _ int) ([]byte, error) {
	if o == theKey {
		return slices.Clone(f.key), nil
	}
	v, ok := f.object.Get(t)
	switch {
	case t == p11.CKA_VALUE && f.object.Bool(p11.CKA_SENSITIVE):
		return nil, p11.CKR_ATTRIBUTE_SENSITIVE
	case !ok:
		return nil, p11.CKR_ATTRIBUTE_TYPE_INVALID
	}
	return slices.Clone(v), nil
}

func (f *fakeToken) bring(_ p11.SessionHandle, value []byte) (p11.ObjectHandle, error) {
	if f.refuses {
		return 0, p11.CKR_FUNCTION_NOT_SUPPORTED
	}
	f.key = slices.Clone(value)
	return theKey, nil
}

func (f *fakeToken) generate(_ p11.SessionHandle, n int) (p11.ObjectHandle, error) {
	f.key = []byte(strings.Repeat("k", n))
	return theKey, nil
}

func (f *fakeToken) wrap(_ p11.SessionHandle, m p11.MechanismType, iv []byte, by, key p11.ObjectHandle, _ int) ([]byte, error) {
	if m != p11.CKM_AES_CBC_PAD || by != theKey || key != theObject {
		return nil, p11.CKR_MECHANISM_INVALID
	}
	b, err := aes.NewCipher(f.key)
	if err != nil {
		return nil, err
	}
	v, _ := f.object.Get(p11.CKA_VALUE)
	pad := aes.BlockSize - len(v)%aes.BlockSize
	out := append(slices.Clone(v), strings.Repeat(string(rune(pad)), pad)...)
	cipher.NewCBCEncrypter(b, iv).CryptBlocks(out, out)
	return out, nil
}

func TestObjects(t *testing.T) {
	base := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_SECRET_KEY)}, {Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(p11.CKK_GENERIC_SECRET)},
		{Type: p11.CKA_SENSITIVE, Value: p11.Bool(true)}, {Type: p11.CKA_EXTRACTABLE, Value: p11.Bool(true)}, {Type: p11.CKA_VALUE, Value: []byte("seventeen bytes !")},
		{Type: p11.CKA_VALUE_LEN, Value: p11.Ulong(uint64(17))},
	}
	with := func(t p11.AttributeType, v []byte) p11.Attributes { return base.Clone().With(t, v) }
	cbc := []p11.MechanismType{p11.CKM_AES_KEY_GEN, p11.CKM_AES_CBC_PAD}
	for name, c := range map[string]struct {
		token fakeToken
		why   string
	}{
		"wrapped":                {fakeToken{object: base, can: cbc}, ""},
		"wrapped under its own":  {fakeToken{object: base, can: cbc, refuses: true}, ""},
		"shown":                  {fakeToken{object: with(p11.CKA_SENSITIVE, p11.Bool(false))}, ""},
		"not extractable":        {fakeToken{object: with(p11.CKA_EXTRACTABLE, p11.Bool(false)), can: cbc}, "not extractable"},
		"trusted":                {fakeToken{object: with(p11.CKA_WRAP_WITH_TRUSTED, p11.Bool(true)), can: cbc}, "trusted key"},
		"no mechanism":           {fakeToken{object: base, can: []p11.MechanismType{p11.CKM_RSA_PKCS}}, "no AES mechanism"},
		"another mechanism":      {fakeToken{object: base, can: []p11.MechanismType{p11.CKM_AES_KEY_WRAP_KWP}}, "cannot be wrapped"},
		"another length":         {fakeToken{object: with(p11.CKA_VALUE_LEN, p11.Ulong(uint64(16))), can: cbc}, "17 bytes, and not 16"},
		"restricts":              {fakeToken{object: with(p11.CKA_UNWRAP_TEMPLATE, []byte{1}), can: cbc}, "template"},
		"an odd number":          {fakeToken{object: with(p11.CKA_KEY_TYPE, []byte{1, 2, 3}), can: cbc}, "no number"},
		"an attribute too short": {fakeToken{object: with(p11.CKA_DERIVE, []byte{}), can: cbc}, "derive"},
	} {
		t.Run(name, func(t *testing.T) {
			tok := Token{c: &c.token}
			list, err := tok.Objects(t.Context(), nil, func(int, int) {})
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			defer foreign.WipeAll(list)
			v, _ := list[0].Attrs.Get(p11.CKA_VALUE)
			switch o := list[0]; {
			case c.why == "" && (o.Err != nil || string(v) != "seventeen bytes !"):
				t.Errorf("%q, %v", v, o.Err)
			case c.why != "" && (o.Err == nil || !strings.Contains(o.Err.Error(), c.why)):
				t.Errorf("%d bytes, %v", len(v), o.Err)
			}
			if (c.token.key != nil) != c.token.gone {
				t.Error("the key that wraps is left behind")
			}
		})
	}
}

func TestTrim(t *testing.T) {
	for text, want := range map[string]string{"abc\x00\x00": "abc", "abc": "abc"} {
		if got, err := trim([]byte(text), 3); string(got) != want || err != nil {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ab", "abcd", "abc\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if got, err := trim([]byte(text), 3); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
	if _, ok := ecValue([]byte{0x30, 0x03, 2, 1, 0}); ok {
		t.Error("there is no key")
	}
}

// TestNumbers takes counts that no list has.
func TestNumbers(t *testing.T) {
	list := []uint64{1, 2, 3}
	for n, want := range map[uint64]int{0: 0, 2: 2, 4: 3, 1 << 63: 3, 1<<64 - 1: 3} {
		if got := numbers[p11.SlotID](list, n); len(got) != want {
			t.Errorf("%d of 3: %v", n, got)
		}
	}
}
