package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// params writes the parameters of mechanisms: types, what dispatches on their
// kind, and for each struct how its words are read and printed, what is checked,
// and what goes over a wire.
func (p *printer) params() error {
	p.paramKinds()
	declared := map[string]bool{"RawParam": true}
	for _, s := range p.Params {
		if !declared[s.GoType] && !s.Custom {
			p.paramType(s)
		}
		if !declared[s.GoType] && s.Value() {
			p.valueMethods(s)
		}
		declared[s.GoType] = true
		if s.Custom || s.Value() {
			continue
		}
		p.parseMethod(s)
		p.printMethod(s)
		if err := p.checkMethod(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		p.codeMethod(s)
	}
	if slices.ContainsFunc(p.Params, func(s *table.Param) bool {
		return slices.ContainsFunc(s.Fields, func(f *table.Field) bool { return f.Kind == table.Bool })
	}) {
		p.f("\n// flag reads a word that is true or false.\nfunc (p *paramParser) flag(name string) bool {\nw, ok := p.get(name)\nif ok && w.value != \"true\" && w.value != \"false\" {\np.fail(\"%%s= is true or false\", name)\n}\nreturn w.value == \"true\"\n}\n")
	}
	return nil
}

// goParam is the Go type that is a Param.
func goParam(s *table.Param) string {
	if s.Value() {
		return s.GoType
	}
	return "*" + s.GoType
}

// kinds are the parameters without the structs in them.
func (p *printer) kinds() []*table.Param {
	return slices.DeleteFunc(slices.Clone(p.Params), func(s *table.Param) bool { return s.Layout < 0 })
}

func (p *printer) paramKinds() {
	p.f("\n// ParamKind says which parameter a mechanism takes.\ntype ParamKind int\n")
	p.f("\n// The parameters. ParamRaw is one that this package does not take apart.\nconst (\nParamNone ParamKind = iota\nParamRaw // RawParam\n")
	for _, s := range p.kinds() {
		p.f("Param%s // %s\n", s.Name, goParam(s))
	}
	p.f(")\n")

	p.f("\n// Layout is the number of the kind in our own protocol: 0 for bytes.\nfunc (k ParamKind) Layout() uint8 {\nswitch k {\n")
	for _, s := range p.kinds() {
		if s.Layout > 0 {
			p.f("case Param%s:\nreturn %d\n", s.Name, s.Layout)
		}
	}
	p.f("}\nreturn 0\n}\n")
	p.words()
	p.parseKinds()

	p.f("\n// check checks a parameter of the kind.\nfunc (k ParamKind) check(c checker, p Param) error {\nswitch k {\n")
	for _, s := range p.kinds() {
		p.f("case Param%s:\nif v, ok := p.(%s); ok {\n", s.Name, goParam(s))
		if s.Value() {
			p.checks(s)
			p.f("return nil\n}\n")
		} else {
			p.f("return v.check(c)\n}\n")
		}
	}
	p.f("}\nreturn c.errorf(\"the parameter is of another mechanism's type\")\n}\n")

	p.f("\n// read takes a parameter of the kind from c.\nfunc (k ParamKind) read(c Coder) Param {\nswitch k {\n")
	for _, s := range p.kinds() {
		switch {
		case !s.Value():
			p.f("case Param%s:\nv := new(%s)\nv.Code(c)\nreturn v\n", s.Name, s.GoType)
		case s.Fields[0].Kind == table.Bytes && s.GoType != "RawParam":
			p.f("case Param%s:\nvar v %s\nc.Bytes((*[]byte)(&v))\nreturn v\n", s.Name, s.GoType)
		case s.Fields[0].Kind != table.Bytes:
			p.f("case Param%s:\nvar v %s\nc.Ulong((*uint64)(&v))\nreturn v\n", s.Name, s.GoType)
		}
	}
	p.f("}\nvar v RawParam\nc.Bytes((*[]byte)(&v))\nreturn v\n}\n")
}

func (p *printer) words() {
	var all []string
	p.f("\n// words returns the words of the kind.\nfunc (k ParamKind) words() []paramWord {\nswitch k {\n")
	for _, s := range p.kinds() {
		parts := map[*table.Field]int{} // fields of optional structs
		for i, f := range s.Fields {
			if f.Facts.Has("optional") {
				for _, w := range f.Inner.Words() {
					parts[w] = i + 1
				}
			}
		}
		p.f("case Param%s:\nreturn []paramWord{\n", s.Name)
		for _, f := range s.Words() {
			all = append(all, strconv.Quote(f.Facts["word"]))
			p.f("{name: %q", f.Facts["word"])
			for _, text := range []struct{ name, value string }{{"about", f.About}, {"sample", f.Facts["sample"]}} {
				if text.value != "" {
					p.f(", %s: %q", text.name, text.value)
				}
			}
			if f.Facts.Has("required") && f.Kind != table.Array { // whose length is wrong if it is missing
				p.f(", required: true")
			}
			if f.Facts["default"] == "mechanism" {
				p.f(", fromName: true")
			}
			if f.Kind == table.Array {
				p.f(", size: %d", f.Size)
			}
			if parts[f] != 0 {
				p.f(", part: %d", parts[f])
			}
			p.f("},\n")
		}
		p.f("}\n")
	}
	p.f("}\nreturn nil\n}\n")
	slices.Sort(all)
	p.f("\n// isParamWord says whether the word is a parameter's; no attribute has such a\n// name.\nfunc isParamWord(s string) bool {\nswitch s {\ncase %s:\nreturn true\n}\nreturn false\n}\n",
		strings.Join(append(slices.Compact(all), `"param"`), ", "))
}

func (p *printer) parseKinds() {
	p.f("\n// parse makes the parameter of the words.\nfunc (k ParamKind) parse(p *paramParser) Param {\nswitch k {\n")
	for _, s := range p.kinds() {
		p.f("case Param%s:\n", s.Name)
		if s.Value() && s.Fields[0].Kind == table.Bytes {
			f := s.Fields[0]
			p.f("if v := p.bytes(%q, %s); v != nil {\nreturn %s(v)\n}\n", f.Facts["word"], emptyOf(f), s.GoType)
		} else if s.Value() {
			f := s.Fields[0]
			p.f("return %s(p.number(%q, %s))\n", s.GoType, f.Facts["word"], absent(f, "p"))
		} else {
			p.f("v := new(%s)\nv.parse(p)\nreturn v\n", s.GoType)
		}
	}
	p.f("}\nreturn nil\n}\n")

	p.f("\n// fromBytes is the parameter that param= gives.\nfunc (k ParamKind) fromBytes(b []byte) Param {\nswitch k {\n")
	for _, s := range p.kinds() {
		if s.Value() && s.Fields[0].Kind == table.Bytes && s.GoType != "RawParam" {
			p.f("case Param%s:\nreturn %s(b)\n", s.Name, s.GoType)
		}
	}
	p.f("}\nreturn RawParam(b)\n}\n")

	p.f("\n// rawWord is the word of a RawParam of the kind.\nfunc (k ParamKind) rawWord() string {\nswitch k {\n")
	for _, s := range p.kinds() {
		if s.GoType == "RawParam" {
			p.f("case Param%s:\nreturn %q\n", s.Name, s.Fields[0].Facts["word"])
		}
	}
	p.f("}\nreturn \"param\"\n}\n")
}

func (p *printer) paramType(s *table.Param) {
	doc := s.Doc
	switch {
	case s.CType != "" && doc != "" && s.Value():
		doc = s.CType + ": " + doc
	case s.CType != "" && doc != "":
		doc = s.CType + " (" + doc + ")"
	case s.CType != "":
		doc = s.CType
	}
	p.f("\n// %s is %s.\ntype %s ", s.GoType, doc, s.GoType)
	if s.Value() {
		p.f("%s\n", goType(s.Fields[0]))
		return
	}
	p.f("struct {\n")
	for _, f := range s.Fields {
		if f.Go == "" {
			continue
		}
		p.f("%s %s", f.Go, goType(f))
		if about := f.About; about != "" {
			p.f(" // %s", about)
		} else if f.Facts.Has("unit") {
			p.f(" // %s", f.Facts["unit"])
		}
		p.f("\n")
	}
	p.f("}\n")
}

func goType(f *table.Field) string {
	switch f.Kind {
	case table.Handle:
		return "ObjectHandle"
	case table.Bool:
		return "bool"
	case table.Hash:
		return "MechanismType"
	case table.MGF:
		return "MGF"
	case table.Enum:
		return f.Enum
	case table.Bytes, table.Block:
		return "[]byte"
	case table.Array:
		return fmt.Sprintf("[%d]byte", f.Size)
	case table.Struct:
		return f.Inner.GoType
	case table.Pointer:
		return "*" + f.Inner.GoType
	}
	return "uint64"
}

func (p *printer) valueMethods(s *table.Param) {
	f := s.Fields[0]
	if f.Kind == table.Bytes {
		p.f("\n// Code writes the parameter.\nfunc (v %s) Code(c Coder) { c.Bytes((*[]byte)(&v)) }\n", s.GoType)
		p.f("\nfunc (v %s) print(w *paramWriter) { w.bytes(%q, v) }\n", s.GoType, f.Facts["word"])
		return
	}
	p.f("\n// Code writes the parameter.\nfunc (v %s) Code(c Coder) { c.Ulong((*uint64)(&v)) }\n", s.GoType)
	p.f("\nfunc (v %s) print(w *paramWriter) { w.number(%q, uint64(v)) }\n", s.GoType, f.Facts["word"])
}

// absent is the Go expression for the value of an absent word; facts are those of
// the variable named.
func absent(f *table.Field, facts string) string {
	v := f.Facts["default"]
	size, isSize := strings.CutPrefix(v, "size-of:")
	switch {
	case f.Kind == table.MGF:
		return fmt.Sprintf("MGFOf(v.%s)", f.Facts["of"])
	case v == "mechanism":
		return facts + ".facts.Hash"
	case isSize:
		return fmt.Sprintf("HashSize(v.%s)", size)
	case v == "":
		return "0"
	}
	return v
}

// emptyOf says what becomes of a word with an empty value.
func emptyOf(f *table.Field) string {
	switch {
	case f.Facts.Has("later"):
		return "emptyWrong"
	case f.Facts.Has("required"):
		return "emptyTaken"
	}
	return "emptyAbsent"
}

func (p *printer) parseMethod(s *table.Param) {
	p.f("\nfunc (v *%s) parse(p *paramParser) {\n", s.GoType)
	for _, f := range s.Fields {
		w := f.Facts["word"]
		if f.Go == "" || w == "" && f.Inner == nil {
			continue
		}
		switch f.Kind {
		case table.Ulong:
			p.f("v.%s = p.number(%q, %s)\n", f.Go, w, absent(f, "p"))
		case table.Handle:
			p.f("v.%s = ObjectHandle(p.number(%q, %s))\n", f.Go, w, absent(f, "p"))
		case table.Bool:
			p.f("v.%s = p.flag(%q)\n", f.Go, w)
		case table.Hash:
			p.f("v.%s = p.hash(%q, %s)\n", f.Go, w, absent(f, "p"))
		case table.MGF:
			p.f("v.%s = p.mgf(%q, v.%s)\n", f.Go, w, f.Facts["of"])
		case table.Enum:
			p.f("v.%s = parseNamed(p, %q, %s, Parse%s)\n", f.Go, w, absent(f, "p"), f.Enum)
		case table.Bytes, table.Block:
			p.f("v.%s = p.bytes(%q, %s)\n", f.Go, w, emptyOf(f))
		case table.Array:
			p.f("copy(v.%s[:], p.array(%q, %d, %v))\n", f.Go, w, f.Size, f.Facts.Has("required"))
		case table.Struct:
			p.f("v.%s.parse(p)\n", f.Go)
		case table.Pointer:
			create := fmt.Sprintf("v.%s = new(%s)\nv.%s.parse(p)\n", f.Go, f.Inner.GoType, f.Go)
			if f.Facts.Has("optional") {
				var words []string
				for _, in := range f.Inner.Words() {
					words = append(words, fmt.Sprintf("p.has(%q)", in.Facts["word"]))
				}
				create = fmt.Sprintf("if %s {\n%s}\n", strings.Join(words, " || "), create)
			}
			p.f("%s", create)
		}
	}
	p.f("}\n")
}

// printed returns the fields in the order of their words.
func printed(s *table.Param) []*table.Field {
	place := func(f *table.Field) int {
		return slices.IndexFunc(s.Words(), func(w *table.Field) bool {
			return w == f || f.Inner != nil && slices.Contains(f.Inner.Words(), w)
		})
	}
	return slices.SortedStableFunc(slices.Values(s.Fields), func(a, b *table.Field) int { return place(a) - place(b) })
}

func (p *printer) printMethod(s *table.Param) {
	p.f("\nfunc (v *%s) print(w *paramWriter) {\n", s.GoType)
	for _, f := range printed(s) {
		w := f.Facts["word"]
		if f.Go == "" || w == "" && f.Inner == nil {
			continue
		}
		always := f.Facts.Has("shown") || f.Facts.Has("required")
		unless := fmt.Sprintf("v.%s != %s", f.Go, absent(f, "w"))
		var print string
		switch f.Kind {
		case table.Ulong, table.Handle:
			print = fmt.Sprintf("w.number(%q, uint64(v.%s))", w, f.Go)
			if f.Kind == table.Ulong {
				print = fmt.Sprintf("w.number(%q, v.%s)", w, f.Go)
			}
		case table.Bool:
			print, unless = fmt.Sprintf("w.word(%q, \"true\")", w), "v."+f.Go
		case table.Hash, table.MGF, table.Enum:
			print = fmt.Sprintf("w.word(%q, v.%s.Short())", w, f.Go)
		case table.Bytes, table.Block:
			print, unless = fmt.Sprintf("w.bytes(%q, v.%s)", w, f.Go), fmt.Sprintf("len(v.%s) > 0", f.Go)
		case table.Array:
			print, unless = fmt.Sprintf("w.bytes(%q, v.%s[:])", w, f.Go), fmt.Sprintf("v.%s != [%d]byte{}", f.Go, f.Size)
		case table.Struct:
			print, always = fmt.Sprintf("v.%s.print(w)", f.Go), true
		case table.Pointer:
			print, unless = fmt.Sprintf("v.%s.print(w)", f.Go), fmt.Sprintf("v.%s != nil", f.Go)
		}
		if always {
			p.f("%s\n", print)
		} else {
			p.f("if %s {\n%s\n}\n", unless, print)
		}
	}
	p.f("}\n")
}
