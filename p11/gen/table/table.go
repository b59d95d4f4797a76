// Package table reads p11/table.txt, of which the vocabulary of PKCS#11 is
// generated: for the daemon by p11/gen, for libp11fs.so by cmd/libp11fs/gen. The
// head of table.txt says what its lines mean.
package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Table is what table.txt says.
type Table struct {
	Sections  []*Section
	Params    []*Param
	Hashes    []Row
	Curves    []Row
	Functions []*Function
	Standard  string // in which the chapters are
	Chapters  []Chapter

	known map[string]bool // constants
}

// A Section is one Go type with its names, or the bits of one CK_FLAGS field.
type Section struct {
	GoType string // "" for untyped constants and flags
	Flags  string // "Token", "Slot", …; "-" for flags that nothing lists
	Prefix string
	Words  string // what messages call it
	Doc    string // what the Go type is; "" if it is declared by hand
	Names  []Name
	Alias  []Pair // second name of the standard → name
	Aka    []Pair // suffix that is only read → name
}

// Type is the Go type of the names, "" for untyped ones.
func (s *Section) Type() string {
	if s.Flags != "" {
		return "Flags"
	}
	return s.GoType
}

// A Name is a constant.
type Name struct {
	Name   string
	Number uint64
	Facts  []string
}

// A Pair is a second spelling of a name.
type Pair struct{ From, To string }

// A Row is a line of a table other than that of names.
type Row struct {
	Words []string // those that stand first, without a name
	Facts Facts
}

// Facts are words of the form name=value, or a name alone.
type Facts map[string]string

// Has says whether the fact is there.
func (f Facts) Has(name string) bool { _, ok := f[name]; return ok }

// Read reads the text of table.txt. Mistakes are reported with their line.
func Read(text string) (*Table, error) {
	r := reader{table: &Table{known: map[string]bool{}}}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		words, quoted := split(line)
		if len(words) == 0 {
			return nil, fmt.Errorf("table.txt:%d: quoted text alone", i+1)
		}
		if err := r.read(words, quoted); err != nil {
			return nil, fmt.Errorf("table.txt:%d: %w", i+1, err)
		}
	}
	return r.table, r.table.checkParams()
}

// A reader knows what the lines at hand belong to.
type reader struct {
	table *Table
	next  func(words []string, quoted string) error
}

func (r *reader) read(words []string, quoted string) error {
	t := r.table
	switch words[0] {
	case "type", "flags", "const":
		if len(words) < 3 {
			return fmt.Errorf("%s wants a type and a prefix", words[0])
		}
		s := &Section{Prefix: words[2], Words: strings.Join(words[3:], " "), Doc: quoted}
		switch words[0] {
		case "type":
			s.GoType = words[1]
		case "flags":
			s.Flags = words[1]
		}
		t.Sections = append(t.Sections, s)
		r.next = func(words []string, quoted string) error { return s.read(t.known, words, quoted) }
		return nil
	case "param", "struct":
		p, err := newParam(words, quoted)
		if err != nil {
			return err
		}
		t.Params = append(t.Params, p)
		r.next = p.read
		return nil
	case "hashes":
		r.next = rows(&t.Hashes, 2, "oid", "go", "mgf", "kdf", "sp800")
		return nil
	case "functions":
		if len(words) != 2 {
			return fmt.Errorf("functions wants a version, or -")
		}
		r.next = t.functions(words[1])
		return nil
	case "chapters":
		t.Standard, r.next = quoted, t.chapter
		return nil
	case "curves":
		r.next = rows(&t.Curves, 3, "key", "nist", "aka", "elliptic", "ecdh", "numbers")
		return nil
	}
	if r.next == nil {
		return fmt.Errorf("name before the first section")
	}
	return r.next(words, quoted)
}

// rows reads lines of n words and facts of the names given into list.
func rows(list *[]Row, n int, names ...string) func([]string, string) error {
	return func(words []string, quoted string) error {
		if len(words) < n || quoted != "" {
			return fmt.Errorf("%s: the line wants %d words, and facts", words[0], n)
		}
		facts, err := factsOf(words[n:], names...)
		if err != nil {
			return fmt.Errorf("%s: %w", words[0], err)
		}
		*list = append(*list, Row{words[:n], facts})
		return nil
	}
}

func (s *Section) read(known map[string]bool, words []string, quoted string) error {
	if words[0] == "alias" || words[0] == "aka" {
		if len(words) != 3 {
			return fmt.Errorf("%s wants two names", words[0])
		}
		if !slices.ContainsFunc(s.Names, func(n Name) bool { return n.Name == words[2] }) {
			return fmt.Errorf("%s is not in this section", words[2])
		}
		p := Pair{words[1], words[2]}
		if words[0] == "aka" {
			s.Aka = append(s.Aka, p)
			return nil
		}
		if known[p.From] {
			return fmt.Errorf("%s stands twice", p.From)
		}
		known[p.From] = true
		s.Alias = append(s.Alias, p)
		return nil
	}
	if len(words) < 2 {
		return fmt.Errorf("%s has no number", words[0])
	}
	if known[words[0]] {
		return fmt.Errorf("%s stands twice", words[0])
	}
	known[words[0]] = true
	if !strings.HasPrefix(words[0], s.Prefix) && s.GoType != "" {
		return fmt.Errorf("%s does not begin with %s", words[0], s.Prefix)
	}
	n, err := strconv.ParseUint(words[1], 0, 64)
	if err != nil {
		return fmt.Errorf("%s: number %q", words[0], words[1])
	}
	facts := words[2:]
	if quoted != "" {
		facts = append(facts, quoted)
	}
	s.Names = append(s.Names, Name{words[0], n, facts})
	return nil
}

// split splits at blanks; a quoted rest of the line is returned by itself.
func split(line string) (words []string, quoted string) {
	head, quoted, _ := strings.Cut(line, `"`)
	return strings.Fields(head), strings.TrimSuffix(quoted, `"`)
}

// factsOf reads words of the form name=value, or name, with the names given.
func factsOf(words []string, names ...string) (Facts, error) {
	facts := Facts{}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("unknown fact %q", w)
		}
		if facts.Has(name) {
			return nil, fmt.Errorf("%s stands twice", name)
		}
		facts[name] = value
	}
	return facts, nil
}

// Section returns the section of a Go type, nil if there is none.
func (t *Table) Section(goType string) *Section {
	for _, s := range t.Sections {
		if s.GoType == goType {
			return s
		}
	}
	return nil
}

// Mechanisms returns the names of mechanisms.
func (t *Table) Mechanisms() []Name {
	if s := t.Section("MechanismType"); s != nil {
		return s.Names
	}
	return nil
}

// Constants turns short names, joined by commas, into the constants' names.
func (t *Table) Constants(prefix, list string) ([]string, error) {
	var names []string
	for _, short := range strings.Split(list, ",") {
		c := prefix + strings.ToUpper(strings.ReplaceAll(short, "-", "_"))
		if !t.known[c] {
			return nil, fmt.Errorf("table.txt has no %s", c)
		}
		names = append(names, c)
	}
	return names, nil
}

// Fact returns the value of a fact of the form name=value, "" if it is absent.
func (n Name) Fact(name string) string {
	for _, f := range n.Facts {
		if k, v, ok := strings.Cut(f, "="); ok && k == name {
			return v
		}
	}
	return ""
}
