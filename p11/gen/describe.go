package main

import (
	"fmt"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// chapters groups the mechanisms by the text that says where they are described.
func chapters(t *table.Table) (groups []*group, err error) {
	if len(t.Chapters) == 0 {
		return nil, nil
	}
	for _, m := range t.Mechanisms() {
		c, ok := t.ChapterOf(short("CKM_", m.Name))
		if !ok {
			return nil, fmt.Errorf("%s is in no chapter", m.Name)
		}
		text := c.Title
		if c.Number != "" {
			text = t.Standard + " §" + c.Number + ", " + c.Title
		}
		groups = add(groups, text, m.Name)
	}
	return groups, nil
}

// described gives the members of the p11.ParamWord of a field.
func described(p *table.Param, f *table.Field) string {
	members := member("Name", quoted(f.Facts["word"])) + member("About", quoted(f.About))
	if p.Custom {
		return strings.TrimSuffix(members, ", ")
	}
	members += member("Takes", quoted(takes(f)))
	absent := f.Facts["default"]
	size, isSize := strings.CutPrefix(absent, "size-of:")
	switch {
	case f.Facts.Has("required"):
		members += member("Needed", "true")
	case f.Facts.Has("later"):
		members += member("Later", "true")
	case f.Kind == table.MGF:
		absent = "that over the digest"
	case absent == "mechanism":
		absent = "the digest of the mechanism's name"
	case isSize:
		absent = "as long as " + strings.ToLower(size) + "="
	case isNumber(absent):
	case absent != "":
		_, name, _ := strings.Cut(absent, "_")
		absent = short("", name)
	}
	return strings.TrimSuffix(members+member("Absent", quoted(absent)), ", ")
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 0, 64)
	return err == nil
}

// takes says what a word of a parameter may be.
func takes(f *table.Field) string {
	what := map[table.Kind]string{
		table.Handle: "the number of an object", table.Bool: "true or false", table.Hash: "a digest, such as sha256", table.MGF: "mgf1-sha256 or another MGF",
		table.Bytes: "bytes", table.Block: "a block of the cipher", table.Array: strconv.Itoa(f.Size) + " bytes",
	}[f.Kind]
	if f.Kind == table.Enum {
		what = "the name of " + article(f.Enum) + " " + f.Enum
	}
	switch {
	case f.Kind == table.Bytes && f.Facts["length"] == "iv":
		return "IV" // ParamWords knows how many bytes
	case f.Facts["multiple"] == "iv":
		return "a multiple of the IV's bytes"
	}
	bounds := ""
	if least, most, ok := strings.Cut(f.Facts["range"], ".."); ok {
		bounds = least + " to " + most
	} else if list := f.Facts["one-of"]; list != "" {
		bounds = strings.ReplaceAll(list, ",", ", ")
	} else if most := f.Facts["max"]; most != "" {
		bounds = "at most " + most
	}
	unit := f.Facts["unit"]
	switch {
	case f.Kind == table.Ulong && bounds == "" && unit == "":
		return "a number"
	case f.Kind == table.Ulong && bounds == "":
		return "a number of " + unit
	case f.Kind == table.Ulong:
		return strings.TrimSpace(bounds + " " + unit)
	case bounds != "":
		return bounds + " " + what
	}
	return what
}
