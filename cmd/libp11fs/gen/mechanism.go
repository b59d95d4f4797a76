package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"p11fs/p11"
	"p11fs/p11/gen/table"
)

// structs makes the C structs of the parameters of mechanisms.
func structs(t *table.Table) string {
	var b strings.Builder
	b.WriteString(banner + "/* The parameters of mechanisms; pkcs11.h includes this. */\n#ifndef P11FS_MECHANISM_GEN_H\n#define P11FS_MECHANISM_GEN_H\n")
	for _, p := range t.Params {
		if p.Custom || p.CType == "" {
			continue
		}
		if p.Value() {
			fmt.Fprintf(&b, "\ntypedef CK_ULONG %s;\n", p.CType)
			continue
		}
		for _, v := range variants(p) {
			b.WriteString("\ntypedef struct {\n")
			for _, f := range members(p, v) {
				b.WriteString(member(f, v))
			}
			fmt.Fprintf(&b, "} %s;\n", v.CType)
		}
	}
	b.WriteString("\n#endif\n")
	return b.String()
}

// variants are the C structs of a parameter.
func variants(p *table.Param) []table.Variant {
	return append([]table.Variant{{CType: p.CType}}, p.Also...)
}

// members are the fields that a variant has.
func members(p *table.Param, v table.Variant) []*table.Field {
	return slices.DeleteFunc(slices.Clone(p.Fields), func(f *table.Field) bool { return f.C == v.Without || f.Facts.Has("room-of") })
}

// member declares a field of a struct.
func member(f *table.Field, v table.Variant) string {
	switch f.Kind {
	case table.Hash:
		return fmt.Sprintf("    CK_MECHANISM_TYPE %s;\n", f.C)
	case table.Handle:
		return fmt.Sprintf("    CK_OBJECT_HANDLE %s;\n", f.C)
	case table.Bool:
		if out := f.Facts["out"]; out != "" {
			return fmt.Sprintf("    %s *%s;\n", out, f.C)
		}
		return fmt.Sprintf("    CK_BBOOL %s;\n", f.C)
	case table.Bytes:
		pointer, length := fmt.Sprintf("    void *%s;\n", f.C), fmt.Sprintf("    CK_ULONG %s;\n", f.CLen())
		if f.Facts.Has("len-first") {
			return length + pointer
		}
		return pointer + length
	case table.Array:
		return fmt.Sprintf("    CK_BYTE %s[%d];\n", f.C, f.Size)
	case table.Block:
		return fmt.Sprintf("    CK_BYTE %s[%d];\n", f.C, cmp.Or(v.Block, f.Size))
	case table.Struct:
		return fmt.Sprintf("    %s %s;\n", f.Inner.CType, f.C)
	case table.Pointer:
		return fmt.Sprintf("    %s *%s;\n", f.Inner.CType, f.C)
	}
	return fmt.Sprintf("    CK_ULONG %s;\n", f.C)
}

// packers makes the functions that write parameters, and the table that says
// which mechanism has which.
func packers(t *table.Table) string {
	var b strings.Builder
	b.WriteString(banner + "/* Writes the parameters of mechanisms. */\n#include \"mechanism.h\"\n")
	for _, p := range t.Params {
		if !p.Custom && p.CType != "" && !p.Value() {
			for _, v := range variants(p) {
				packStruct(&b, p, v)
			}
		}
		if p.Layout > 0 {
			packParam(&b, p)
			unpackOut(&b, p)
		}
	}

	type row struct {
		number uint64
		text   string
	}
	var rows []row
	for _, m := range t.Mechanisms() {
		if len(m.Facts) == 0 {
			continue // no mechanism but a number where some begin
		}
		text := "LAYOUT_NONE, 0, NULL, NULL, false"
		if name := strings.TrimSuffix(m.Fact("param"), "?"); name != "" {
			facts, _ := p11.MechanismFacts(p11.MechanismType(m.Number))
			text = fmt.Sprintf("LAYOUT_BYTES, %d, NULL, NULL, false", facts.IVLen)
			if p := t.Param(name); p != nil && p.Layout > 0 {
				text = fmt.Sprintf("%d, 0, param_%s, %s, %t", p.Layout, p.Name, gotName(p), keyless(p))
			}
		}
		rows = append(rows, row{m.Number, fmt.Sprintf("    {%s, %s},\n", m.Name, text)})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.number, b.number) })
	b.WriteString("\n/* All mechanisms that are known, in ascending order. */\nconst struct param params[] = {\n")
	for _, r := range rows {
		b.WriteString(r.text)
	}
	b.WriteString("};\n\nconst size_t params_count = sizeof params / sizeof params[0];\n")
	return b.String()
}

// packName is the function that writes a struct.
func packName(cType string) string {
	return "put_" + strings.ToLower(strings.TrimPrefix(cType, "CK_"))
}

