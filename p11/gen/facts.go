package main

import (
	"fmt"
	"strings"

	"p11fs/p11/gen/table"
)

// kindConst maps an attribute's kind in the table to its Go constant. A kind is one
// of kind.go, or that of a type: its words, joined by hyphens.
func (p *printer) kindConst(kind string) (string, error) {
	switch kind {
	case "bool", "ulong", "bytes", "text", "date", "template", "curve", "mechanism-list":
		return "Kind" + camel(kind), nil
	case "bigint":
		return "KindBigInt", nil
	}
	if s := p.kindType(kind); s != nil {
		return "Kind" + camel(strings.ReplaceAll(s.Words, " ", "-")), nil
	}
	return "", fmt.Errorf("unknown kind %q", kind)
}

// kindType is the type whose values attributes of the kind have, nil if they have
// no names.
func (p *printer) kindType(kind string) *table.Section {
	for _, s := range p.Sections {
		if s.GoType != "" && strings.ToLower(strings.ReplaceAll(s.Words, " ", "-")) == kind {
			return s
		}
	}
	return nil
}

func camel(s string) string {
	var b strings.Builder
	for _, w := range strings.Split(s, "-") {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

func (p *printer) facts() error {
	for _, s := range p.Sections {
		var err error
		switch s.GoType {
		case "AttributeType":
			err = p.attributeKinds(s)
		case "KeyType":
			err = p.blockSizes(s)
		case "MechanismType":
			err = p.mechanismFacts(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *printer) attributeKinds(s *table.Section) error {
	byKind := make(map[string][]string)
	var order, secret []string
	var named [][2]string // constants and Go types
	for _, n := range s.Names {
		if len(n.Facts) == 0 {
			return fmt.Errorf("%s has no kind", n.Name)
		}
		k, err := p.kindConst(n.Facts[0])
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		if byKind[k] == nil {
			order = append(order, k)
			if s := p.kindType(n.Facts[0]); s != nil {
				named = append(named, [2]string{k, s.GoType})
			}
		}
		byKind[k] = append(byKind[k], n.Name)
		for _, f := range n.Facts[1:] {
			if f != "secret" {
				return fmt.Errorf("%s: unknown fact %q", n.Name, f)
			}
			secret = append(secret, n.Name)
		}
	}
	p.f("\n// KindOf returns how the value of an attribute is laid out; KindBytes for an\n// attribute that is not known.\nfunc KindOf(t AttributeType) Kind {\nswitch t {\n")
	for _, k := range order {
		if k == "KindBytes" {
			continue
		}
		p.f("case %s:\nreturn %s\n", strings.Join(byKind[k], ",\n"), k)
	}
	p.f("}\nreturn KindBytes\n}\n")
	p.f("\n// SecretValue says whether the attribute can hold key material. CKA_VALUE can;\n// Attributes.Secret knows for which classes it does.\nfunc SecretValue(t AttributeType) bool {\nswitch t {\ncase %s:\nreturn true\n}\nreturn false\n}\n",
		strings.Join(secret, ",\n"))
	if len(named) == 0 {
		return nil
	}
	p.f("\n// Kinds of numbers with names.\nconst (\n")
	for i, k := range named {
		p.f("%s", k[0])
		if i == 0 {
			p.f(" = kindNamed + 1 + iota")
		}
		p.f(" // %s\n", k[1])
	}
	p.f(")\n\n// nameOf returns the name of a number of the kind, \"\" if such numbers have none.\nfunc (k Kind) nameOf(v uint64) string {\nswitch k {\n")
	for _, k := range named {
		p.f("case %s:\nreturn %s(v).Short()\n", k[0], k[1])
	}
	p.f("}\nreturn \"\"\n}\n\n// parse reads a number of the kind.\nfunc (k Kind) parse(s string) (uint64, error) {\nswitch k {\n")
	for _, k := range named {
		p.f("case %s:\nv, err := Parse%s(s)\nreturn uint64(v), err\n", k[0], k[1])
	}
	p.f("}\nreturn parseNumber(s)\n}\n")
	return nil
}

// blockSizes writes the block lengths of key types.
func (p *printer) blockSizes(s *table.Section) error {
	p.f("\n// BlockSize returns the block length in bytes of the cipher of such keys, 0 for\n// those of no block cipher.\nfunc (v KeyType) BlockSize() int {\nswitch v {\n")
	var order []string
	bySize := make(map[string][]string)
	for _, n := range s.Names {
		for _, f := range n.Facts {
			size, ok := strings.CutPrefix(f, "block=")
			if !ok {
				return fmt.Errorf("%s: unknown fact %q", n.Name, f)
			}
			if bySize[size] == nil {
				order = append(order, size)
			}
			bySize[size] = append(bySize[size], n.Name)
		}
	}
	for _, size := range order {
		p.f("case %s:\nreturn %s\n", strings.Join(bySize[size], ", "), size)
	}
	p.f("}\nreturn 0\n}\n")
	return nil
}

func (p *printer) mechanismFacts(s *table.Section) error {
	var lists []string // of key types
	variable := make(map[string]string)
	var cases printer
	for _, n := range s.Names {
		if len(n.Facts) == 0 {
			continue
		}
		cases.f("case %s:\nreturn Facts{", n.Name)
		for _, f := range n.Facts {
			key, value, _ := strings.Cut(f, "=")
			switch key {
			case "fn":
				flags, err := p.Constants("CKF_", value)
				if err != nil {
					return fmt.Errorf("%s: %w", n.Name, err)
				}
				cases.f("Functions: %s, ", strings.Join(flags, "|"))
			case "key":
				if variable[value] == "" {
					variable[value] = "keys" + camel(strings.ReplaceAll(value, ",", "-"))
					lists = append(lists, value)
				}
				cases.f("KeyTypes: %s, ", variable[value])
			case "hash":
				hash, err := p.Constants("CKM_", value)
				if err != nil {
					return fmt.Errorf("%s: %w", n.Name, err)
				}
				cases.f("Hash: %s, ", hash[0])
			case "param":
				name, optional := strings.CutSuffix(value, "?")
				cases.f("Param: Param%s, ", name)
				if optional {
					cases.f("Optional: true, ")
				}
			case "iv": // see ivLen
			case "single":
				cases.f("SinglePart: true, ")
			default:
				return fmt.Errorf("%s: unknown fact %q", n.Name, f)
			}
		}
		if iv, err := p.ivLen(n); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		} else if iv != "" {
			cases.f("IVLen: %s, ", iv)
		}
		cases.f("}, true\n")
	}
	p.f("\n// Lists of key types; nothing changes them.\nvar (\n")
	for _, l := range lists {
		types, err := p.Constants("CKK_", l)
		if err != nil {
			return err
		}
		p.f("%s = []KeyType{%s}\n", variable[l], strings.Join(types, ", "))
	}
	p.f(")\n\n// MechanismFacts returns what the standard says of a mechanism, and whether it\n// is known. The caller does not change the slice in it.\nfunc MechanismFacts(t MechanismType) (Facts, bool) {\nswitch t {\n")
	p.Write(cases.Bytes())
	p.f("}\nreturn Facts{}, false\n}\n")
	return nil
}

// ivLen is the length of a mechanism's IV, "" for none or any: the fact iv=, or
// the block of its first key type.
func (p *printer) ivLen(n table.Name) (string, error) {
	param := p.Param(strings.TrimSuffix(n.Fact("param"), "?"))
	if param == nil || !hasIV(param) {
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
	first, err := p.Constants("CKK_", short)
	if err != nil {
		return "", err
	}
	for _, k := range p.Section("KeyType").Names {
		if k.Name == first[0] {
			return k.Fact("block"), nil
		}
	}
	return "", nil
}

func hasIV(param *table.Param) bool {
	for _, f := range param.Fields {
		if f.Facts["length"] == "iv" || f.Facts["multiple"] == "iv" {
			return true
		}
	}
	return false
}
