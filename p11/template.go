package p11

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
)

// The bounds of a template, in text and on the wire.
const (
	MaxAttributes    = 512     // more than all the standard's attributes
	MaxTemplateDepth = 4       // templates in templates
	MaxTemplateBytes = 4 << 20 // of all values together
)

// ParseTemplate reads attributes such as
//
//	class=private-key key-type=rsa label="web server" id=0x01 sign=true
//
// Words stand apart by blanks or one comma. A name is the standard's in either
// spelling, or a number (0x80000001). A value is bare, or in double quotes
// with the escapes \\ \" \n \r \t \xHH, or in single quotes as it is, or a template in braces; ParseValue says how each
// kind is written. Behind := all is the value, as if in quotes, to the end of the text: it
// is for text that is not known, such as that of a shell's variable. The text is wholly
// free of meaning beyond that: no default is filled in, nothing is checked but names and forms.
//
// Errors wrap CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_TYPE_INVALID,
// CKR_ATTRIBUTE_VALUE_INVALID or CKR_TEMPLATE_INCONSISTENT, are one line, name
// the word at fault and hold no value of a secret attribute.
func ParseTemplate(s string) (Attributes, error) { return parseTemplate(s, 0, nil) }

// ParseTemplateAnd is ParseTemplate for a text in which words of these names, which
// are no attributes, may be too. The value of each is put into the string, which is
// empty before.
func ParseTemplateAnd(s string, words map[string]*string) (Attributes, error) {
	return parseTemplate(s, 0, words)
}

func parseTemplate(s string, depth int, words map[string]*string) (Attributes, error) {
	p := templateParser{depth: depth}
	sc := scanner{rest: s}
	for {
		w, ok, err := sc.next()
		if value := words[w.name]; err == nil && ok && value != nil {
			err = w.into(value)
		} else if err == nil && ok {
			err = p.add(w)
			sc.quiet = p.secret
		}
		if err != nil {
			p.attrs.Wipe()
			return nil, err
		}
		if !ok {
			return p.attrs, nil
		}
	}
}

// into puts the word's value where there is none yet.
func (w word) into(value *string) error {
	if *value != "" || w.value == "" {
		return syntaxError("%s is given twice, or without a value", w.name)
	}
	*value = w.value
	return nil
}

// A templateParser gathers attributes from words.
type templateParser struct {
	attrs  Attributes
	depth  int
	secret bool // a secret value was read: a stray word may be part of it
}

func (p *templateParser) add(w word) error {
	t, err := ParseAttributeType(w.name)
	switch {
	case err != nil && p.secret:
		return Errorf(CKR_ATTRIBUTE_TYPE_INVALID, "word %d is no attribute; put a value with blanks or commas in double quotes", w.number)
	case err != nil && !w.hasValue:
		return Errorf(CKR_ATTRIBUTE_TYPE_INVALID, "word %d, %s, is no attribute with a value (name=value)", w.number, quoteWord(w.name))
	case err != nil:
		return fmt.Errorf("word %d: %w", w.number, err)
	case !w.hasValue:
		return syntaxError("word %d, %s: =value is missing", w.number, quoteWord(w.name))
	case p.attrs.Has(t):
		return Errorf(CKR_TEMPLATE_INCONSISTENT, "%s is given twice", t.Short())
	case len(p.attrs) == MaxAttributes:
		return Errorf(CKR_TEMPLATE_INCONSISTENT, "more than %d attributes", MaxAttributes)
	}
	p.secret = p.secret || SecretValue(t)
	v, err := parseValue(t, w.value, w.form, p.depth)
	if err != nil {
		return err
	}
	p.attrs = append(p.attrs, Attribute{t, v})
	return nil
}

// Secret says whether the attribute's value is one that must not be seen: a
// SecretValue, except the CKA_VALUE of a certificate or a public key.
func (a Attributes) Secret(t AttributeType) bool {
	if t == CKA_VALUE {
		if c, ok := a.Class(); ok && (c == CKO_CERTIFICATE || c == CKO_PUBLIC_KEY) {
			return false
		}
	}
	return SecretValue(t)
}

