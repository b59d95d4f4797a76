package p11

import (
	"bytes"
	"encoding/binary"
	"slices"

	"p11fs/secret"
)

// An Attribute is CK_ATTRIBUTE. A CK_ULONG value is 8 bytes, little endian; a
// CK_BBOOL is 1 byte; an array of attributes is as EncodeTemplate makes it.
// Its text, printed with any verb, leaves secret values out.
type Attribute struct {
	Type  AttributeType
	Value []byte
}

// Attributes are the attributes of an object, or a template: each type once, in
// the order given. Methods with a value receiver change nothing; what they
// return as Attributes shares no memory with the receiver.
//
// Printed with any verb of fmt, or by slog or an encoder, Attributes leave
// secret values out. fmt calls no methods on unexported fields, so a struct
// that holds Attributes in one needs a Format or String of its own.
type Attributes []Attribute

// Ulong returns v as the value of an attribute.
func Ulong[T ~uint64](v T) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

// Bool returns b as the value of an attribute.
func Bool(b bool) []byte {
	if b {
		return []byte{CK_TRUE}
	}
	return []byte{CK_FALSE}
}

// ToUlong reads a CK_ULONG value.
func ToUlong(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "a CK_ULONG has 8 bytes, not %d", len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (a Attributes) index(t AttributeType) int {
	for i := range a {
		if a[i].Type == t {
			return i
		}
	}
	return -1
}

// Get returns the value of an attribute, which the caller does not change, and
// whether it is there.
func (a Attributes) Get(t AttributeType) ([]byte, bool) {
	if i := a.index(t); i >= 0 {
		return a[i].Value, true
	}
	return nil, false
}

// Has says whether the attribute is there.
func (a Attributes) Has(t AttributeType) bool { return a.index(t) >= 0 }

// Bool returns the value of a boolean attribute, false if it is absent.
func (a Attributes) Bool(t AttributeType) bool {
	v, _ := a.Get(t)
	return len(v) == 1 && v[0] != CK_FALSE
}

// Ulong returns the value of a CK_ULONG attribute, and whether it is there and
// well formed.
func (a Attributes) Ulong(t AttributeType) (uint64, bool) {
	v, _ := a.Get(t)
	if len(v) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(v), true
}

// Class returns CKA_CLASS.
func (a Attributes) Class() (ObjectClass, bool) {
	v, ok := a.Ulong(CKA_CLASS)
	return ObjectClass(v), ok
}

// KeyType returns CKA_KEY_TYPE.
func (a Attributes) KeyType() (KeyType, bool) {
	v, ok := a.Ulong(CKA_KEY_TYPE)
	return KeyType(v), ok
}

// Label returns CKA_LABEL, "" if it is absent. It may hold any bytes.
func (a Attributes) Label() string {
	v, _ := a.Get(CKA_LABEL)
	return string(v)
}

// Set gives the attribute a value, which becomes a's. The old value is not
// wiped.
func (a *Attributes) Set(t AttributeType, value []byte) {
	if i := a.index(t); i >= 0 {
		(*a)[i].Value = value
		return
	}
	*a = append(*a, Attribute{t, value})
}

// SetBool sets a boolean attribute.
func (a *Attributes) SetBool(t AttributeType, b bool) { a.Set(t, Bool(b)) }

// SetUlong sets a CK_ULONG attribute.
func (a *Attributes) SetUlong(t AttributeType, v uint64) { a.Set(t, Ulong(v)) }

// Delete takes the attribute out. Its value is not wiped.
func (a *Attributes) Delete(t AttributeType) {
	if i := a.index(t); i >= 0 {
		*a = slices.Delete(*a, i, i+1)
	}
}

// With returns a copy in which the attribute has the value.
func (a Attributes) With(t AttributeType, value []byte) Attributes {
	c := a.Clone()
	c.Set(t, bytes.Clone(value))
	return c
}

// Merge returns a copy to which other's attributes are added, and in which they
// win.
func (a Attributes) Merge(other Attributes) Attributes {
	c := make(Attributes, 0, len(a)+len(other))
	for _, o := range a {
		if v, ok := other.Get(o.Type); ok { // and o is not copied, which may be secret
			o.Value = v
		}
		c = append(c, Attribute{o.Type, append([]byte{}, o.Value...)})
	}
	for _, o := range other {
		if !a.Has(o.Type) {
			c.Set(o.Type, append([]byte{}, o.Value...))
		}
	}
	return c
}

// Clone returns a copy that shares nothing with a.
func (a Attributes) Clone() Attributes {
	c := make(Attributes, len(a))
	for i, o := range a {
		c[i] = Attribute{o.Type, append([]byte{}, o.Value...)}
	}
	return c
}

// Wipe overwrites every value, also those that others share.
func (a Attributes) Wipe() {
	for i := range a {
		secret.Wipe(a[i].Value)
	}
}

// WipeSecrets overwrites the values that are secret by their type (SecretValue), and
// returns the other attributes.
func (a Attributes) WipeSecrets() (others Attributes) {
	for _, x := range a {
		if SecretValue(x.Type) {
			secret.Wipe(x.Value)
			continue
		}
		others = append(others, x)
	}
	return others
}

// Match says whether every attribute of template is here with the same value,
// byte for byte (PKCS#11 v3.1 §5.7.5, C_FindObjectsInit). An empty template
// matches everything.
func (a Attributes) Match(template Attributes) bool {
	for _, t := range template {
		if v, ok := a.Get(t.Type); !ok || !bytes.Equal(v, t.Value) {
			return false
		}
	}
	return true
}
