package main

import (
	"fmt"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// checks are the statements that check v.
func checks(s *table.Param) (string, error) {
	var cases refusals
	var after strings.Builder
	for _, f := range s.Fields {
		if r, ok := f.Facts["range"]; ok && strings.Count(r, "..") != 1 {
			return "", fmt.Errorf("%s: %s: range=%s is not A..B", s.Name, f.Go, r)
		}
		if f.Go != "" {
			cases.field(s, f)
		}
		call := variable(f) + ".check(c)"
		if f.Facts.Has("check") {
			call = fmt.Sprintf("%s(c, %s)", f.Facts["check"], variable(f))
		} else if f.Inner == nil {
			continue
		}
		call = fmt.Sprintf("if err := %s; err != nil {\nreturn err\n}\n", call)
		if f.Facts.Has("optional") {
			call = fmt.Sprintf("if %s != nil {\n%s}\n", variable(f), call)
		}
		after.WriteString(call)
	}
	if cases.Len() == 0 {
		return after.String(), nil
	}
	return "switch {\n" + cases.String() + "}\n" + after.String(), nil
}

func variable(f *table.Field) string {
	if f.Go == "value" {
		return "v"
	}
	return "v." + f.Go
}

// refusals are the cases of a switch.
type refusals struct{ strings.Builder }

// add refuses under a condition, with a text for errorf and its arguments.
func (r *refusals) add(condition, text string, args ...string) {
	fmt.Fprintf(r, "case %s:\nreturn c.errorf(%s)\n", condition, strings.Join(append([]string{strconv.Quote(text)}, args...), ", "))
}

// field refuses values of the field.
func (r *refusals) field(s *table.Param, f *table.Field) {
	v, w := variable(f), f.Facts["word"]
	unit := ""
	if f.Facts.Has("unit") {
		unit = " " + f.Facts["unit"]
	}
	low, high, _ := strings.Cut(f.Facts["range"], "..")
	most := f.Facts["max"]
	// An absent value that the table gives as a number has no name.
	known := ""
	if d := f.Facts["default"]; d == "0" {
		known = v + " != 0 && "
	}
	switch f.Kind {
	case table.Hash:
		r.add(known+"HashSize("+v+") == 0", w+"= is no digest: %s", v+".Short()")
		if f.Facts["default"] == "mechanism" {
			r.add("c.facts.Hash != 0 && "+v+" != c.facts.Hash", w+"= is %s by the mechanism's name, not %s", "c.facts.Hash.Short()", v+".Short()")
		}
	case table.MGF:
		r.add(v+".HashOf() == 0", w+"= is not known: %s", v+".Short()")
	case table.Enum:
		r.add(known+v+`.known() == ""`, w+"= is not known: %s", v+".Short()")
	case table.Ulong:
		switch {
		case high != "":
			condition := v + " < " + low + " || " + v + " > " + high
			if low == "0" {
				condition = v + " > " + high
			}
			r.add(condition, w+"= is "+low+" to "+high+unit+", not %d", v)
		case f.Facts["one-of"] != "":
			list := strings.Split(f.Facts["one-of"], ",")
			last := len(list) - 1
			r.add(fmt.Sprintf("!oneOf(%s, %s)", v, strings.Join(list, ", ")),
				w+"= is "+strings.Join(list[:last], ", ")+" or "+list[last]+unit+", not %d", v)
		case most != "" && f.Facts["unit"] == "bytes":
			r.add(v+" > "+most, w+"= is too long: %d bytes", v)
		case most != "":
			r.add(v+" > "+most, w+"= is at most "+most+unit+", not %d", v)
		}
	case table.Bytes, table.Block:
		r.bytes(s, f)
	case table.Pointer:
		if !f.Facts.Has("optional") {
			r.add(v+" == nil", "a part of the parameter is missing")
		}
	}
}

func (r *refusals) bytes(s *table.Param, f *table.Field) {
	v, w := variable(f), f.Facts["word"]
	length := fmt.Sprintf("len(%s)", v)
	there := "" // what may come later has no length yet
	if f.Facts.Has("later") && f.Go != "value" {
		there = length + " > 0 && "
	}
	if low, high, ok := strings.Cut(f.Facts["range"], ".."); ok {
		r.add(there+"("+length+" < "+low+" || "+length+" > "+high+")", w+"= has "+low+" to "+high+" bytes, not %d", length)
	}
	if most := f.Facts["max"]; most != "" {
		r.add(length+" > "+most, w+"= has at most "+most+" bytes, not %d", length)
	}
	switch exact := f.Facts["length"]; exact {
	case "":
	case "iv":
		r.add(there+"c.facts.IVLen > 0 && "+length+" != c.facts.IVLen", w+"= has %d bytes, not %d", "c.facts.IVLen", length)
	default:
		r.add(there+length+" != "+exact, w+"= has "+exact+" bytes, not %d", length)
	}
	if f.Facts["multiple"] == "iv" {
		r.add("!blocks("+v+", c.facts.IVLen)", w+"= has a multiple of %d bytes, not %d", "c.facts.IVLen", length)
	}
	if f.Facts.Has("later") {
		absent := length + " == 0"
		if f.Go != "value" { // which is no parameter if it is absent
			absent += " && !c.partial"
		}
		text := w + "= is missing"
		if f.About != "" {
			text += ": " + f.About
		}
		r.add(absent, text)
	}
	if other := s.Field(f.Facts["only-with"]); other != nil {
		r.add("v."+other.Go+" == "+absent(other, "c")+" && "+length+" > 0", w+"= needs a "+other.Facts["word"]+"=")
	}
}
