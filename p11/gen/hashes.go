package main

import (
	"encoding/asn1"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// A hash is a row of the table of hashes, with the constants that are over it.
type hash struct {
	Type, MGF, KDF, SP800 string
	Members               string // of a p11.Hash
}

// member writes a member of a struct, nothing for one without a value.
func member(name, value string) string {
	if value == "" {
		return ""
	}
	return name + ": " + value + ", "
}

// quoted quotes text, if there is any.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return strconv.Quote(s)
}

// hashes gathers the hashes, and the mechanisms over them.
func hashes(t *table.Table) (list []hash, err error) {
	for _, row := range t.Hashes {
		short, h := row.Words[0], hash{}
		for _, c := range []struct {
			to             *string
			prefix, suffix string
		}{{&h.Type, "CKM_", short}, {&h.MGF, "CKG_", row.Facts["mgf"]}, {&h.KDF, "CKD_", row.Facts["kdf"]}, {&h.SP800, "CKD_", row.Facts["sp800"]}} {
			if c.suffix == "" {
				continue
			}
			names, err := t.Constants(c.prefix, c.suffix)
			if err != nil {
				return nil, fmt.Errorf("hash %s: %w", short, err)
			}
			*c.to = names[0]
		}
		if _, err := strconv.ParseUint(row.Words[1], 10, 16); err != nil {
			return nil, fmt.Errorf("hash %s: size %q", short, row.Words[1])
		}
		h.Members = member("Type", h.Type) + member("Size", row.Words[1]) + member("OID", quoted(row.Facts["oid"])) + member("MGF", h.MGF) + member("KDF", h.KDF) + member("SP800", h.SP800)
		for _, family := range []struct{ field, prefix, suffix string }{
			{"HMAC", "", "_HMAC"}, {"HMACGeneral", "", "_HMAC_GENERAL"},
			{"PKCS1", "", "_RSA_PKCS"}, {"PSS", "", "_RSA_PKCS_PSS"}, {"ECDSA", "CKM_ECDSA_", ""}, {"DSA", "CKM_DSA_", ""},
			{"MLDSA", "CKM_HASH_ML_DSA_", ""}, {"SLHDSA", "CKM_HASH_SLH_DSA_", ""},
			{"KeyGen", "", "_KEY_GEN"}, {"Derive", "", "_KEY_DERIVATION"}, {"Derive", "", "_KEY_DERIVE"},
		} {
			for _, m := range t.Mechanisms() {
				if m.Fact("hash") == short && strings.HasPrefix(m.Name, family.prefix) && strings.HasSuffix(m.Name, family.suffix) {
					h.Members += member(family.field, m.Name)
				}
			}
		}
		if c := row.Facts["go"]; c != "" {
			h.Members += member("Go", "crypto."+c)
		}
		list = append(list, h)
	}
	return list, nil
}

// packages are those of package crypto that have one of the curves.
func packages(curves []table.Row) (list []string) {
	for _, pkg := range []string{"ecdh", "elliptic"} {
		if slices.ContainsFunc(curves, func(row table.Row) bool { return row.Facts.Has(pkg) }) {
			list = append(list, pkg)
		}
	}
	return list
}

// curve gives the members of a p11.Curve.
func curve(t *table.Table, row table.Row) (string, error) {
	name, oid, bits := row.Words[0], row.Words[1], row.Words[2]
	der, err := oidDER(oid)
	if err != nil {
		return "", fmt.Errorf("curve %s: %w", name, err)
	}
	key, err := t.Constants("CKK_", row.Facts["key"])
	if err != nil {
		return "", fmt.Errorf("curve %s: %w", name, err)
	}
	if _, err := strconv.ParseUint(bits, 10, 16); err != nil {
		return "", fmt.Errorf("curve %s: bits %q", name, bits)
	}
	members := member("Name", quoted(name)) + member("OID", quoted(oid)) + member("Bits", bits) + member("KeyType", key[0]) +
		member("params", quoted(string(der))) + member("NIST", quoted(row.Facts["nist"])) + member("aka", quoted(row.Facts["aka"])) + member("Numbers", quoted(row.Facts["numbers"]))
	for _, c := range []struct{ member, pkg string }{{"Elliptic", "elliptic"}, {"ECDH", "ecdh"}} {
		if f := row.Facts[c.pkg]; f != "" {
			members += member(c.member, c.pkg+"."+f+"()")
		}
	}
	return strings.TrimSuffix(members, ", "), nil
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
