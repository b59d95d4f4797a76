package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A section is one Go type with its names, or the bits of one CK_FLAGS field.
type section struct {
	goType string // "" for untyped constants and flags
	flags  string // "Token", "Slot", …; "-" for flags that nothing lists
	prefix string
	words  string // what messages call it
	names  []name
	alias  []pair // second name of the standard → name
	aka    []pair // suffix that is only read → name
}

type name struct {
	name   string
	number uint64
	facts  []string
}

type pair struct{ from, to string }

// readTable parses table.txt. Mistakes are reported with their line.
func readTable(text string) ([]section, error) {
	var (
		sections []section
		seen     = make(map[string]bool)
	)
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := readLine(&sections, seen, line); err != nil {
			return nil, fmt.Errorf("table.txt:%d: %w", i+1, err)
		}
	}
	return sections, nil
}

func readLine(sections *[]section, seen map[string]bool, line string) error {
	words := splitFacts(line)
	switch words[0] {
	case "type", "flags", "const":
		if len(words) < 3 {
			return fmt.Errorf("%s wants a type and a prefix", words[0])
		}
		s := section{prefix: words[2], words: strings.Join(words[3:], " ")}
		switch words[0] {
		case "type":
			s.goType = words[1]
		case "flags":
			s.flags = words[1]
		}
		*sections = append(*sections, s)
		return nil
	}
	if len(*sections) == 0 {
		return fmt.Errorf("name before the first section")
	}
	s := &(*sections)[len(*sections)-1]
	switch words[0] {
	case "alias", "aka":
		if len(words) != 3 {
			return fmt.Errorf("%s wants two names", words[0])
		}
		if !s.has(words[2]) {
			return fmt.Errorf("%s is not in this section", words[2])
		}
		p := pair{words[1], words[2]}
		if words[0] == "aka" {
			s.aka = append(s.aka, p)
			return nil
		}
		if seen[p.from] {
			return fmt.Errorf("%s stands twice", p.from)
		}
		seen[p.from] = true
		s.alias = append(s.alias, p)
		return nil
	}
	if len(words) < 2 {
		return fmt.Errorf("%s has no number", words[0])
	}
	if seen[words[0]] {
		return fmt.Errorf("%s stands twice", words[0])
	}
	seen[words[0]] = true
	if !strings.HasPrefix(words[0], s.prefix) && s.goType != "" {
		return fmt.Errorf("%s does not begin with %s", words[0], s.prefix)
	}
	n, err := strconv.ParseUint(words[1], 0, 64)
	if err != nil {
		return fmt.Errorf("%s: number %q", words[0], words[1])
	}
	s.names = append(s.names, name{words[0], n, words[2:]})
	return nil
}

func (s *section) has(name string) bool {
	for _, n := range s.names {
		if n.name == name {
			return true
		}
	}
	return false
}

// splitFacts splits at blanks; a quoted rest of the line is one fact.
func splitFacts(line string) []string {
	head, quoted, ok := strings.Cut(line, `"`)
	words := strings.Fields(head)
	if ok {
		words = append(words, strings.TrimSuffix(quoted, `"`))
	}
	return words
}
