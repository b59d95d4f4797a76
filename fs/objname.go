package fs

import (
	"crypto/sha256"
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
// label it is the CKA_ID in hexadecimal, and without that the uid (objectRef). Where
// several objects that the caller may see would have one name, a private one has it
// before a public one, so that nobody without the PIN can put an object of his own in
// the place of the user's; then a label wins over a CKA_ID, and that over a uid; then
// the oldest has it. The others get ~ and their uid before the suffix. So does a name
// that is too long for a directory, after it is cut.

type classSuffix struct {
	class  p11.ObjectClass
	suffix string
}

// classSuffixes are the suffixes of the names of objects, by class.
func classSuffixes() [7]classSuffix {
	return [...]classSuffix{
		{p11.CKO_PRIVATE_KEY, ".key"}, {p11.CKO_PUBLIC_KEY, ".pub"}, {p11.CKO_CERTIFICATE, ".crt"}, {p11.CKO_SECRET_KEY, ".sec"},
		{p11.CKO_DATA, ".dat"}, {p11.CKO_DOMAIN_PARAMETERS, ".dom"}, {p11.CKO_HW_FEATURE, ".hw"},
	}
}

const otherSuffix = ".obj"

func suffix(class p11.ObjectClass) string {
	for _, c := range classSuffixes() {
		if c.class == class {
			return c.suffix
		}
	}
	return otherSuffix
}

// classOf is the class that a suffix stands for; ok is false for otherSuffix.
func classOf(suf string) (class p11.ObjectClass, ok bool) {
	for _, c := range classSuffixes() {
		if c.suffix == suf {
			return c.class, true
		}
	}
	return 0, false
}

// splitName splits a name into what is before the suffix, and the suffix.
func splitName(name string) (base, suf string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return "", "", false
	}
	base, suf = name[:i], name[i:]
	_, known := classOf(suf)
	return base, suf, known || suf == otherSuffix
}

// escape makes a file name of a label. What a directory or a terminal cannot have,
// a leading dot, % and ~ become %XX.
func escape(label string) string {
	if isPlain(label) {
		return label
	}
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

// isPlain says of a label of ASCII that none of it must be escaped.
func isPlain(label string) bool {
	for i := range len(label) {
		if label[i] >= utf8.RuneSelf || mustEscape(rune(label[i]), i == 0) {
			return false
		}
	}
	return true
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

// unescape is the label of a file name, if escape gives that name.
func unescape(name string) (label string, ok bool) {
	label, ok = decode(name)
	return label, ok && label != "" && escape(label) == name
}

// decode replaces %XX by the byte.
func decode(name string) (string, bool) {
	var b []byte
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b = append(b, name[i])
			continue
		}
		c, err := hex.DecodeString(name[i+1 : min(i+3, len(name))])
		if err != nil || len(c) != 1 {
			return "", false
		}
		b = append(b, c[0])
		i += 2
	}
	return string(b), true
}

// newLabel is the label of an object that is to have that name. A name that would
// be cut is refused, for the object would not be found under it.
func newLabel(name string) (string, error) {
	if len(name) > maxBase {
		return "", errLongName
	}
	label, ok := unescape(name)
	if !ok {
		return "", p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a new name is a label, without a leading dot and ~, and with %%25 for %%")
	}
	return label, nil
}

// An objectRef identifies an object, whoever looks and whatever its label: by the
// stored name of a token object, which is any bytes of any length, or by the handle
// of a session object.
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

// maxUID is the length of the longest uid.
const maxUID = 21

// What a uid begins with that is no stored name.
const (
	handleMark = 's' // of a session object
	hashMark   = 'h' // of a stored name that is too long
)

// uid is the reference as a part of a name. It is the stored name, escaped, where
// that is short. A mark at the beginning of a stored name is escaped too.
func (r objectRef) uid() string {
	if r.stored == "" {
		return string(handleMark) + strconv.FormatUint(uint64(r.handle), 16)
	}
	uid := escape(r.stored)
	if uid[0] == handleMark || uid[0] == hashMark {
		uid = fmt.Sprintf("%%%02X%s", uid[0], uid[1:])
	}
	if len(uid) > maxUID {
		sum := sha256.Sum256([]byte(r.stored))
		return string(hashMark) + hex.EncodeToString(sum[:8])
	}
	return uid
}

// A nameSource is what a name is made of.
type nameSource int

const (
	fromLabel nameSource = iota
	fromID
	fromUID
)

// maxBase keeps room for ~, a uid and a suffix in a name.
const maxBase = maxName - len("~") - maxUID - len(otherSuffix)

// A plainName is the name of an object whose name no other has.
type plainName struct {
	base, suffix string
	source       nameSource
	public       bool // the object is
	cut          bool // base is not whole, so that the full name is used
}

func (n plainName) String() string { return n.base + n.suffix }

func plainNameOf(i engine.ObjectInfo) plainName {
	n := plainName{suffix: suffix(i.Class), public: !i.Private}
	switch {
	case i.Label != "":
		n.base, n.source = escape(i.Label), fromLabel
	case len(i.ID) > 0:
		n.base, n.source = hex.EncodeToString(i.ID), fromID
	default:
		n.base, n.source = refOf(i).uid(), fromUID
	}
	if len(n.base) > maxBase {
		n.base, n.cut = cutName(n.base, maxBase), true
	}
	return n
}

// before says whether n has the name that both have, where o is of an older object.
func (n plainName) before(o plainName) bool {
	if n.public != o.public {
		return o.public
	}
	return n.source < o.source
}

// full is the name with the object's uid in it, which no other object has.
func (n plainName) full(ref objectRef) string { return n.base + "~" + ref.uid() + n.suffix }

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
