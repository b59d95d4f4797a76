package wire

import (
	"encoding/binary"
	"errors"

	"p11fs/p11"
)

// form is how the protocol encodes the value of an attribute. It depends on a
// list in the client, not on the standard: everything that the list does not
// name goes as a byte array, booleans and numbers in the client's own byte
// order among them.
type form uint8

const (
	formBytes form = iota
	formByte
	formUlong
	formDate
	formMechanisms
	formTemplate
)

func formOf(t p11.AttributeType) form {
	switch t {
	case p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_TRUSTED, p11.CKA_SENSITIVE, p11.CKA_ENCRYPT, p11.CKA_DECRYPT,
		p11.CKA_WRAP, p11.CKA_UNWRAP, p11.CKA_SIGN, p11.CKA_SIGN_RECOVER, p11.CKA_VERIFY, p11.CKA_VERIFY_RECOVER,
		p11.CKA_DERIVE, p11.CKA_EXTRACTABLE, p11.CKA_LOCAL, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_ALWAYS_SENSITIVE,
		p11.CKA_MODIFIABLE, p11.CKA_COPYABLE, 0x200 /* CKA_SECONDARY_AUTH */, p11.CKA_ALWAYS_AUTHENTICATE,
		p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_RESET_ON_INIT, p11.CKA_HAS_RESET, p11.CKA_COLOR:
		return formByte
	case p11.CKA_CLASS, p11.CKA_CERTIFICATE_TYPE, p11.CKA_CERTIFICATE_CATEGORY, p11.CKA_JAVA_MIDP_SECURITY_DOMAIN,
		p11.CKA_KEY_TYPE, p11.CKA_MODULUS_BITS, p11.CKA_PRIME_BITS, p11.CKA_SUBPRIME_BITS, p11.CKA_VALUE_BITS,
		p11.CKA_VALUE_LEN, p11.CKA_KEY_GEN_MECHANISM, 0x201 /* CKA_AUTH_PIN_FLAGS */, p11.CKA_HW_FEATURE_TYPE,
		p11.CKA_PIXEL_X, p11.CKA_PIXEL_Y, p11.CKA_RESOLUTION, p11.CKA_CHAR_ROWS, p11.CKA_CHAR_COLUMNS,
		p11.CKA_BITS_PER_PIXEL, p11.CKA_MECHANISM_TYPE:
		return formUlong
	case p11.CKA_START_DATE, p11.CKA_END_DATE:
		return formDate
	case p11.CKA_ALLOWED_MECHANISMS:
		return formMechanisms
	case p11.CKA_WRAP_TEMPLATE, p11.CKA_UNWRAP_TEMPLATE, p11.CKA_DERIVE_TEMPLATE,
		p11.CKA_ENCAPSULATE_TEMPLATE, p11.CKA_DECAPSULATE_TEMPLATE:
		return formTemplate
	}
	return formBytes
}

// IsTemplate says whether values of t are templates on the wire, which clients
// up to protocol 0 cannot read.
func IsTemplate(t p11.AttributeType) bool { return formOf(t) == formTemplate }

// templateEntry is sizeof(CK_ATTRIBUTE), by which clients count the length of a
// template.
const templateEntry = 24

// An Attribute is one attribute of `aA`. Value has the engine's layout:
// numbers as 8 bytes little endian.
type Attribute struct {
	Type   p11.AttributeType
	Valid  bool // false: CK_UNAVAILABLE_INFORMATION, no value
	Null   bool // a byte array without a pointer
	Length uint32
	Value  []byte
	Nested []Attribute // of a template
}

// Attributes reads `aA`.
func (r *Reader) Attributes() []Attribute { return r.attributes(0) }

func (r *Reader) attributes(depth int) []Attribute {
	n := r.u32()
	// An attribute has at least type and validity: 5 bytes.
	if depth > maxDepth || uint64(n)*5 > uint64(len(r.b)) {
		r.fail("template of %d attributes, %d bytes there, nested %d deep", n, len(r.b), depth)
		return nil
	}
	if !r.count(n) {
		return nil
	}
	list := make([]Attribute, 0, n)
	for range n {
		a := r.attribute(depth)
		if r.valuesRead += (depth + 1) * len(a.Value); r.valuesRead > p11.MaxTemplateBytes {
			r.refuse(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "values of more than %d bytes", p11.MaxTemplateBytes))
		}
		if r.err != nil {
			return nil
		}
		list = append(list, a)
	}
	return list
}

