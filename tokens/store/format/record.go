package format

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
)

// A record is an object's name and attributes: u32 class (0), u32 number of
// attributes, the name, and the attributes: u32 type, u32 zero, u32 length, value.
// Six attributes have their CK_ULONG stored in 4 bytes (narrow).
const (
	recordHeader    = 16 // before the attributes
	attributeHeader = 12 // before the value

	// maxAttributes bounds the attributes of one object; PKCS#11 v3.2 knows about
	// 150 types.
	maxAttributes = 1024
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// narrow reports whether a non-empty value of type t has 8 bytes in memory and 4 in
// the file.
func narrow(t p11.AttributeType) bool {
	switch t {
	case p11.CKA_CLASS, p11.CKA_CERTIFICATE_TYPE, p11.CKA_KEY_TYPE,
		p11.CKA_MODULUS_BITS, p11.CKA_VALUE_BITS, p11.CKA_VALUE_LEN:
		return true
	}
	return false
}

// turn gives a value that is not narrow the byte order of memory, which is little
// endian, or takes it from there. Values of other lengths than their type has are
// kept as they are.
func turn(t p11.AttributeType, v []byte, order byteOrder) {
	if order == binary.LittleEndian {
		return
	}
	switch k := p11.KindOf(t); {
	case k.IsUlong() && len(v) == 8:
		slices.Reverse(v)
	case k == p11.KindMechanismList && len(v)%8 == 0:
		for n := range slices.Chunk(v, 8) {
			slices.Reverse(n)
		}
	}
}

// printRecord returns the record of an object. The caller wipes it.
func printRecord(n Name, attrs p11.Attributes, order byteOrder) (_ []byte, err error) {
	if len(attrs) > maxAttributes {
		return nil, p11.Errorf(p11.CKR_DEVICE_MEMORY, "the object has more than %d attributes", maxAttributes)
	}
	size := recordHeader
	for _, a := range attrs {
		size += attributeHeader + len(a.Value)
		if size > MaxObjectFile-fileHeader {
			return nil, errTooLarge()
		}
	}
	b := make([]byte, 4, size) // nothing becomes longer in the file
	b = order.AppendUint32(b, uint32(len(attrs)))
	b = append(b, n[:]...)
	if b, err = appendAttributes(b, attrs, order, 0); err != nil {
		secret.Wipe(b[:cap(b)])
		return nil, err
	}
	return b, nil
}

func errTooLarge() error {
	return p11.Errorf(p11.CKR_DEVICE_MEMORY, "the object is larger than %d bytes", MaxObjectFile)
}

// appendAttributes appends attributes as they stand in a record. depth is how many
// arrays of attributes they are in.
func appendAttributes(b []byte, attrs p11.Attributes, order byteOrder, depth int) (_ []byte, err error) {
	for _, a := range attrs {
		if uint64(a.Type) > math.MaxUint32 {
			return b, p11.Errorf(p11.CKR_ATTRIBUTE_TYPE_INVALID, "attribute %v cannot be stored", a.Type)
		}
		b = order.AppendUint32(b, uint32(a.Type))
		b = order.AppendUint32(b, 0)
		length := len(b)
		b = order.AppendUint32(b, 0)
		if b, err = appendValue(b, a, order, depth); err != nil {
			return b, err
		}
		order.PutUint32(b[length:], uint32(len(b)-length-4))
	}
	return b, nil
}

func appendValue(b []byte, a p11.Attribute, order byteOrder, depth int) ([]byte, error) {
	switch {
	case narrow(a.Type) && len(a.Value) > 0:
		v, err := p11.ToUlong(a.Value)
		if err != nil || v > math.MaxUint32 {
			return b, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "the value of %v cannot be stored: it must be below 2^32", a.Type)
		}
		return order.AppendUint32(b, uint32(v)), nil
	case p11.KindOf(a.Type) == p11.KindTemplate && depth < p11.MaxTemplateDepth:
		// What was no array of attributes in its file is none here.
		if inner, err := p11.DecodeTemplate(a.Value); err == nil {
			defer inner.Wipe()
			return appendAttributes(b, inner, order, depth+1)
		}
	}
	b = append(b, a.Value...)
	turn(a.Type, b[len(b)-len(a.Value):], order)
	return b, nil
}

// parseRecord reads a record to its end. Nothing of b is kept.
func parseRecord(b []byte, order byteOrder) (n Name, attrs p11.Attributes, err error) {
	if len(b) < recordHeader {
		return n, nil, damaged("%d bytes hold no object", len(b))
	}
	count := order.Uint32(b[4:])
	n, ok := ParseName(b[8:16])
	if !ok {
		return n, nil, damaged("no valid name inside")
	}
	b = b[recordHeader:]
	if count > maxAttributes || int(count)*attributeHeader > len(b) {
		return n, nil, damaged("%d attributes do not fit in %d bytes", count, len(b))
	}
	attrs, rest, err := parseAttributes(b, int(count), order, 0)
	if err == nil && len(rest) != 0 {
		attrs.Wipe()
		attrs, err = nil, damaged("%d bytes follow the attributes", len(rest))
	}
	return n, attrs, err
}

// parseAttributes reads count attributes, and returns what follows them. Those with plain
// values share one buffer. depth is how many arrays of attributes they are in.
func parseAttributes(b []byte, count int, order byteOrder, depth int) (attrs p11.Attributes, rest []byte, err error) {
	attrs = make(p11.Attributes, 0, count)
	values := make([]byte, 0, len(b)-count*attributeHeader+4*6)
	defer func() {
		if err != nil {
			attrs.Wipe()
			attrs = nil
		}
	}()
	for range count {
		if len(b) < attributeHeader {
			return attrs, nil, damaged("an attribute is cut off")
		}
		t := p11.AttributeType(order.Uint32(b))
		size := order.Uint32(b[8:])
		b = b[attributeHeader:]
		if uint64(size) > uint64(len(b)) {
			return attrs, nil, damaged("the value of %v is cut off", t)
		}
		if attrs.Has(t) {
			return attrs, nil, damaged("%v stands in it twice", t)
		}
		from := len(values)
		switch inner := nested(t, b[:size], order, depth); {
		case inner != nil:
			attrs = append(attrs, p11.Attribute{Type: t, Value: inner})
			b = b[size:]
			continue
		case !narrow(t) || size == 0:
			values = append(values, b[:size]...)
			turn(t, values[from:], order)
		case size == 4:
			values = binary.LittleEndian.AppendUint64(values, uint64(order.Uint32(b)))
		default:
			return attrs, nil, damaged("the value of %v has %d bytes, not 4", t, size)
		}
		attrs = append(attrs, p11.Attribute{Type: t, Value: values[from:len(values):len(values)]})
		b = b[size:]
	}
	return attrs, b, nil
}

// nested reads the value of an array of attributes, as programs since 3.16 write it: as
// it stands in memory then, or nil if it is another value.
func nested(t p11.AttributeType, b []byte, order byteOrder, depth int) []byte {
	if p11.KindOf(t) != p11.KindTemplate || depth >= p11.MaxTemplateDepth {
		return nil
	}
	count := 0
	for rest := b; len(rest) > 0; count++ {
		if len(rest) < attributeHeader || count == p11.MaxAttributes {
			return nil
		}
		size := order.Uint32(rest[8:])
		if rest = rest[attributeHeader:]; uint64(size) > uint64(len(rest)) {
			return nil
		}
		rest = rest[size:]
	}
	attrs, _, err := parseAttributes(b, count, order, depth+1)
	if err != nil {
		return nil
	}
	defer attrs.Wipe()
	return p11.EncodeTemplate(attrs)
}
