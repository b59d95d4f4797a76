package p11

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// The bounds of an SP800108Params.
const (
	maxKDFFields = 64
	maxKDFKeys   = 16
)

// SP800108Params is CK_SP800_108_KDF_PARAMS, or CK_SP800_108_FEEDBACK_KDF_PARAMS, which
// alone has an IV (PKCS#11 v3.1 §6.42.2).
type SP800108Params struct {
	PRF    MechanismType // of a MAC
	Fields []KDFField    // the data of the PRF, in their order
	IV     []byte        // of feedback mode
	Keys   []Attributes  // templates of more keys
}

// A KDFField is CK_PRF_DATA_PARAM: a part of the data of the PRF.
type KDFField struct {
	Type SP800108
	// Of a counter or a length: how it is written. The iteration variable is a counter in
	// counter mode, and has no width in the others, where it is what the PRF gave before.
	Width        uint64 // in bits
	LittleEndian bool
	Method       DKMLength    // of a length: what it counts
	Data         []byte       // of a byte array
	Key          ObjectHandle // of a key's value
}

// Makes are the key of the template and those of the parameter (PKCS#11 v3.1 §6.42.6).
func (v *SP800108Params) Makes(t Attributes) ([]Attributes, bool) {
	all := []Attributes{t}
	for _, k := range v.Keys {
		k = k.Clone()
		if !k.Has(CKA_CLASS) {
			k.SetUlong(CKA_CLASS, uint64(CKO_SECRET_KEY))
		}
		if !k.Has(CKA_KEY_TYPE) {
			k.SetUlong(CKA_KEY_TYPE, uint64(CKK_GENERIC_SECRET))
		}
		all = append(all, k)
	}
	return all, true
}

// WithTemplate is the parameter with more keys that are as the template has the first,
// but for what they say themselves.
func (v *SP800108Params) WithTemplate(t Attributes) *SP800108Params {
	with := *v
	with.Keys = nil
	for _, k := range v.Keys {
		first := t.Clone()
		first.Delete(CKA_VALUE_LEN)
		with.Keys = append(with.Keys, first.Merge(k))
	}
	return &with
}

// Code reads or writes the fields. Those of the IV go with both structs.
func (v *SP800108Params) Code(c Coder) {
	c.Ulong((*uint64)(&v.PRF))
	if n, ok := codeCount(c, len(v.Fields), maxKDFFields); ok && v.Fields == nil && n > 0 {
		v.Fields = make([]KDFField, n)
	}
	for i := range v.Fields {
		v.Fields[i].code(c)
	}
	c.Bytes(&v.IV)
	if n, ok := codeCount(c, len(v.Keys), maxKDFKeys); ok && v.Keys == nil && n > 0 {
		v.Keys = make([]Attributes, n)
	}
	for i := range v.Keys {
		c.Template(&v.Keys[i])
	}
}

// codeCount reads or writes how long a list is, which has at most most elements.
func codeCount(c Coder, length int, most uint64) (uint64, bool) {
	n := uint64(length)
	if c.Ulong(&n); n > most {
		c.Refuse(Errorf(CKR_MECHANISM_PARAM_INVALID, "a list of %d in the parameter: it may have %d", n, most))
		return 0, false
	}
	return n, true
}

func (f *KDFField) code(c Coder) {
	c.Ulong((*uint64)(&f.Type))
	switch f.Type {
	case CK_SP800_108_BYTE_ARRAY:
		c.Bytes(&f.Data)
	case CK_SP800_108_KEY_HANDLE:
		c.Handle(&f.Key)
	case CK_SP800_108_DKM_LENGTH:
		c.Ulong((*uint64)(&f.Method))
		f.codeFormat(c)
	case CK_SP800_108_ITERATION_VARIABLE, CK_SP800_108_OPTIONAL_COUNTER:
		f.codeFormat(c)
	default:
		c.Refuse(Errorf(CKR_MECHANISM_PARAM_INVALID, "the type of a data field is not known: %d", uint64(f.Type)))
	}
}

func (f *KDFField) codeFormat(c Coder) {
	c.Bool(&f.LittleEndian)
	c.Ulong(&f.Width)
}

// The words of fields in text.
const (
	fieldIteration = "iteration"
	fieldCounter   = "counter"
	fieldLength    = "length"
	fieldSegments  = "segments"
	fieldKey       = "key"
)

