package p11

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A word is one item of a template or of a mechanism's parameters: a name
// alone, name=bare, name="quoted", name='quoted', name={template} or name:=all the rest.
type word struct {
	number   int // counted from 1
	name     string
	hasValue bool
	value    string // unescaped; without the braces
	form     wordForm
}

type wordForm int

const (
	formBare wordForm = iota
	formQuoted
	formBraces
)

// A scanner splits text at blanks and commas into words. Its errors name no
// values.
type scanner struct {
	rest  string
	count int
	comma bool // a comma was read and no word since
	quiet bool // names may be parts of a secret: errors only count
}

// place says where a word stands.
func (s *scanner) place(w *word) string {
	if s.quiet {
		return "word " + strconv.Itoa(w.number)
	}
	return "word " + strconv.Itoa(w.number) + ", " + quoteWord(w.name)
}

// next returns the next word; ok is false at the end.
func (s *scanner) next() (w word, ok bool, err error) {
	if err := s.separator(); err != nil {
		return word{}, false, err
	}
	if s.rest == "" {
		return word{}, false, nil
	}
	s.comma = false
	s.count++
	w.number = s.count
	n := strings.IndexFunc(s.rest, func(r rune) bool { return r == '=' || endsBare(r) })
	if n < 0 {
		n = len(s.rest)
	}
	w.name, s.rest = s.rest[:n], s.rest[n:]
	if w.name == "" {
		return w, false, syntaxError("word %d: a name is missing before %q", s.count, s.rest[:1])
	}
	if s.rest == "" || s.rest[0] != '=' {
		if s.rest != "" && !isSeparator(rune(s.rest[0])) {
			return w, false, syntaxError("word %d: %q may stand only where a value begins", s.count, s.rest[:1])
		}
		return w, true, nil
	}
	s.rest = s.rest[1:]
	w.hasValue = true
	if name, all := strings.CutSuffix(w.name, ":"); all {
		if name == "" {
			return w, false, syntaxError("word %d: a name is missing before %q", s.count, ":=")
		}
		w.name, w.form = name, formQuoted
		w.value, s.rest = s.rest, ""
		return w, true, nil
	}
	err = s.scanValue(&w)
	return w, err == nil, err
}

// separator skips blanks and at most one comma, which must stand between words.
func (s *scanner) separator() error {
	for s.rest != "" {
		r, n := utf8.DecodeRuneInString(s.rest)
		switch {
		case r == ',':
			if s.comma || s.count == 0 {
				return syntaxError("word %d is empty: a comma stands only between two words", s.count+1)
			}
			s.comma = true
		case !isSeparator(r):
			return nil
		}
		s.rest = s.rest[n:]
	}
	if s.comma {
		return syntaxError("word %d is empty: a comma stands only between two words", s.count+1)
	}
	return nil
}

func (s *scanner) scanValue(w *word) error {
	switch {
	case strings.HasPrefix(s.rest, `"`):
		w.form = formQuoted
		v, n, err := unquote(s.rest)
		if err != nil {
			return syntaxError("%s: %w", s.place(w), err)
		}
		w.value, s.rest = v, s.rest[n:]
	case strings.HasPrefix(s.rest, "'"):
		w.form = formQuoted
		v, n, err := unquoteSingle(s.rest)
		if err != nil {
			return syntaxError("%s: %w", s.place(w), err)
		}
		w.value, s.rest = v, s.rest[n:]
	case strings.HasPrefix(s.rest, "{"):
		w.form = formBraces
		n, err := closingBrace(s.rest)
		if err != nil {
			return syntaxError("%s: %w", s.place(w), err)
		}
		w.value, s.rest = s.rest[1:n], s.rest[n+1:]
	default:
		n := strings.IndexFunc(s.rest, endsBare)
		if n < 0 {
			n = len(s.rest)
		}
		w.value, s.rest = s.rest[:n], s.rest[n:]
	}
	if s.rest != "" {
		if r, _ := utf8.DecodeRuneInString(s.rest); !isSeparator(r) {
			return syntaxError("%s: put the whole value in double quotes, with \\ before quotes in it", s.place(w))
		}
	}
	return nil
}

func isSeparator(r rune) bool {
	return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r'
}

// endsBare says whether r cannot stand in a name or in a bare value.
func endsBare(r rune) bool {
	return isSeparator(r) || r == '"' || r == '{' || r == '}' || r == '\\' || r < ' ' || r == 0x7f
}

// syntaxError is an error about the form of a text.
func syntaxError(format string, args ...any) error {
	return Errorf(CKR_ARGUMENTS_BAD, format, args...)
}

// closingBrace returns the index of the brace that closes the one that s begins
// with.
func closingBrace(s string) (int, error) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			_, n, err := unquote(s[i:])
			if err != nil {
				return 0, err
			}
			i += n - 1
		case '\'':
			if s[i-1] != '=' {
				continue // in the midst of a bare value
			}
			_, n, err := unquoteSingle(s[i:])
			if err != nil {
				return 0, err
			}
			i += n - 1
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i, nil
			}
		}
	}
	return 0, syntaxError("a closing } is missing")
}

// unquote reads the quoted text that s begins with, and returns also how many
// bytes it takes. The escapes are \\ \" \n \r \t and \xHH for one byte.
func unquote(s string) (string, int, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i + 1, nil
		case '\\':
			c, n, ok := escape(s[i+1:])
			if !ok {
				return "", 0, syntaxError(`an escape is not one of \\ \" \n \r \t \xHH`)
			}
			b.WriteByte(c)
			i += n
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0, syntaxError("a closing double quote is missing")
}

// unquoteSingle is unquote for single quotes, between which all is as it stands, as in
// the shell.
func unquoteSingle(s string) (string, int, error) {
	n := strings.IndexByte(s[1:], '\'')
	if n < 0 {
		return "", 0, syntaxError("a closing single quote is missing")
	}
	return s[1 : n+1], n + 2, nil
}

// escape reads what follows a backslash.
func escape(s string) (c byte, n int, ok bool) {
	if s == "" {
		return 0, 0, false
	}
	switch s[0] {
	case '\\', '"':
		return s[0], 1, true
	case 'n':
		return '\n', 1, true
	case 'r':
		return '\r', 1, true
	case 't':
		return '\t', 1, true
	case 'x':
		if len(s) < 3 {
			return 0, 0, false
		}
		v, err := strconv.ParseUint(s[1:3], 16, 8)
		return byte(v), 3, err == nil
	}
	return 0, 0, false
}

// appendQuoted appends s in double quotes, as unquote reads it.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == utf8.RuneError && n == 1, !unicode.IsPrint(r):
			for i := range n {
				b = append(b, '\\', 'x', hexDigits[s[i]>>4], hexDigits[s[i]&15])
			}
		default:
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

// isBare says whether text may stand without quotes: letters, digits and a few
// marks of ASCII that no shell touches.
func isBare(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._:/@%+-", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
