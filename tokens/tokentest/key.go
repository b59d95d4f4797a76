package tokentest

import (
	"encoding/hex"
	"testing"

	"p11fs/p11"
	"p11fs/tokens"
)

// Hex decodes hexadecimal digits of a test vector.
func Hex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("bad test vector %q: %v", s, err)
	}
	return b
}

// Key returns a session object of the class, type and attributes, as an engine
// makes it, and drops it when the test ends.
func Key(t testing.TB, class p11.ObjectClass, kt p11.KeyType, more ...p11.Attribute) *tokens.Object {
	t.Helper()
	a := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(class)},
		{Type: p11.CKA_KEY_TYPE, Value: p11.Ulong(kt)},
	}
	for _, m := range more {
		a.Set(m.Type, append([]byte(nil), m.Value...))
	}
	return Object(t, a)
}

// Object returns a session object of the attributes, and checks when the test
// ends that nobody holds it any more.
func Object(t testing.TB, a p11.Attributes) *tokens.Object {
	t.Helper()
	o := tokens.NewObject(tokens.NewHandle(), "", a)
	drop(t, o)
	return o
}

// drop drops o when the test ends, and checks that nobody holds it any more.
func drop(t testing.TB, o *tokens.Object) {
	t.Helper()
	t.Cleanup(func() {
		o.Drop()
		// The last holder's Release wipes; none is left, so one more
		// must be one too many.
		defer func() {
			if recover() == nil {
				t.Errorf("an operation still holds its key")
			}
		}()
		o.Release()
	})
}

// Value is a CKA_VALUE.
func Value(b []byte) p11.Attribute { return p11.Attribute{Type: p11.CKA_VALUE, Value: b} }

// Secret is a secret key.
func Secret(t testing.TB, kt p11.KeyType, value []byte) *tokens.Object {
	t.Helper()
	return Key(t, p11.CKO_SECRET_KEY, kt, Value(value))
}
