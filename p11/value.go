package p11

import (
	"encoding/hex"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

const redacted = "[secret]"

// FormatValue returns the value of an attribute as its file shows it, "" if it is
// absent. Text is shown as it is where that is one printable line, and quoted
// otherwise. A secret is never shown. A value that is malformed for its kind is
// shown as invalid:0x…
func (a Attributes) FormatValue(t AttributeType) string {
	v, ok := a.Get(t)
	if !ok {
		return ""
	}
	if a.Secret(t) {
		return redacted
	}
	return a.formatValue(t, v, false)
}

// formatValue is formatValue for what the type of the key gives a name.
func (a Attributes) formatValue(t AttributeType, v []byte, full bool) string {
	if n, err := ToUlong(v); err == nil && KindOf(t) == KindParameterSet {
		kt, _ := a.KeyType()
		if name := parameterSet(kt, n); name != "" {
			return name
		}
	}
	return formatValue(t, v, full)
}

// formatValue formats also secrets if full; the package does so in tests only.
func formatValue(t AttributeType, v []byte, full bool) string {
	kind := KindOf(t)
	if checkValue(t, v) != nil {
		if kind == KindTemplate { // may hold a secret
			return "invalid"
		}
		return "invalid:0x" + hex.EncodeToString(v)
	}
	switch kind {
	case KindBool:
		return strconv.FormatBool(v[0] != CK_FALSE)
	case KindText:
		return formatText(string(v))
	case KindDate:
		if len(v) == 0 {
			return ""
		}
		return string(v[:4]) + "-" + string(v[4:6]) + "-" + string(v[6:])
	case KindCurve:
		if name := CurveName(v); name != "" {
			return name
		}
	case KindTemplate:
		inner, err := DecodeTemplate(v)
		if err != nil {
			break
		}
		return "{" + inner.text(textOptions{full: full}) + "}"
	case KindMechanismList:
		var names []string
		for _, m := range mechanismsIn(v) {
			names = append(names, m.Short())
		}
		return strings.Join(names, "+")
	}
	if kind.IsUlong() {
		n, _ := ToUlong(v)
		return formatUlong(kind, n)
	}
	return "0x" + hex.EncodeToString(v)
}

func formatText(s string) string {
	if s != "" && (s[0] == '"' || strings.TrimSpace(s) != s || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })) {
		return string(appendQuoted(nil, s))
	}
	return s
}

// ParseValue reads the value of one attribute as FormatValue shows it. Other
// ways of writing a value:
//
//   - booleans also as yes, no, 1, 0;
//   - numbers and enumerations in decimal or hexadecimal with 0x;
//     unavailable stands for CK_UNAVAILABLE_INFORMATION;
//   - byte arrays as hexadecimal digits with or without 0x, or as "characters";
//   - big integers as 0x… or in decimal;
//   - lists of mechanisms joined by +, in any spelling;
//   - parameter sets by name (ml-dsa-65, slh-dsa-sha2-128f, ml-kem-768);
//   - elliptic curves by name (secp256r1, p-256, prime256v1, ed25519 …).
//
// Errors name the attribute, and the value only if it cannot be a secret.
func ParseValue(t AttributeType, s string) ([]byte, error) {
	form := formBare
	switch {
	case strings.HasPrefix(s, `"`):
		v, n, err := unquote(s)
		if err == nil && n < len(s) {
			err = syntaxError("text after the closing double quote")
		}
		if err != nil {
			return nil, valueError(t, "%w", err)
		}
		s, form = v, formQuoted
	case KindOf(t) != KindText:
		s = strings.TrimSpace(s)
		if KindOf(t) == KindTemplate && strings.HasPrefix(s, "{") {
			n, err := closingBrace(s)
			if err == nil && n+1 < len(s) {
				err = syntaxError("text after the closing }")
			}
			if err != nil {
				return nil, valueError(t, "%w", err)
			}
			s, form = s[1:n], formBraces
		}
	}
	return parseValue(t, s, form, 0)
}

func valueError(t AttributeType, format string, args ...any) error {
	return Errorf(CKR_ATTRIBUTE_VALUE_INVALID, t.Short()+": "+format, args...)
}

// parseValue reads a value that the scanner or ParseValue has unquoted.
func parseValue(t AttributeType, s string, form wordForm, depth int) ([]byte, error) {
	kind := KindOf(t)
	if form == formBraces && kind != KindTemplate {
		return nil, valueError(t, "takes no template in braces")
	}
	switch kind {
	case KindBytes:
		return parseBytes(t, s, form)
	case KindText:
		return []byte(s), nil
	case KindBool:
		return parseBool(t, s)
	case KindBigInt:
		return parseBigInt(t, s)
	case KindDate:
		return parseDate(t, s)
	case KindCurve:
		if der, ok := CurveParams(s); ok {
			return der, nil
		}
		if _, ok := cutHexPrefix(s); !ok {
			return nil, valueError(t, "unknown curve %s; write secp256r1, secp384r1, ed25519 or 0x with the DER of the parameters", quoteWord(s))
		}
		return parseBytes(t, s, form)
	case KindTemplate:
		if depth >= MaxTemplateDepth {
			return nil, valueError(t, "templates stand too deep in templates")
		}
		a, err := parseTemplate(s, depth+1, nil)
		if err != nil {
			return nil, valueError(t, "%w", err)
		}
		return EncodeTemplate(a), nil
	case KindMechanismList:
		return parseMechanismList(t, s)
	}
	n, err := parseUlong(kind, s)
	if err != nil {
		return nil, valueError(t, "%w", err)
	}
	return Ulong(n), nil
}

