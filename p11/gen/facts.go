package main

import (
	"fmt"
	"slices"
	"strings"

	"p11fs/p11/gen/table"
)

// A group is names that have something in common: what it is, in Go.
type group struct {
	Key   string
	Names []string
}

// add adds a name to the group of a key, which may be new.
func add(groups []*group, key, name string) []*group {
	for _, g := range groups {
		if g.Key == key {
			g.Names = append(g.Names, name)
			return groups
		}
	}
	return append(groups, &group{key, []string{name}})
}

// camel writes words that hyphens, commas or blanks join in Go's way.
func camel(s string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("-, ", r) }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

// kindConst maps an attribute's kind in the table to its Go constant, and to the Go type
// of its values if they have names. A kind is one of kind.go, or that of a type: its
// words, joined by hyphens.
func kindConst(t *table.Table, kind string) (name, goType string, err error) {
	switch kind {
	case "bool", "ulong", "bytes", "text", "date", "template", "curve", "parameter-set", "mechanism-list":
		return "Kind" + camel(kind), "", nil
	case "bigint":
		return "KindBigInt", "", nil
	}
	for _, s := range t.Sections {
		if s.GoType != "" && strings.ToLower(strings.ReplaceAll(s.Words, " ", "-")) == kind {
			return "Kind" + camel(s.Words), s.GoType, nil
		}
	}
	return "", "", fmt.Errorf("unknown kind %q", kind)
}

// attributes are what is known of them.
type attributes struct {
	Kinds  []*group // with their attributes
	Named  []*group // kinds of numbers with names, and the Go type
	Secret []string
}

func newAttributes(t *table.Table, s *table.Section) (a attributes, err error) {
	for _, n := range s.Names {
		if len(n.Facts) == 0 {
			return a, fmt.Errorf("%s has no kind", n.Name)
		}
		kind, goType, err := kindConst(t, n.Facts[0])
		if err != nil {
			return a, fmt.Errorf("%s: %w", n.Name, err)
		}
		a.Kinds = add(a.Kinds, kind, n.Name)
		if goType != "" {
			a.Named = add(a.Named, kind, goType)
		}
		for _, f := range n.Facts[1:] {
			if f != "secret" {
				return a, fmt.Errorf("%s: unknown fact %q", n.Name, f)
			}
			a.Secret = append(a.Secret, n.Name)
		}
	}
	return a, nil
}

// keyTypes groups key types by one of their facts.
func keyTypes(s *table.Section, fact string) (groups []*group, err error) {
	for _, n := range s.Names {
		for _, f := range n.Facts {
			name, value, _ := strings.Cut(f, "=")
			switch name {
			case fact:
				groups = add(groups, value, n.Name)
			case "block", "bytes":
			default:
				return nil, fmt.Errorf("%s: unknown fact %q", n.Name, f)
			}
		}
	}
	return groups, nil
}

// mechanisms are what is known of them.
type mechanisms struct {
	Keys  []*group // lists of key types
	Facts []*group // of each, members of a Facts
}

// keysOf is the variable that holds a list of key types.
func keysOf(list string) string { return "keys" + camel(list) }

func newMechanisms(t *table.Table) (ms mechanisms, err error) {
	seen := map[string]bool{}
	for _, n := range t.Mechanisms() {
		if len(n.Facts) == 0 {
			continue
		}
		m := &group{Key: n.Name}
		for _, f := range n.Facts {
			if err := m.fact(t, f); err != nil {
				return ms, fmt.Errorf("%s: %w", n.Name, err)
			}
		}
		iv, err := ivLen(t, n)
		if err != nil {
			return ms, fmt.Errorf("%s: %w", n.Name, err)
		}
		if iv != "" {
			m.Names = append(m.Names, "IVLen: "+iv)
		}
		ms.Facts = append(ms.Facts, m)
		if list := n.Fact("key"); list != "" && !seen[list] {
			seen[list] = true
			types, err := t.Constants("CKK_", list)
			if err != nil {
				return ms, err
			}
			ms.Keys = append(ms.Keys, &group{list, types})
		}
	}
	return ms, nil
}

// fact adds the member that a fact of the mechanism is.
func (g *group) fact(t *table.Table, fact string) error {
	key, value, _ := strings.Cut(fact, "=")
	switch key {
	case "fn":
		flags, err := t.Constants("CKF_", value)
		g.Names = append(g.Names, "Functions: "+strings.Join(flags, "|"))
		return err
	case "key":
		g.Names = append(g.Names, "KeyTypes: "+keysOf(value))
	case "hash":
		hash, err := t.Constants("CKM_", value)
		g.Names = append(g.Names, "Hash: "+strings.Join(hash, ""))
		return err
	case "param":
		name, optional := strings.CutSuffix(value, "?")
		g.Names = append(g.Names, "Param: Param"+name)
		if optional {
			g.Names = append(g.Names, "Optional: true")
		}
	case "iv": // see ivLen
	case "single":
		g.Names = append(g.Names, "SinglePart: true")
	case "data":
		g.Names = append(g.Names, "Data: true")
	case "keeps":
		g.Names = append(g.Names, "Keeps: true")
	default:
		return fmt.Errorf("unknown fact %q", fact)
	}
	return nil
}

// ivLen is the length of a mechanism's IV, "" for none or any: the fact iv=, or
// the block of its first key type.
func ivLen(t *table.Table, n table.Name) (string, error) {
	param := t.Param(strings.TrimSuffix(n.Fact("param"), "?"))
	if param == nil || !slices.ContainsFunc(param.Fields, func(f *table.Field) bool { return f.Facts["length"] == "iv" || f.Facts["multiple"] == "iv" }) {
		return "", nil
	}
	switch iv := n.Fact("iv"); iv {
	case "any":
		return "", nil
	case "":
	default:
		return iv, nil
	}
	short, _, _ := strings.Cut(n.Fact("key"), ",")
	if short == "" {
		return "", nil
	}
	first, err := t.Constants("CKK_", short)
	if err != nil {
		return "", err
	}
	for _, k := range t.Section("KeyType").Names {
		if k.Name == first[0] {
			return k.Fact("block"), nil
		}
	}
	return "", nil
}
