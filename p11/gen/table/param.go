package table

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Param is the parameter of some mechanisms, or a struct that stands in one.
type Param struct {
	Name   string
	GoType string
	CType  string // "" for bytes as they are
	Layout int    // its number on the wire; -1 for a struct that is no parameter
	Doc    string
	Custom bool // Go and C know it from code by hand
	Out    bool // it is custom, and gets something beside keys
	Fields []*Field
	Also   []Variant // other C structs for the same

	order []string          // of the words, if it is not that of the fields
	about map[string]string // what the words of a custom parameter are
	words []*Field
}

// A Variant is a second C struct, which its size tells from the first.
type Variant struct {
	CType   string
	Without string // a member that it has not
	Block   int    // the length of arrays of a block's length; 0 for that of the first
}

// A Kind says what a field holds.
type Kind int

// The kinds, by the words that table.txt has for them.
const (
	Ulong   Kind = iota // ulong: a number
	Handle              // handle: an object
	Bool                // bool
	Hash                // hash: the mechanism of a digest
	MGF                 // mgf: a mask generation function
	Enum                // a Go type with names
	Bytes               // bytes: a pointer and a length in C
	Block               // block[N]: bytes; in C an array of N, the block length of a cipher
	Array               // bytes[N]: an array of N bytes
	Struct              // NAME: a struct in the struct
	Pointer             // *NAME: a pointer to a struct
)

// A Field is a member of a struct, or all of a parameter that is no struct.
type Field struct {
	Go    string // "" for what C and the wire have and Go has not
	C     string
	Kind  Kind
	Enum  string // Go type of an Enum
	Size  int    // of an Array, and of a Block in C
	Inner *Param // of a Struct or Pointer
	Facts Facts
	About string

	inner string
}

// fieldFacts are the facts of a field.
var fieldFacts = []string{ //nolint:gochecknoglobals // a table, never written
	"word", "default", "shown", "secret", "required", "later", "sample", "unit",
	"max", "range", "one-of", "length", "multiple", "only-with", "check",
	"of", "has", "bits-of", "const", "optional", "len", "len-first", "len-bits", "out", "room", "made", "room-of",
}

// Value says whether the parameter is one value, and no struct.
func (p *Param) Value() bool { return len(p.Fields) == 1 && p.Fields[0].Go == "value" }

// Only is the value that the parameter is, if it is one.
func (p *Param) Only() *Field { return p.Fields[0] }

// Field returns the field of a name in Go, nil if there is none.
func (p *Param) Field(name string) *Field {
	for _, f := range p.Fields {
		if f.Go == name && name != "" {
			return f
		}
	}
	return nil
}

// Words returns the fields that have a word of their own, in the order of the
// words; those of structs in it stand where the struct does.
func (p *Param) Words() []*Field { return p.words }

// newParam reads the head of a parameter or struct.
func newParam(words []string, quoted string) (*Param, error) {
	p := &Param{Layout: -1, Doc: quoted, about: map[string]string{}}
	want := 4
	if words[0] == "param" {
		want = 5
	}
	if len(words) > want && words[want] == "custom" {
		p.Custom, p.Out = true, slices.Contains(words[want:], "out")
		words = words[:want]
	}
	if len(words) != want {
		return nil, fmt.Errorf("%s wants a name, the types in Go and C, and, for a parameter, the layout's number", words[0])
	}
	p.Name, p.GoType = words[1], words[2]
	if words[3] != "-" {
		p.CType = words[3]
	}
	if words[0] == "param" {
		n, err := strconv.ParseUint(words[4], 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%s: layout %q", p.Name, words[4])
		}
		p.Layout = int(n)
	}
	return p, nil
}

// read reads a line of the parameter.
func (p *Param) read(words []string, quoted string) error {
	switch words[0] {
	case "words":
		p.order = append(p.order, words[1:]...)
		for _, w := range words[1:] {
			p.about[w] = quoted
		}
		return nil
	case "also":
		return p.variant(words[1:])
	}
	f := &Field{Go: words[0], About: quoted}
	rest := words[1:]
	if len(rest) == 0 {
		return fmt.Errorf("%s has no type", f.Go)
	}
	if err := f.setType(rest[0]); err != nil {
		return fmt.Errorf("%s: %w", f.Go, err)
	}
	rest = rest[1:]
	if f.Go == "-" {
		f.Go = ""
	}
	if f.Go != "value" {
		if len(rest) == 0 {
			return fmt.Errorf("%s has no name in C", words[0])
		}
		f.C, rest = rest[0], rest[1:]
	}
	var err error
	if f.Facts, err = factsOf(rest, fieldFacts...); err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	if f.Kind == Bytes && f.C != "" && f.CLen() == "" {
		return fmt.Errorf("%s: len= or len-first= is missing, the length in C", f.Go)
	}
	p.Fields = append(p.Fields, f)
	return nil
}

func (p *Param) variant(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("also wants a type in C")
	}
	facts, err := factsOf(words[1:], "without", "block")
	if err != nil {
		return err
	}
	v := Variant{CType: words[0], Without: facts["without"]}
	if facts.Has("block") {
		if v.Block, err = strconv.Atoi(facts["block"]); err != nil {
			return fmt.Errorf("block=%s is no number", facts["block"])
		}
	}
	p.Also = append(p.Also, v)
	return nil
}

