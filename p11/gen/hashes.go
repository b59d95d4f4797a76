package main

import (
	"encoding/asn1"
	"fmt"
	"strconv"
	"strings"
)

// A hash is a row of the table of hashes, and the mechanisms over it.
type hash struct {
	typ, size, oid, mgf, kdf, golang string
	over                             map[string]string // field of p11.Hash → mechanism
}

func (p *printer) hashRows() ([]hash, error) {
	var list []hash
	for _, row := range p.Hashes {
		short := row.Words[0]
		h := hash{size: row.Words[1], oid: row.Facts["oid"], golang: row.Facts["go"], over: map[string]string{}}
		for _, c := range []struct {
			to             *string
			prefix, suffix string
		}{{&h.typ, "CKM_", short}, {&h.mgf, "CKG_", row.Facts["mgf"]}, {&h.kdf, "CKD_", row.Facts["kdf"]}} {
			if c.suffix == "" {
				continue
			}
			names, err := p.Constants(c.prefix, c.suffix)
			if err != nil {
				return nil, fmt.Errorf("hash %s: %w", short, err)
			}
			*c.to = names[0]
		}
		if _, err := strconv.ParseUint(h.size, 10, 16); err != nil {
			return nil, fmt.Errorf("hash %s: size %q", short, h.size)
		}
		for _, m := range p.Mechanisms() {
			if m.Fact("hash") != short {
				continue
			}
			for _, family := range []struct{ field, prefix, suffix string }{
				{"HMAC", "", "_HMAC"}, {"HMACGeneral", "", "_HMAC_GENERAL"},
				{"PKCS1", "", "_RSA_PKCS"}, {"PSS", "", "_RSA_PKCS_PSS"}, {"ECDSA", "CKM_ECDSA_", ""},
			} {
				if strings.HasPrefix(m.Name, family.prefix) && strings.HasSuffix(m.Name, family.suffix) {
					h.over[family.field] = m.Name
				}
			}
		}
		list = append(list, h)
	}
	return list, nil
}

func (p *printer) hashes() error {
	list, err := p.hashRows()
	if err != nil || len(list) == 0 {
		return err
	}
	p.f("\nimport \"crypto\"\n")
	p.f("\n// HashOf returns the hash that a digest mechanism is, and whether it is one.\nfunc HashOf(t MechanismType) (Hash, bool) {\nswitch t {\n")
	for _, h := range list {
		p.f("case %s:\nreturn Hash{Type: %s, Size: %s", h.typ, h.typ, h.size)
		if h.oid != "" {
			p.f(", OID: %q", h.oid)
		}
		if h.mgf != "" {
			p.f(", MGF: %s", h.mgf)
		}
		if h.kdf != "" {
			p.f(", KDF: %s", h.kdf)
		}
		for _, field := range []string{"HMAC", "HMACGeneral", "PKCS1", "PSS", "ECDSA"} {
			if m := h.over[field]; m != "" {
				p.f(", %s: %s", field, m)
			}
		}
		if h.golang != "" {
			p.f(", Go: crypto.%s", h.golang)
		}
		p.f("}, true\n")
	}
	p.f("}\nreturn Hash{}, false\n}\n")

	p.f("\nfunc hashTypes() []MechanismType {\nreturn []MechanismType{\n")
	for _, h := range list {
		p.f("%s,\n", h.typ)
	}
	p.f("}\n}\n")
	for _, by := range []struct {
		typ, doc string
		of       func(hash) string
	}{
		{"MGF", "a mask generation function uses", func(h hash) string { return h.mgf }},
		{"KDF", "an ANSI X9.63 key derivation function uses", func(h hash) string { return h.kdf }},
	} {
		p.f("\n// HashOf returns the digest that %s, and 0 if it is\n// not known.\nfunc (v %s) HashOf() MechanismType {\nswitch v {\n", by.doc, by.typ)
		for _, h := range list {
			if c := by.of(h); c != "" {
				p.f("case %s:\nreturn %s\n", c, h.typ)
			}
		}
		p.f("}\nreturn 0\n}\n")
	}
	return nil
}

func (p *printer) curves() error {
	if len(p.Curves) == 0 {
		return nil
	}
	imports := map[string]bool{}
	for _, row := range p.Curves {
		for _, pkg := range []string{"elliptic", "ecdh"} {
			if row.Facts.Has(pkg) {
				imports[pkg] = true
			}
		}
	}
	p.f("\nimport (\n")
	for _, pkg := range []string{"ecdh", "elliptic"} {
		if imports[pkg] {
			p.f("\"crypto/%s\"\n", pkg)
		}
	}
	p.f(")\n")
	p.f("\n// Curves returns the named curves, in the order of the table.\nfunc Curves() []Curve {\nreturn []Curve{\n")
	for _, row := range p.Curves {
		name, oid, bits := row.Words[0], row.Words[1], row.Words[2]
		der, err := oidDER(oid)
		if err != nil {
			return fmt.Errorf("curve %s: %w", name, err)
		}
		key, err := p.Constants("CKK_", row.Facts["key"])
		if err != nil {
			return fmt.Errorf("curve %s: %w", name, err)
		}
		if _, err := strconv.ParseUint(bits, 10, 16); err != nil {
			return fmt.Errorf("curve %s: bits %q", name, bits)
		}
		p.f("{Name: %q, OID: %q, Bits: %s, KeyType: %s, params: %q", name, oid, bits, key[0], der)
		if nist := row.Facts["nist"]; nist != "" {
			p.f(", NIST: %q", nist)
		}
		if aka := row.Facts["aka"]; aka != "" {
			p.f(", aka: %q", aka)
		}
		if c := row.Facts["elliptic"]; c != "" {
			p.f(", Elliptic: elliptic.%s()", c)
		}
		if c := row.Facts["ecdh"]; c != "" {
			p.f(", ECDH: ecdh.%s()", c)
		}
		p.f("},\n")
	}
	p.f("}\n}\n")
	return nil
}

func oidDER(s string) ([]byte, error) {
	var oid asn1.ObjectIdentifier
	for _, arc := range strings.Split(s, ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			return nil, fmt.Errorf("object identifier %q", s)
		}
		oid = append(oid, n)
	}
	return asn1.Marshal(oid)
}
