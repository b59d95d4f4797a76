package fs

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"p11fs/engine"
	"p11fs/p11"
)

// The names of objects in a directory.
//
// An object's name is its label, escaped, and a suffix for its class. Without a
// label it is the CKA_ID in hexadecimal, without that the stored name. Where
// several objects that the caller may see would have one name, the oldest
// has it, and the others get ~ and their stored name before the suffix. A name
// too long for a directory is cut, and has the ~ too.

// suffix of the names of objects of that class.
func suffix(class p11.ObjectClass) string {
	switch class {
	case p11.CKO_PRIVATE_KEY:
		return ".key"
	case p11.CKO_PUBLIC_KEY:
		return ".pub"
	case p11.CKO_CERTIFICATE:
		return ".crt"
	case p11.CKO_SECRET_KEY:
		return ".sec"
	case p11.CKO_DATA:
		return ".dat"
	case p11.CKO_DOMAIN_PARAMETERS:
		return ".dom"
	case p11.CKO_HW_FEATURE:
		return ".hw"
	}
	return otherSuffix
}

const otherSuffix = ".obj"

// classOf is the class that a suffix stands for; ok is false for otherSuffix.
func classOf(suf string) (class p11.ObjectClass, ok bool) {
	for _, c := range []p11.ObjectClass{
		p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY, p11.CKO_CERTIFICATE, p11.CKO_SECRET_KEY,
		p11.CKO_DATA, p11.CKO_DOMAIN_PARAMETERS, p11.CKO_HW_FEATURE,
	} {
		if suffix(c) == suf {
			return c, true
		}
	}
	return 0, false
}

// splitName takes a name into what stands before the suffix, and the suffix.
func splitName(name string) (base, suf string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", "", false
	}
	base, suf = name[:i], name[i:]
	_, known := classOf(suf)
	return base, suf, known || suf == otherSuffix
}

// escape makes a file name of a label: what a directory or a terminal cannot
// have, a leading dot, the sign of escapes and the sign of cut and double names
// become %XX.
func escape(label string) string {
	var b strings.Builder
	for i := 0; i < len(label); {
		r, n := utf8.DecodeRuneInString(label[i:])
		if r == utf8.RuneError && n == 1 || mustEscape(r, i == 0) {
			for _, c := range []byte(label[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		} else {
			b.WriteString(label[i : i+n])
		}
		i += n
	}
	return b.String()
}

func mustEscape(r rune, first bool) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0, r == '/', r == '%', r == '~':
		return true
	case r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // line ends and changes of direction
		return true
	}
	return first && r == '.'
}

// unescape is the label of a file name, if escape would give that name.
func unescape(name string) (label string, ok bool) {
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b = append(b, name[i])
			continue
		}
		if i+3 > len(name) {
			return "", false
		}
		c, err := hex.DecodeString(name[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b = append(b, c[0])
		i += 2
	}
	label = string(b)
	return label, label != "" && escape(label) == name
}

// newLabel is the label of what is to have that name. A name that would be cut is
// refused: the file would not be found under it.
func newLabel(name string) (string, error) {
	if len(name) > maxBase {
		return "", errLongName
	}
	label, ok := unescape(name)
	if !ok {
		return "", p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a new name is a label: no leading dot, no ~, and %% only as %%25")
	}
	return label, nil
}

// An objectRef is who an object is, whoever looks and whatever its label: the
// stored name of a token object, or the handle of a session object.
type objectRef struct {
	stored string
	handle p11.ObjectHandle
}

func refOf(i engine.ObjectInfo) objectRef {
	if i.Name != "" {
		return objectRef{stored: i.Name}
	}
	return objectRef{handle: i.Handle}
}

// uid is the reference as a part of a name.
func (r objectRef) uid() string {
	if r.stored != "" {
		return escape(r.stored)
	}
	return "s" + strconv.FormatUint(uint64(r.handle), 16)
}

// parseUID is the reverse of uid.
func parseUID(s string) objectRef {
	if stored, ok := unescape(s); ok && !strings.HasPrefix(s, "s") {
		return objectRef{stored: stored}
	} else if h, err := strconv.ParseUint(strings.TrimPrefix(s, "s"), 16, 64); err == nil && h != 0 && strings.HasPrefix(s, "s") {
		return objectRef{handle: p11.ObjectHandle(h)}
	} else if ok {
		return objectRef{stored: stored}
	}
	return objectRef{}
}

// rank says what a name is made of: labels win over identifiers, and those over
// stored names.
type rank int

const (
	byLabel rank = iota
	byID
	byUID
)

// maxBase keeps room for ~, a uid and a suffix in a name.
const maxBase = maxName - 26

// plainName is the name of an object that shares it with none. cut says that it
// is not whole, so that the full name is to be used.
func plainName(i engine.ObjectInfo) (base string, r rank, cut bool) {
	switch {
	case i.Label != "":
		base, r = escape(i.Label), byLabel
	case len(i.ID) > 0:
		base, r = hex.EncodeToString(i.ID), byID
	default:
		base, r = refOf(i).uid(), byUID
	}
	if len(base) > maxBase {
		return cutName(base, maxBase), r, true
	}
	return base, r, false
}

// cutName shortens an escaped name, not within an escape or a character.
func cutName(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	for k := 1; k <= 2 && n-k >= 0; k++ {
		if s[n-k] == '%' {
			return s[:n-k]
		}
	}
	return s[:n]
}

// fullName is the name that no other object has.
func fullName(i engine.ObjectInfo) string {
	base, _, _ := plainName(i)
	return base + "~" + refOf(i).uid() + suffix(i.Class)
}
