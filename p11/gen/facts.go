package main

import (
	"bytes"
	"fmt"
	"strings"
)

// kindConst maps an attribute's kind in the table to its Go constant.
func kindConst(kind string) (string, error) {
	switch kind {
	case "bool", "ulong", "class", "mechanism", "bytes", "text", "date", "template", "curve", "profile", "trust",
		"key-type", "certificate-type", "hardware-feature", "mechanism-list", "certificate-category",
		"security-domain", "otp-format", "otp-requirement", "validation-type", "validation-authority":
		return "Kind" + camel(kind), nil
	case "bigint":
		return "KindBigInt", nil
	}
	return "", fmt.Errorf("unknown kind %q", kind)
}

func camel(s string) string {
	var b strings.Builder
	for _, w := range strings.Split(s, "-") {
		switch w {
		case "iv", "otp", "rsa", "aes", "mac", "oaep", "pss", "gcm", "ctr", "ecdh1":
			b.WriteString(strings.ToUpper(w))
		default:
			b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	return b.String()
}

func writeFacts(b *bytes.Buffer, sections []section) error {
	known := make(map[string]bool)
	for _, s := range sections {
		for _, n := range s.names {
			known[n.name] = true
		}
	}
	for _, s := range sections {
		var err error
		switch s.goType {
		case "AttributeType":
			err = writeKinds(b, s)
		case "MechanismType":
			err = writeMechanismFacts(b, s, known)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeKinds(b *bytes.Buffer, s section) error {
	byKind := make(map[string][]string)
	var order, secret []string
	for _, n := range s.names {
		if len(n.facts) == 0 {
			return fmt.Errorf("%s has no kind", n.name)
		}
		k, err := kindConst(n.facts[0])
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		if byKind[k] == nil {
			order = append(order, k)
		}
		byKind[k] = append(byKind[k], n.name)
		for _, f := range n.facts[1:] {
			if f != "secret" {
				return fmt.Errorf("%s: unknown fact %q", n.name, f)
			}
			secret = append(secret, n.name)
		}
	}
	b.WriteString("\n// KindOf returns how the value of an attribute is laid out; KindBytes for an\n// attribute that is not known.\nfunc KindOf(t AttributeType) Kind {\nswitch t {\n")
	for _, k := range order {
		if k == "KindBytes" {
			continue
		}
		fmt.Fprintf(b, "case %s:\nreturn %s\n", strings.Join(byKind[k], ",\n"), k)
	}
	b.WriteString("}\nreturn KindBytes\n}\n")
	fmt.Fprintf(b, "\n// SecretValue says whether the attribute can hold key material. CKA_VALUE can;\n// Attributes.Secret knows for which classes it does.\nfunc SecretValue(t AttributeType) bool {\nswitch t {\ncase %s:\nreturn true\n}\nreturn false\n}\n",
		strings.Join(secret, ",\n"))
	return nil
}

func writeMechanismFacts(b *bytes.Buffer, s section, known map[string]bool) error {
	var keyLists []string
	keyVar := make(map[string]string)
	var cases bytes.Buffer
	for _, n := range s.names {
		if len(n.facts) == 0 {
			continue
		}
		fmt.Fprintf(&cases, "case %s:\nreturn Facts{", n.name)
		for _, f := range n.facts {
			key, value, _ := strings.Cut(f, "=")
			switch key {
			case "fn":
				flags, err := constants("CKF_", value, known)
				if err != nil {
					return err
				}
				fmt.Fprintf(&cases, "Functions: %s, ", strings.Join(flags, "|"))
			case "key":
				v := keyVar[value]
				if v == "" {
					v = "keys" + camel(strings.ReplaceAll(value, ",", "-"))
					keyVar[value] = v
					keyLists = append(keyLists, value)
				}
				fmt.Fprintf(&cases, "KeyTypes: %s, ", v)
			case "hash":
				hash, err := constants("CKM_", value, known)
				if err != nil {
					return err
				}
				fmt.Fprintf(&cases, "Hash: %s, ", hash[0])
			case "param":
				fmt.Fprintf(&cases, "Param: Param%s, ", camel(value))
			case "single":
				cases.WriteString("SinglePart: true, ")
			default:
				return fmt.Errorf("%s: unknown fact %q", n.name, f)
			}
		}
		cases.WriteString("}, true\n")
	}
	b.WriteString("\n// Lists of key types; nothing changes them.\nvar (\n")
	for _, l := range keyLists {
		types, err := constants("CKK_", l, known)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s = []KeyType{%s}\n", keyVar[l], strings.Join(types, ", "))
	}
	b.WriteString(")\n\n// MechanismFacts returns what the standard says of a mechanism, and whether it\n// is known. The caller does not change the slice in it.\nfunc MechanismFacts(t MechanismType) (Facts, bool) {\nswitch t {\n")
	b.Write(cases.Bytes())
	b.WriteString("}\nreturn Facts{}, false\n}\n")
	return nil
}

// constants turns short names, joined by commas, into the constants' names.
func constants(prefix, list string, known map[string]bool) ([]string, error) {
	var names []string
	for _, short := range strings.Split(list, ",") {
		c := prefix + strings.ToUpper(strings.ReplaceAll(short, "-", "_"))
		if !known[c] {
			return nil, fmt.Errorf("table.txt has no %s", c)
		}
		names = append(names, c)
	}
	return names, nil
}

func writeAdvice(b *bytes.Buffer, sections []section) error {
	for _, s := range sections {
		if s.goType != "RV" {
			continue
		}
		b.WriteString("\n// Advice says in one line what to do about the error.\nfunc (v RV) Advice() string {\nswitch v {\n")
		for _, n := range s.names {
			if len(n.facts) != 1 {
				return fmt.Errorf("%s: no advice", n.name)
			}
			fmt.Fprintf(b, "case %s:\nreturn %q\n", n.name, n.facts[0])
		}
		b.WriteString("}\nreturn \"look up the number in the token vendor's manual\"\n}\n")
	}
	return nil
}