// parse reads prf=sha256-hmac, fields=iteration:32+0x6c6162656c+0x00+length:32, iv=0x…
// and more=aes:32+generic-secret:64.
func (v *SP800108Params) parse(p *paramParser) {
	v.PRF = parseNamed(p, "prf", CKM_SHA256_HMAC, ParseMechanismType)
	v.IV = p.bytes("iv", emptyAbsent)
	fields, given := p.get("fields")
	switch {
	case !given && p.sample && p.mech == CKM_SP800_108_COUNTER_KDF:
		fields.value = "iteration:32+0x6c6162656c"
	case !given && p.sample:
		fields.value = "iteration+0x6c6162656c"
	case !given:
		p.fail("fields= is missing: what the PRF gets, such as iteration:32+0x6c6162656c+0x00+length:32")
		return
	}
	for _, s := range strings.Split(fields.value, "+") {
		f, ok := parseKDFField(s)
		if !ok {
			p.fail("fields=: %s is none of iteration, iteration:32, counter:32, length:32, segments:32, key:HANDLE and 0x with bytes, the numbers in bits, with le behind them if the lowest byte comes first", quoteWord(s))
			return
		}
		v.Fields = append(v.Fields, f)
	}
	more, given := p.get("more")
	if !given {
		return
	}
	for _, s := range strings.Split(more.value, "+") {
		k, err := parseMoreKey(s)
		if err != nil {
			p.fail("more=: %w", err)
			return
		}
		v.Keys = append(v.Keys, k)
	}
}

func parseKDFField(s string) (f KDFField, ok bool) {
	if digits, prefixed := cutHexPrefix(s); prefixed {
		b, err := hex.DecodeString(digits)
		return KDFField{Type: CK_SP800_108_BYTE_ARRAY, Data: b}, err == nil && len(b) > 0
	}
	name, number, numbered := strings.Cut(s, ":")
	if name == fieldKey {
		h, err := strconv.ParseUint(number, 0, 64)
		return KDFField{Type: CK_SP800_108_KEY_HANDLE, Key: ObjectHandle(h)}, err == nil
	}
	switch name {
	case fieldIteration:
		f.Type = CK_SP800_108_ITERATION_VARIABLE
		if !numbered {
			return f, true
		}
	case fieldCounter:
		f.Type = CK_SP800_108_OPTIONAL_COUNTER
	case fieldLength:
		f.Type, f.Method = CK_SP800_108_DKM_LENGTH, CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS
	case fieldSegments:
		f.Type, f.Method = CK_SP800_108_DKM_LENGTH, CK_SP800_108_DKM_LENGTH_SUM_OF_SEGMENTS
	default:
		return f, false
	}
	digits, little := strings.CutSuffix(number, "le")
	width, err := strconv.ParseUint(digits, 10, 8)
	f.LittleEndian, f.Width = little, width
	return f, err == nil && width > 0
}

// parseMoreKey reads the type of a key and its length in bytes, one of which may be
// missing.
func parseMoreKey(s string) (a Attributes, err error) {
	name, length, both := strings.Cut(s, ":")
	kt := KeyType(CKK_GENERIC_SECRET)
	if !both && strings.Trim(s, "0123456789") == "" {
		name, length, both = "", s, true
	}
	if name != "" {
		if kt, err = ParseKeyType(name); err != nil {
			return nil, err
		}
	}
	a.SetUlong(CKA_KEY_TYPE, uint64(kt))
	if both {
		n, err := parseNumber(length)
		if err != nil {
			return nil, err
		}
		a.SetUlong(CKA_VALUE_LEN, n)
	}
	return a, nil
}

func (v *SP800108Params) print(w *paramWriter) {
	if v.PRF != CKM_SHA256_HMAC {
		w.word("prf", v.PRF.Short())
	}
	var fields, more []string
	for _, f := range v.Fields {
		fields = append(fields, f.text())
	}
	w.word("fields", strings.Join(fields, "+"))
	if len(v.IV) > 0 {
		w.bytes("iv", v.IV)
	}
	for _, k := range v.Keys {
		kt, ok := k.KeyType()
		if !ok {
			kt = CKK_GENERIC_SECRET
		}
		s := kt.Short()
		if n, ok := k.Ulong(CKA_VALUE_LEN); ok {
			s += ":" + strconv.FormatUint(n, 10)
		}
		more = append(more, s)
	}
	if more != nil {
		w.word("more", strings.Join(more, "+"))
	}
}

