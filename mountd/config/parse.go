package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"p11fs/p11"
)

// maxFile bounds what Load reads: a full table of 1024 slots with every key at
// its longest fits.
const maxFile = 4 << 20

// Load reads and parses the file at path.
func Load(path string) (*File, []*Problem, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxFile {
		return nil, nil, &Problem{File: path, Reason: fmt.Sprintf("the file is longer than %d bytes", maxFile)}
	}
	return Parse(path, string(data))
}

// Parse reads a configuration; name is the file's name in what is reported. The
// problems are warnings: the slots are usable without what they name. The error
// joins every Problem for which the daemon must not start.
func Parse(name, src string) (*File, []*Problem, error) {
	p := parser{
		warn:   problems{file: name},
		refuse: problems{file: name},
		slots:  map[p11.SlotID]int{},
		names:  map[string]int{},
	}
	p.file.blocks = map[p11.SlotID]lines{}
	p.lex = lexer{src: src, line: 1, warn: &p.warn}
	if t, why := p.parse(); why != "" {
		p.warn.add(t.line, "%s; everything from here on is ignored", why)
	}
	var refused []error
	for _, r := range p.refuse.list {
		refused = append(refused, r)
	}
	if err := errors.Join(refused...); err != nil {
		return nil, p.warn.list, err
	}
	return &p.file, p.warn.list, nil
}

type parser struct {
	lex    lexer
	file   File
	warn   problems
	refuse problems
	slots  map[p11.SlotID]int // slot → line
	names  map[string]int     // tokname → line
}

// parse reads the file up to its end or to the first syntax error, which it
// returns with the token that does not fit.
func (p *parser) parse() (token, string) {
	for {
		switch t := p.lex.next(); t.kind {
		case tokEOF:
			return t, ""
		case tokEOL:
		case tokVersion:
			v := p.lex.next()
			if v.kind == tokInteger {
				return v, "a version that is a whole number is a syntax error; write " + v.text + `.0 or "` + v.text + `"`
			}
			if v.kind != tokString {
				return v, `"version" wants a value, found ` + v.name()
			}
			if e := p.lex.next(); e.kind != tokEOL {
				return e, "the line must end after the version, found " + e.name()
			}
		case tokSlot:
			if bad, why := p.slot(t); why != "" {
				return bad, why
			}
		default:
			if t.kind == tokString && strings.HasPrefix(t.text, "#") && !t.quoted {
				return t, "a comment in the last line needs a newline at its end"
			}
			return t, `wanted "slot" or "version", found ` + t.name()
		}
	}
}

// pair is one line of a slot block.
type pair struct {
	line       int
	key, value string
}

func (p *parser) slot(word token) (token, string) {
	number := p.lex.next()
	if number.kind != tokInteger {
		return number, `"slot" wants a number, found ` + number.name()
	}
	switch t := p.lex.next(); t.kind {
	case tokBegin:
	case tokEOL:
		return t, `after the slot number "{" must follow in the same line, or be the first character of the next`
	default:
		return t, `wanted "{" after the slot number, found ` + t.name()
	}
	if t := p.lex.next(); t.kind != tokEOL {
		return t, `nothing may follow "{" in its line, found ` + t.name()
	}
	var pairs []pair
	for {
		switch t := p.lex.next(); t.kind {
		case tokEnd:
			p.add(word, number, pairs, t.line)
			return token{}, ""
		case tokString:
			kv, bad, why := p.pair(t)
			if why != "" {
				return bad, why
			}
			pairs = append(pairs, kv)
		case tokEOL:
			return t, "a slot block may not hold an empty line or a line with a comment only"
		case tokEOF:
			return t, fmt.Sprintf("slot %s has no \"}\"", number.text)
		default:
			return t, `wanted "key = value" or "}", found ` + t.name()
		}
	}
}

func (p *parser) pair(key token) (pair, token, string) {
	if t := p.lex.next(); t.kind != tokEqual {
		return pair{}, t, fmt.Sprintf("wanted \"=\" after %q, found %s", key.text, t.name())
	}
	value := p.lex.next()
	switch value.kind {
	case tokString:
	case tokInteger, tokSlot, tokVersion:
		return pair{}, value, fmt.Sprintf("the value of %s must stand in quotes: \"%s\"", key.text, value.text)
	default:
		return pair{}, value, fmt.Sprintf("%s wants a value, found %s", key.text, value.name())
	}
	if t := p.lex.next(); t.kind != tokEOL {
		return pair{}, t, fmt.Sprintf("the line must end after the value of %s, found %s (a value with blanks needs quotes)", key.text, t.name())
	}
	return pair{line: key.line, key: key.text, value: value.text}, token{}, ""
}

// add takes a complete block, which ends in the line end.
func (p *parser) add(word, number token, pairs []pair, end int) {
	id, err := strconv.ParseUint(number.text, 10, 32)
	if err != nil || id >= MaxSlots {
		p.refuse.add(number.line, "slot %s: slots are numbered 0 to %d", number.text, MaxSlots-1)
		return
	}
	s := defaults(p11.SlotID(id), word.line)
	seen := p.apply(&s, pairs)
	if first, twice := p.slots[s.ID]; twice {
		p.refuse.add(word.line, "slot %d is there already, in line %d", id, first)
		return
	}
	p.slots[s.ID] = word.line
	if _, ok := seen[keyLibrary]; !ok {
		p.refuse.add(word.line, `slot %d has no "stdll"`, id)
		return
	}
	if s.TokenName != "" {
		if first, twice := p.names[s.TokenName]; twice {
			p.refuse.add(seen[keyTokenName], "tokname %q is used already, by the slot in line %d", s.TokenName, first)
			p.refuse.list[len(p.refuse.list)-1].kind = ErrTokenName
			return
		}
		p.names[s.TokenName] = word.line
	}
	p.file.Slots = append(p.file.Slots, s)
	p.file.blocks[s.ID] = lines{end, seen[keyFormat]}
}