func parseBytes(t AttributeType, s string, form wordForm) ([]byte, error) {
	digits, prefixed := cutHexPrefix(s)
	if form == formQuoted {
		if prefixed {
			return nil, valueError(t, "write hexadecimal without the quotes; in quotes stand characters")
		}
		return []byte(s), nil
	}
	b, err := decodeHex(digits)
	if err != nil || s == "" {
		return nil, valueError(t, `wants hexadecimal digits in pairs, such as 0x01ff, or characters in double quotes`)
	}
	return b, nil
}

// decodeHex is hex.DecodeString, which leaves a copy of half of the digits behind the
// result: they may be those of a key.
func decodeHex(digits string) ([]byte, error) {
	b := make([]byte, len(digits)/2)
	_, err := hex.Decode(b, unsafe.Slice(unsafe.StringData(digits), len(digits)))
	return b, err
}

func parseBool(t AttributeType, s string) ([]byte, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "1":
		return Bool(true), nil
	case "false", "no", "0":
		return Bool(false), nil
	}
	return nil, valueError(t, "wants true or false, not %s", quoteWord(s))
}

func parseBigInt(t AttributeType, s string) ([]byte, error) {
	digits, prefixed := cutHexPrefix(s)
	switch {
	case s == "":
		return []byte{}, nil
	case prefixed:
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		if b, err := decodeHex(digits); err == nil {
			return b, nil
		}
	case len(s) <= 80 && strings.Trim(s, "0123456789") == "":
		n, _ := new(big.Int).SetString(s, 10)
		if b := n.Bytes(); len(b) > 0 {
			return b, nil
		}
		return []byte{0}, nil
	}
	return nil, valueError(t, "wants 0x and hexadecimal digits, or a decimal number")
}

func parseDate(t AttributeType, s string) ([]byte, error) {
	if s == "" {
		return []byte{}, nil
	}
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return nil, valueError(t, "wants a date such as 2026-01-31, not %s", quoteWord(s))
	}
	return []byte(d.Format("20060102")), nil
}

func parseMechanismList(t AttributeType, s string) ([]byte, error) {
	list := []byte{}
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == '+' || isSeparator(r) }) {
		m, err := ParseMechanismType(w)
		if err != nil {
			return nil, valueError(t, "%w", err)
		}
		list = append(list, Ulong(m)...)
	}
	return list, nil
}

// Mechanisms returns the mechanisms of CKA_ALLOWED_MECHANISMS, and whether no others are
// allowed: an empty list, as openCryptoki's tokens of format 3.12 write, allows all.
func (a Attributes) Mechanisms() (list []MechanismType, restricted bool) {
	v, _ := a.Get(CKA_ALLOWED_MECHANISMS)
	return mechanismsIn(v), len(v) > 0
}

func mechanismsIn(v []byte) (list []MechanismType) {
	for ; len(v) >= 8; v = v[8:] {
		n, _ := ToUlong(v[:8])
		list = append(list, MechanismType(n))
	}
	return list
}

// checkValue says whether a value has the length and form of its kind.
func checkValue(t AttributeType, v []byte) error {
	kind := KindOf(t)
	switch {
	case kind.IsUlong():
		if len(v) != 8 {
			return valueError(t, "a CK_ULONG has 8 bytes, not %d", len(v))
		}
	case kind == KindBool:
		if len(v) != 1 || v[0] > CK_TRUE {
			return valueError(t, "a CK_BBOOL is one byte, 0 or 1")
		}
	case kind == KindDate:
		if len(v) == 0 {
			break
		}
		if _, err := time.Parse("20060102", string(v)); err != nil || len(v) != 8 {
			return valueError(t, "a CK_DATE is empty or 8 digits of a date")
		}
	case kind == KindMechanismList:
		if len(v)%8 != 0 {
			return valueError(t, "a list of CK_MECHANISM_TYPE has a multiple of 8 bytes, not %d", len(v))
		}
	case kind == KindTemplate:
		return checkTemplate(t, v, 1)
	}
	return nil
}

func checkTemplate(t AttributeType, v []byte, depth int) error {
	a, err := DecodeTemplate(v)
	if err != nil {
		return valueError(t, "%w", err)
	}
	if depth > MaxTemplateDepth {
		return valueError(t, "templates stand too deep in templates")
	}
	for _, o := range a {
		if KindOf(o.Type) == KindTemplate {
			err = checkTemplate(o.Type, o.Value, depth+1)
		} else {
			err = checkValue(o.Type, o.Value)
		}
		if err != nil {
			return valueError(t, "%w", err)
		}
	}
	return nil
}