// count reports whether a message may have n attributes more.
func (r *Reader) count(n uint32) bool {
	if int(n) > p11.MaxAttributes-r.attributesRead {
		r.refuse(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "more than %d attributes", p11.MaxAttributes))
		return false
	}
	r.attributesRead += int(n)
	return true
}

func (r *Reader) attribute(depth int) (a Attribute) {
	a.Type = p11.AttributeType(r.u32())
	switch v := r.Byte(); v {
	case 0:
		return a
	case 1:
		a.Valid = true
	default:
		r.fail("validity byte %#x", v)
		return a
	}
	a.Length = r.u32()
	switch formOf(a.Type) {
	case formByte:
		a.Value = r.take(1)
		a.Value = a.Value[:min(len(a.Value), int(a.Length))]
	case formUlong:
		r.number(&a)
	case formMechanisms:
		n := r.u32()
		switch {
		case uint64(n)*8 > uint64(len(r.b)):
			r.fail("list of %d mechanisms, %d bytes there", n, len(r.b))
			return a
		case 8*int(n) > p11.MaxTemplateBytes:
			r.refuse(p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "a list of %d mechanisms", n))
			return a
		}
		a.Value = make([]byte, 0, 8*n)
		for range n {
			a.Value = binary.LittleEndian.AppendUint64(a.Value, r.Ulong())
		}
	case formTemplate:
		a.Nested = r.attributes(depth + 1)
	default: // bytes and dates
		if first, ok := r.peek32(); ok && p11.KindOf(a.Type).IsUlong() && a.Length == 8 && first != 8 && first != null {
			r.number(&a) // a later client, which knows the type as a number
			return a
		}
		a.Value, a.Null = r.bytes()
		if p11.KindOf(a.Type).IsUlong() && len(a.Value) == 4 {
			a.Value = binary.LittleEndian.AppendUint64(nil, uint64(binary.LittleEndian.Uint32(a.Value)))
		}
	}
	return a
}

// number reads a CK_ULONG, also where another release sends it as a byte array.
func (r *Reader) number(a *Attribute) {
	if first, ok := r.peek32(); ok && first == a.Length && (first == 4 || first == 8) {
		b, _ := r.bytes()
		a.Value = make([]byte, 8)
		copy(a.Value, b)
		return
	}
	v := r.Ulong()
	if a.Length != 0 {
		a.Value = binary.LittleEndian.AppendUint64(nil, v)
	}
}

// Template turns what a client sent into the engine's attributes.
// Attributes without a value, and one type with two values, give
// CKR_ATTRIBUTE_VALUE_INVALID and CKR_TEMPLATE_INCONSISTENT.
func Template(list []Attribute) (p11.Attributes, error) {
	var out p11.Attributes
	for _, a := range list {
		if !a.Valid || (a.Null && a.Length != 0) {
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%v has no value", a.Type)
		}
		v := a.Value
		if formOf(a.Type) == formTemplate {
			inner, err := Template(a.Nested)
			if err != nil {
				return nil, err
			}
			v = p11.EncodeTemplate(inner)
		}
		if v == nil {
			v = []byte{}
		}
		if old, ok := out.Get(a.Type); ok && string(old) != string(v) {
			return nil, p11.Errorf(p11.CKR_TEMPLATE_INCONSISTENT, "%v is given twice", a.Type)
		}
		out.Set(a.Type, v)
	}
	return out, nil
}

// Wire turns an attribute of the engine into one for a reply.
func Wire(t p11.AttributeType, value []byte) (Attribute, error) {
	a := Attribute{Type: t, Valid: true, Length: uint32(len(value)), Value: value}
	if formOf(t) != formTemplate {
		return a, nil
	}
	inner, err := p11.DecodeTemplate(value)
	if err != nil {
		return a, err
	}
	for _, i := range inner {
		n, err := Wire(i.Type, i.Value)
		if err != nil {
			return a, err
		}
		a.Nested = append(a.Nested, n)
	}
	a.Length = uint32(templateEntry * len(a.Nested))
	return a, nil
}

