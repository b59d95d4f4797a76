package config

import (
	"fmt"
	"strings"
)

// kind is what a token of the file is.
type kind int

const (
	tokEOF kind = iota
	tokEqual
	tokBegin
	tokEnd
	tokEOL
	tokInteger
	tokVersion
	tokSlot
	tokString
)

// token is one token with the line it starts in.
type token struct {
	kind   kind
	text   string // of tokInteger, and of tokString without its quotes
	line   int
	quoted bool
}

// name says in an error what was found.
func (t token) name() string {
	fixed := [...]string{
		tokEOF: "the end of the file", tokEqual: `"="`, tokBegin: `"{"`, tokEnd: `"}"`, tokEOL: "the end of the line",
		tokInteger: "the number " + t.text, tokVersion: `the word "version"`, tokSlot: `the word "slot"`,
	}
	if int(t.kind) < len(fixed) {
		return fixed[t.kind]
	}
	if strings.Contains(t.text, "\r") {
		return fmt.Sprintf("%q (the line ends in CRLF; it must end in LF)", t.text)
	}
	return fmt.Sprintf("%q", t.text)
}

// lexer cuts a file into tokens by the stock rules: the longest match wins,
// and of equal ones the earlier in this list: blanks, =, BEGIN, END, EOL,
// INTEGER, keyword, word, quoted string.
type lexer struct {
	src  string
	pos  int
	line int
	warn *problems
}

// next returns the next token; after the end of the file it returns tokEOF for
// ever.
func (l *lexer) next() token {
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		switch c := rest[0]; c {
		case ' ', '\t':
			l.pos++
			continue
		case '=':
			return l.take(tokEqual, 1, 0)
		case '\n':
			if len(rest) > 1 && rest[1] == '{' {
				return l.take(tokBegin, 2, 1)
			}
			return l.take(tokEOL, 1, 1)
		case '#':
			// A comment without a newline is no comment for the stock rules,
			// but words, and so a mistake.
			if i := strings.IndexByte(rest, '\n'); i >= 0 {
				return l.take(tokEOL, i+1, 1)
			}
		case '"':
			i := strings.IndexAny(rest[1:], "\"\n")
			if i < 0 || rest[1+i] == '\n' {
				l.warn.add(l.line, `a quote without its partner in the same line is skipped`)
				l.pos++
				continue
			}
			t := l.take(tokString, i+2, 0)
			t.text, t.quoted = t.text[1:i+1], true
			return t
		}
		return l.word(rest)
	}
	return token{kind: tokEOF, line: l.line}
}

func (l *lexer) word(rest string) token {
	n := strings.IndexAny(rest, "\"= \t\n") // what ends a word
	if n < 0 {
		n = len(rest)
	}
	switch w := rest[:n]; {
	case w == "{":
		return l.take(tokBegin, n, 0)
	case w == "}":
		return l.take(tokEnd, n, 0)
	case strings.Trim(w, "0123456789") == "":
		return l.take(tokInteger, n, 0)
	case w == "version":
		return l.take(tokVersion, n, 0)
	case w == "slot":
		return l.take(tokSlot, n, 0)
	}
	return l.take(tokString, n, 0)
}

func (l *lexer) take(k kind, n, newlines int) token {
	t := token{kind: k, text: l.src[l.pos : l.pos+n], line: l.line}
	l.pos += n
	l.line += newlines
	return t
}
