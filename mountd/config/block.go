package config

import (
	"fmt"
	"strconv"
	"strings"
)

// The grammar that openCryptoki has for its newer files, of which policy.conf and
// strength.conf use this much:
//
//	file  := "version" WORD { item }
//	item  := WORD "=" NUMBER | WORD "(" [ WORD { "," WORD } ] ")" | WORD NUMBER "{" { item } "}"
//
// A WORD begins with a letter, a dot or a slash, and goes on with these, digits, "_"
// and "-". A NUMBER is decimal without zeros in front, or hexadecimal behind 0x. Lines
// end anywhere but around "=" and behind "version"; what stands behind # is a comment.

// maxItems bounds what stands in a file, and in a list.
const maxItems = 4096

// An item is one statement.
type item struct {
	line   int
	key    string
	number uint64   // of WORD "=" NUMBER and WORD NUMBER "{"
	words  []listed // of a list
	items  []item   // of a block
	form   form
}

// A listed is a word of a list.
type listed struct {
	line int
	word string
}

type form int

const (
	assigned form = iota
	listing
	blocked
)

// blockParser reads a file.
type blockParser struct {
	file, rest string
	line       int
	count      int
}

// parseBlocks returns the version and the items of a file; name is what problems call it.
func parseBlocks(name, src string) (version string, items []item, err error) {
	p := &blockParser{file: name, rest: src, line: 1}
	p.blanks(true)
	if p.word() != "version" {
		return "", nil, p.problem(`the first word is not "version"`)
	}
	p.blanks(false)
	if version = p.word(); version == "" {
		return "", nil, p.problem(`"version" wants a name in its line`)
	}
	items, err = p.items(false)
	return version, items, err
}

func (p *blockParser) problem(format string, args ...any) error {
	return &Problem{File: p.file, Line: p.line, Reason: fmt.Sprintf(format, args...)}
}

// blanks skips blanks and comments, with lines also their ends.
func (p *blockParser) blanks(lines bool) {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '\n' && lines:
			p.line++
		case c == '#':
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
			continue
		case c != ' ' && c != '\t' && c != '\r':
			return
		}
		p.rest = p.rest[1:]
	}
}

func isWord(c byte, first bool) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '/' || !first && (c >= '0' && c <= '9' || c == '_' || c == '-')
}

// word takes a word, "" if there is none.
func (p *blockParser) word() string {
	n := 0
	for n < len(p.rest) && isWord(p.rest[n], n == 0) {
		n++
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
}

// takes takes one character if it is there.
func (p *blockParser) takes(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// number takes a number.
func (p *blockParser) number() (uint64, error) {
	n := 0
	for n < len(p.rest) && isWord(p.rest[n], false) {
		n++
	}
	text := p.rest[:n]
	if len(text) > 1 && text[0] == '0' && text[1] != 'x' {
		return 0, p.problem("%s is no number: a number has no zeros in front", clip(text))
	}
	v, err := strconv.ParseUint(text, 0, 64)
	if err != nil || strings.Contains(text, "_") {
		return 0, p.problem("%s is no number", clip(text))
	}
	p.rest = p.rest[n:]
	return v, nil
}

// clip quotes a text of the file for a message.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// items reads statements up to the end of the file, or of a block.
func (p *blockParser) items(inner bool) ([]item, error) {
	var items []item
	for {
		p.blanks(true)
		switch {
		case p.rest == "" && inner:
			return nil, p.problem(`the file ends where "}" is wanted`)
		case p.rest == "" || inner && p.takes('}'):
			return items, nil
		}
		if p.count++; p.count > maxItems {
			return nil, p.problem("there are more than %d statements", maxItems)
		}
		it, err := p.item(inner)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
}

func (p *blockParser) item(inner bool) (item, error) {
	it := item{line: p.line, key: p.word()}
	if it.key == "" {
		return it, p.problem("a name is wanted, found %s", clip(p.rest[:min(len(p.rest), 1)]))
	}
	p.blanks(false)
	var err error
	switch {
	case p.takes('='):
		p.blanks(false)
		it.number, err = p.number()
		return it, err
	case p.rest != "" && p.rest[0] >= '0' && p.rest[0] <= '9' && !inner:
		it.form = blocked
		if it.number, err = p.number(); err != nil {
			return it, err
		}
		p.blanks(true)
		if !p.takes('{') {
			return it, p.problem(`%s %d wants "{"`, it.key, it.number)
		}
		it.items, err = p.items(true)
		return it, err
	}
	p.blanks(true)
	if !p.takes('(') {
		return it, p.problem(`%s wants "=" and a number in its line, or a list in "(" and ")"`, clip(it.key))
	}
	it.form = listing
	it.words, err = p.list()
	return it, err
}

// list reads words up to the end of a list.
func (p *blockParser) list() ([]listed, error) {
	var words []listed
	for p.blanks(true); !p.takes(')'); p.blanks(true) {
		if len(words) > 0 && !p.takes(',') {
			return nil, p.problem(`a comma or ")" is wanted behind %s`, clip(words[len(words)-1].word))
		}
		p.blanks(true)
		w := listed{p.line, p.word()}
		if w.word == "" {
			return nil, p.problem("the list wants a name")
		}
		if words = append(words, w); len(words) > maxItems {
			return nil, p.problem("the list has more than %d names", maxItems)
		}
	}
	return words, nil
}