func (f KDFField) text() string {
	name := fieldLength
	switch f.Type {
	case CK_SP800_108_BYTE_ARRAY:
		return "0x" + hex.EncodeToString(f.Data)
	case CK_SP800_108_KEY_HANDLE:
		return fieldKey + ":" + strconv.FormatUint(uint64(f.Key), 10)
	case CK_SP800_108_ITERATION_VARIABLE:
		if name = fieldIteration; f.Width == 0 {
			return name
		}
	case CK_SP800_108_OPTIONAL_COUNTER:
		name = fieldCounter
	default:
		if f.Method == CK_SP800_108_DKM_LENGTH_SUM_OF_SEGMENTS {
			name = fieldSegments
		}
	}
	name += ":" + strconv.FormatUint(f.Width, 10)
	if f.LittleEndian {
		name += "le"
	}
	return name
}

// check applies the tables of PKCS#11 v3.1 §6.42.3 to §6.42.5. The PRF is the token's to
// know.
func (v *SP800108Params) check(c checker) error {
	counted := map[SP800108]int{}
	for _, f := range v.Fields {
		counted[f.Type]++
		if err := f.check(c); err != nil {
			return err
		}
	}
	switch {
	case v.PRF.known() == "":
		return c.errorf("prf= is not known: %s", v.PRF.Short())
	case len(v.Fields) > maxKDFFields:
		return c.errorf("fields= has at most %d fields, not %d", maxKDFFields, len(v.Fields))
	case counted[CK_SP800_108_ITERATION_VARIABLE] != 1:
		return c.errorf("fields= has one iteration, not %d", counted[CK_SP800_108_ITERATION_VARIABLE])
	case counted[CK_SP800_108_OPTIONAL_COUNTER] > 1, counted[CK_SP800_108_DKM_LENGTH] > 1:
		return c.errorf("fields= has at most one counter and one length")
	case len(v.IV) > 0 && c.mech != CKM_SP800_108_FEEDBACK_KDF:
		return c.errorf("iv= is of the feedback mode alone")
	case len(v.IV) > maxKDFBytes:
		return c.errorf("iv= has at most %d bytes, not %d", maxKDFBytes, len(v.IV))
	case len(v.Keys) > maxKDFKeys:
		return c.errorf("more= has at most %d keys, not %d", maxKDFKeys, len(v.Keys))
	}
	return nil
}

// maxKDFBytes bounds the bytes of one field, and of the IV.
const maxKDFBytes = 4096

func (f KDFField) check(c checker) error {
	counts := c.mech == CKM_SP800_108_COUNTER_KDF
	widths, name := []uint64{8, 16, 24, 32}, fieldCounter
	switch f.Type {
	case CK_SP800_108_BYTE_ARRAY:
		if len(f.Data) == 0 || len(f.Data) > maxKDFBytes {
			return c.errorf("fields=: bytes are 1 to %d, not %d", maxKDFBytes, len(f.Data))
		}
		return nil
	case CK_SP800_108_KEY_HANDLE:
		if f.Key == 0 {
			return c.errorf("fields=: key: wants the handle of a key")
		}
		return nil
	case CK_SP800_108_ITERATION_VARIABLE:
		if name = fieldIteration; !counts {
			if f.Width != 0 {
				return c.errorf("fields=: iteration has no width here; write counter: for a counter")
			}
			return nil
		}
	case CK_SP800_108_OPTIONAL_COUNTER:
		if counts {
			return c.errorf("fields=: the counter is the iteration here")
		}
	case CK_SP800_108_DKM_LENGTH:
		if f.Method.known() == "" {
			return c.errorf("fields=: the method of a length is not known: %d", uint64(f.Method))
		}
		widths, name = []uint64{8, 16, 24, 32, 40, 48, 56, 64}, fieldLength
	default:
		return c.errorf("fields=: the type of a field is not known: %d", uint64(f.Type))
	}
	if !slices.Contains(widths, f.Width) {
		return c.errorf("fields=: %s has 8 to %d bits in whole bytes, not %d", name, widths[len(widths)-1], f.Width)
	}
	return nil
}