func packStruct(b *strings.Builder, p *table.Param, v table.Variant) {
	fmt.Fprintf(b, "\nstatic void %s(struct call *c, const %s *p)\n{\n", packName(v.CType), v.CType)
	for _, f := range p.Fields {
		if f.C == v.Without { // which can be told from another
			of := p.Field(f.Facts["bits-of"])
			fmt.Fprintf(b, "    put_ulong(c, p->%s * 8);\n", of.CLen())
			continue
		}
		switch f.Kind {
		case table.Bool:
			fmt.Fprintf(b, "    put_byte(c, p->%s != 0);\n", f.C)
		case table.Bytes:
			length := "p->" + f.CLen()
			if most, bits := f.Facts["len-bits"]; bits {
				bytes := length
				if length = bytes + " / 8 + (" + bytes + " % 8 != 0)"; most != "" {
					length = fmt.Sprintf("%s <= %s ? %s : %s", bytes, most, bytes, length)
				}
			}
			pointer := "p->" + f.C
			if f.Facts.Has("made") { // what is there then is the program's
				pointer, length = fmt.Sprintf("%s ? NULL : %s", made(p, f), pointer), fmt.Sprintf("%s ? 0 : %s", made(p, f), length)
			}
			fmt.Fprintf(b, "    put_data(c, %s, %s);\n", pointer, length)
		case table.Array, table.Block:
			fmt.Fprintf(b, "    put_data(c, p->%s, sizeof p->%s);\n", f.C, f.C)
		case table.Struct:
			fmt.Fprintf(b, "    %s(c, &p->%s);\n", packName(f.Inner.CType), f.C)
		case table.Pointer:
			absent := "    else\n        bad_param(c);\n"
			if f.Facts.Has("optional") {
				absent = ""
				fmt.Fprintf(b, "    put_byte(c, p->%s != NULL);\n", f.C)
			}
			fmt.Fprintf(b, "    if (p->%s != NULL)\n        %s(c, p->%s);\n%s", f.C, packName(f.Inner.CType), f.C, absent)
		default:
			value := "p->" + f.C
			if of := p.Field(f.Facts["room-of"]); of != nil {
				value = fmt.Sprintf("%s && p->%s != NULL ? %s : 0", made(p, of), of.C, value)
			}
			fmt.Fprintf(b, "    put_ulong(c, %s);\n", value)
		}
	}
	b.WriteString("}\n")
}

// made is the condition in C under which the mechanism gives the bytes of a field.
func made(p *table.Param, f *table.Field) string {
	return fmt.Sprintf("p->%s == %s", p.Field(f.Facts["of"]).C, f.Facts["made"])
}

// packParam writes the function that writes a mechanism's parameter, whichever of
// its structs it is. That of a custom one is by hand.
func packParam(b *strings.Builder, p *table.Param) {
	if p.Custom {
		fmt.Fprintf(b, "\nvoid param_%s(struct call *c, const CK_MECHANISM *m);\n", p.Name)
		return
	}
	var tries []string
	for _, v := range variants(p) {
		put := packName(v.CType) + "(c, m->pParameter)"
		if p.Value() {
			put = fmt.Sprintf("put_ulong(c, *(const %s *)m->pParameter)", v.CType)
		}
		tries = append(tries, fmt.Sprintf("if (m->ulParameterLen == sizeof(%s))\n        %s;\n", v.CType, put))
	}
	fmt.Fprintf(b, "\nstatic void param_%s(struct call *c, const CK_MECHANISM *m)\n{\n    %s    else\n        bad_param(c);\n}\n",
		p.Name, strings.Join(tries, "    else "))
}

// out is the field of what the mechanism gives beside keys, nil if there is none.
func out(p *table.Param) *table.Field {
	for _, f := range p.Fields {
		if f.Facts.Has("out") || f.Facts.Has("made") {
			return f
		}
	}
	return nil
}

// gotName is the function that takes from the reply what the mechanism gives.
func gotName(p *table.Param) string {
	if p.Out || out(p) != nil {
		return "got_" + p.Name
	}
	return "NULL"
}

// keyless says whether all keys that come of the parameter are in what it points to, so
// that C_DeriveKey has no handle to give.
func keyless(p *table.Param) bool {
	f := out(p)
	return f != nil && f.Facts["out"] == "CK_SSL3_KEY_MAT_OUT"
}

// unpackOut writes that function, which for a custom parameter is by hand, as is that of
// the struct that gets it.
func unpackOut(b *strings.Builder, p *table.Param) {
	f := out(p)
	switch {
	case p.Out:
		fmt.Fprintf(b, "\nvoid got_%s(struct call *c, const CK_MECHANISM *m);\n", p.Name)
	case f != nil && f.Facts.Has("made"):
		fmt.Fprintf(b, "\nstatic void got_%s(struct call *c, const CK_MECHANISM *m)\n{\n    %s *p = m->pParameter;\n    CK_ULONG none = 0;\n\n    got_bytes(c, p->%s, %s ? &p->%s : &none);\n}\n",
			p.Name, p.CType, f.C, made(p, f), f.CLen())
	case f != nil:
		room := "0"
		if of := p.Field(f.Facts["room"]); of != nil {
			room = "p->" + of.C
		}
		fmt.Fprintf(b, "\nstatic void got_%s(struct call *c, const CK_MECHANISM *m)\n{\n    const %s *p = m->pParameter;\n\n    got_%s(c, p->%s, %s);\n}\n",
			p.Name, p.CType, strings.ToLower(strings.TrimPrefix(f.Facts["out"], "CK_")), f.C, room)
	}
}
