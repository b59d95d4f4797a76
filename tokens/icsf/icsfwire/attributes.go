package icsfwire

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"p11fs/p11"
)

// The two forms of an attribute's value.
const (
	valueOctets = contextual
	valueNumber = contextual | 1
)

// maxAttributes bounds those of one object.
const maxAttributes = 512

// Numeric says whether an attribute goes over the wire as a number. All others are bytes.
func Numeric(t p11.AttributeType) bool {
	switch t {
	case p11.CKA_CLASS, p11.CKA_CERTIFICATE_TYPE, p11.CKA_KEY_TYPE, p11.CKA_MODULUS_BITS, p11.CKA_VALUE_LEN, p11.CKA_KEY_GEN_MECHANISM:
		return true
	}
	return false
}

// CheckAttributes says whether attributes can go over the wire: types and numbers have 32
// bits.
func CheckAttributes(a p11.Attributes) error {
	for _, x := range a {
		if uint64(x.Type) > 1<<32-1 {
			return p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "ICSF has no attributes with a type above 32 bits")
		}
		if v, err := p11.ToUlong(x.Value); Numeric(x.Type) && (err != nil || v > 1<<32-1 && v != p11.Unavailable) {
			return p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "ICSF has no number above 32 bits for %s", x.Type.Short())
		}
	}
	return nil
}

// addAttributes writes attributes, which have been checked.
func addAttributes(b *cryptobyte.Builder, a p11.Attributes) {
	for _, x := range a {
		b.AddASN1(tagged(tagSequence), func(b *cryptobyte.Builder) {
			addNumber(b, tagInteger, int(int32(x.Type)))
			if v, err := p11.ToUlong(x.Value); err == nil && Numeric(x.Type) {
				addNumber(b, valueNumber, int(int32(v)))
			} else {
				addBytes(b, valueOctets, x.Value)
			}
		})
	}
}

// readAttributes reads attributes, whose values it copies. Of two of a type the first counts.
func readAttributes(e elements) (a p11.Attributes, err error) {
	defer func() {
		if err != nil {
			a.Wipe()
			a = nil
		}
	}()
	for len(e) > 0 {
		one, err := e.want(tagSequence)
		if err != nil {
			return a, err
		}
		in := elements(one)
		t, err := in.number(tagInteger)
		if err != nil {
			return a, err
		}
		tag, body, err := in.next()
		if err != nil {
			return a, err
		}
		at := p11.AttributeType(uint32(t))
		var value []byte
		switch tag {
		case valueOctets:
			value = append([]byte{}, body...)
		case valueNumber:
			n, err := numberOf(body)
			if err != nil {
				return a, err
			}
			value = p11.Ulong(uint64(uint32(n)))
			if n == -1 {
				value = p11.Ulong(p11.Unavailable)
			}
		default:
			return a, bad(fmt.Sprintf("the value of attribute %#x has the tag %#x", uint32(t), tag))
		}
		if len(a) == maxAttributes {
			return a, bad("there are too many attributes")
		}
		if !a.Has(at) {
			a = append(a, p11.Attribute{Type: at, Value: value})
		}
	}
	return a, nil
}