// Placeholder is the attribute of a reply to a question for the length only.
func (a Attribute) Placeholder() Attribute {
	p := Attribute{Type: a.Type, Valid: true, Length: a.Length}
	switch formOf(a.Type) {
	case formByte:
		p.Value = []byte{0}
	case formUlong:
		p.Value = make([]byte, 8)
	case formBytes, formDate:
		p.Null = true
	}
	return p
}

// Attributes writes `aA`.
func (w *Writer) Attributes(list []Attribute) {
	w.u32(uint32(len(list)))
	for _, a := range list {
		w.attribute(a)
	}
}

func (w *Writer) attribute(a Attribute) {
	w.u32(uint32(a.Type))
	if !a.Valid {
		w.byte(0)
		return
	}
	w.byte(1)
	w.u32(a.Length)
	switch formOf(a.Type) {
	case formByte:
		w.byte(append(a.Value[:len(a.Value):len(a.Value)], 0)[0])
	case formUlong:
		var b [8]byte
		copy(b[:], a.Value)
		w.Ulong(binary.LittleEndian.Uint64(b[:]))
	case formMechanisms:
		w.u32(uint32(len(a.Value) / 8))
		for b := a.Value; len(b) >= 8; b = b[8:] {
			w.Ulong(binary.LittleEndian.Uint64(b))
		}
	case formTemplate:
		w.Attributes(a.Nested)
	default:
		if a.Null || (formOf(a.Type) == formDate && len(a.Value) == 0) {
			w.u32(null)
			return
		}
		w.bytes(a.Value)
	}
}

// A Wanted is one attribute of `fA`: what C_GetAttributeValue asks for.
type Wanted struct {
	Type   p11.AttributeType
	Room   uint32 // bytes; 0 asks for the length
	Nested []Wanted
	// HasNested says that the client sent a nested list, even an empty one.
	HasNested bool
}

// Wanted reads `fA`, which is the last value of its call. Whether lists nest
// depends on the client's release, so it is read by what fits exactly.
func (r *Reader) Wanted() []Wanted {
	n := r.u32()
	if uint64(n)*8 > uint64(len(r.b)) {
		r.fail("%d attributes wanted, %d bytes there", n, len(r.b))
		return nil
	}
	if r.err != nil {
		return nil
	}
	type rule func(Wanted) bool
	never := func(Wanted) bool { return false }
	always := func(w Wanted) bool { return IsTemplate(w.Type) }
	withRoom := func(w Wanted) bool { return IsTemplate(w.Type) && w.Room > 0 }
	rules := []rule{never, always}
	if r.protocol >= V2 {
		rules = []rule{never, withRoom, always}
	}
	if r.protocol == V0 {
		rules = rules[:1]
	}
	for _, nests := range rules {
		try := Reader{b: r.b, protocol: r.protocol}
		list := try.wanted(n, nests, 0)
		err := try.End()
		if err == nil {
			r.b = nil
			return list
		}
		if errors.Is(err, p11.CKR_TEMPLATE_INCONSISTENT) {
			r.refuse(err)
			return nil
		}
	}
	r.fail("attributes wanted do not fit the message")
	return nil
}

func (r *Reader) wanted(n uint32, nests func(Wanted) bool, depth int) []Wanted {
	if depth > maxDepth || uint64(n)*8 > uint64(len(r.b)) {
		r.fail("%d attributes wanted, %d bytes there, nested %d deep", n, len(r.b), depth)
		return nil
	}
	if !r.count(n) {
		return nil
	}
	list := make([]Wanted, 0, n)
	for range n {
		w := Wanted{Type: p11.AttributeType(r.u32()), Room: r.u32()}
		if nests(w) {
			w.HasNested = true
			w.Nested = r.wanted(r.u32(), nests, depth+1)
		}
		if r.err != nil {
			return nil
		}
		list = append(list, w)
	}
	return list
}