// setType reads the type of a field.
func (f *Field) setType(s string) error {
	name, size, sized := strings.Cut(strings.TrimSuffix(s, "]"), "[")
	if sized {
		n, err := strconv.Atoi(size)
		if err != nil || n <= 0 || name != "bytes" && name != "block" {
			return fmt.Errorf("unknown type %q", s)
		}
		f.Size, f.Kind = n, Array
		if name == "block" {
			f.Kind = Block
		}
		return nil
	}
	switch s {
	case "ulong":
		f.Kind = Ulong
	case "handle":
		f.Kind = Handle
	case "bool":
		f.Kind = Bool
	case "hash":
		f.Kind = Hash
	case "mgf":
		f.Kind = MGF
	case "bytes":
		f.Kind = Bytes
	default:
		f.Kind = Struct // or an Enum, which checkParams finds out
		if f.inner = strings.TrimPrefix(s, "*"); f.inner != s {
			f.Kind = Pointer
		}
	}
	return nil
}

// CLen is the name in C of the length of Bytes.
func (f *Field) CLen() string { return f.Facts["len"] + f.Facts["len-first"] }

// Param returns the parameter or struct of a name.
func (t *Table) Param(name string) *Param {
	for _, p := range t.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// checkParams joins the parameters, and checks what no single line shows.
func (t *Table) checkParams() error {
	names, layouts := map[string]bool{"None": true, "Raw": true}, map[int]string{}
	for _, p := range t.Params {
		if names[p.Name] {
			return fmt.Errorf("param %s stands twice", p.Name)
		}
		names[p.Name] = true
		if other := layouts[p.Layout]; p.Layout > 0 && other != "" {
			return fmt.Errorf("%s and %s have layout %d both", other, p.Name, p.Layout)
		}
		layouts[p.Layout] = p.Name
		for _, f := range p.Fields {
			if err := t.checkField(p, f); err != nil {
				return fmt.Errorf("%s: %s: %w", p.Name, cmp.Or(f.Go, f.C), err)
			}
		}
	}
	for _, p := range t.Params {
		if err := t.setWords(p); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	for _, m := range t.Mechanisms() {
		name := strings.TrimSuffix(m.Fact("param"), "?")
		if p := t.Param(name); name != "" && name != "Raw" && (p == nil || p.Layout < 0) {
			return fmt.Errorf("%s: no param %s", m.Name, name)
		}
	}
	return nil
}

func (t *Table) checkField(p *Param, f *Field) error {
	if f.Kind == Struct && t.Section(f.inner) != nil {
		f.Kind, f.Enum = Enum, f.inner
	}
	if f.Kind == Struct || f.Kind == Pointer {
		// Those that stand above, so that nothing holds itself.
		above := t.Params[:slices.Index(t.Params, p)]
		i := slices.IndexFunc(above, func(q *Param) bool { return q.Name == f.inner && !q.Value() && !q.Custom })
		if i < 0 {
			return fmt.Errorf("unknown type %q", f.inner)
		}
		f.Inner = above[i]
	}
	for _, name := range []string{"default", "const", "made"} {
		if v := f.Facts[name]; v != "" && v != "mechanism" && v != "true" && !strings.HasPrefix(v, "size-of:") && !isNumber(v) && !t.known[v] {
			return fmt.Errorf("table.txt has no %s", v)
		}
	}
	refers := strings.TrimPrefix(f.Facts["default"], "size-of:")
	if refers == f.Facts["default"] {
		refers = ""
	}
	for _, other := range []string{refers, f.Facts["of"], f.Facts["has"], f.Facts["bits-of"], f.Facts["only-with"], f.Facts["room"], f.Facts["room-of"]} {
		if other != "" && p.Field(other) == nil {
			return fmt.Errorf("%s has no field %s", p.GoType, other)
		}
	}
	if f.Facts.Has("required") && !f.Facts.Has("sample") {
		return fmt.Errorf("a field that is required wants sample=")
	}
	if f.Go == "" && f.Facts["const"] == "" && f.Facts["bits-of"] == "" && f.Facts["has"] == "" {
		return fmt.Errorf("a field without a name in Go wants const=, has= or bits-of=")
	}
	return nil
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 0, 64)
	return err == nil
}

// setWords finds the words of the parameter: its own and those of its structs.
func (t *Table) setWords(p *Param) error {
	for _, f := range p.Fields {
		if f.Inner != nil {
			p.words = append(p.words, f.Inner.words...)
		} else if f.Facts.Has("word") {
			p.words = append(p.words, f)
		}
	}
	if p.Custom {
		for _, w := range p.order {
			p.words = append(p.words, &Field{Facts: Facts{"word": w}, About: p.about[w]})
		}
	} else if p.order != nil {
		place := func(f *Field) int { return slices.Index(p.order, f.Facts["word"]) }
		slices.SortStableFunc(p.words, func(a, b *Field) int { return place(a) - place(b) })
		if len(p.order) != len(p.words) {
			return fmt.Errorf("words has %d words, the fields %d", len(p.order), len(p.words))
		}
	}
	seen := map[string]bool{"param": true}
	for _, f := range p.words {
		w := f.Facts["word"]
		if seen[w] {
			return fmt.Errorf("word %s stands twice", w)
		}
		seen[w] = true
		if a := "CKA_" + strings.ToUpper(strings.ReplaceAll(w, "-", "_")); t.known[a] {
			return fmt.Errorf("word %s is the name of an attribute", w)
		}
	}
	return nil
}