// Text returns the attributes as ParseTemplate reads them, in their order, on
// one line. Secret values are left out with their names.
func (a Attributes) Text() string { return a.text(textOptions{}) }

type textOptions struct {
	full bool // print secrets: tests only
	mark bool // print name=[secret] for them
}

func (a Attributes) text(o textOptions) string {
	var b []byte
	for _, x := range a {
		secret := !o.full && a.Secret(x.Type)
		if secret && !o.mark {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, x.Type.Short()...), '=')
		if secret {
			b = append(b, redacted...)
			continue
		}
		b = a.appendValue(b, x, o.full)
	}
	return string(b)
}

// appendValue appends a value as it stands in a template.
func (a Attributes) appendValue(b []byte, x Attribute, full bool) []byte {
	switch KindOf(x.Type) {
	case KindText:
		if isBare(string(x.Value)) {
			return append(b, x.Value...)
		}
		return appendQuoted(b, string(x.Value))
	case KindTemplate:
		return append(b, formatValue(x.Type, x.Value, full)...)
	}
	v := a.formatValue(x.Type, x.Value, full)
	if v == "" {
		v = `""`
	}
	return append(b, v...)
}

// Validate says whether each type stands once and each value has the length
// and form of its kind. It knows nothing of classes.
func (a Attributes) Validate() error {
	if len(a) > MaxAttributes {
		return Errorf(CKR_TEMPLATE_INCONSISTENT, "more than %d attributes", MaxAttributes)
	}
	size := 0
	for i, x := range a {
		if size += len(x.Value); size > MaxTemplateBytes {
			return Errorf(CKR_TEMPLATE_INCONSISTENT, "values of more than %d bytes", MaxTemplateBytes)
		}
		if a[:i].Has(x.Type) {
			return Errorf(CKR_TEMPLATE_INCONSISTENT, "%s is given twice", x.Type.Short())
		}
		if err := checkValue(x.Type, x.Value); err != nil {
			return err
		}
	}
	return nil
}

// EncodeTemplate returns the value of an attribute of KindTemplate, such as
// CKA_WRAP_TEMPLATE. For each attribute stand its type and the length of its
// value, 8 bytes each, little endian, and the value.
func EncodeTemplate(a Attributes) []byte {
	b := []byte{}
	for _, x := range a {
		b = binary.LittleEndian.AppendUint64(b, uint64(x.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(x.Value)))
		b = append(b, x.Value...)
	}
	return b
}

// DecodeTemplate reads what EncodeTemplate returns. The attributes share no
// memory with b.
func DecodeTemplate(b []byte) (Attributes, error) {
	var a Attributes
	for len(b) > 0 {
		if len(b) < 16 {
			return nil, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "template cut off")
		}
		t := AttributeType(binary.LittleEndian.Uint64(b))
		n := binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
		if n > uint64(len(b)) {
			return nil, Errorf(CKR_ATTRIBUTE_VALUE_INVALID, "template cut off")
		}
		if a.Has(t) {
			return nil, Errorf(CKR_TEMPLATE_INCONSISTENT, "%s is given twice", t.Short())
		}
		if len(a) == MaxAttributes {
			return nil, Errorf(CKR_TEMPLATE_INCONSISTENT, "more than %d attributes", MaxAttributes)
		}
		a = append(a, Attribute{t, append([]byte{}, b[:n]...)})
		b = b[n:]
	}
	return a, nil
}

// String returns the attributes as Text does, with [secret] in the place of
// each secret value.
func (a Attributes) String() string { return a.text(textOptions{mark: true}) }

// Format prints String for every verb, so that none shows a secret.
func (a Attributes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// LogValue gives slog what String returns.
func (a Attributes) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText gives encoders what String returns.
func (a Attributes) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// String returns name=value, with [secret] for a SecretValue.
func (x Attribute) String() string { return Attributes{x}.String() }

// Format prints String for every verb, so that none shows a secret.
func (x Attribute) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, x.String()) }

// LogValue gives slog what String returns.
func (x Attribute) LogValue() slog.Value { return slog.StringValue(x.String()) }

// MarshalText gives encoders what String returns.
func (x Attribute) MarshalText() ([]byte, error) { return []byte(x.String()), nil }
