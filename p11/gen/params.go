package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// A goKind is the code for fields of one kind. In it, $F is the field, $W its word,
// $D what stands for an absent word, $O the field that it is of, $T its Go type,
// $N its size.
type goKind struct {
	typ   string
	parse string // takes its value from p
	print string // writes it to w
	given string // it has not the value of an absent word
	code  string // reads it from c, or writes it there
}

func kindOf(k table.Kind) goKind {
	number := goKind{
		typ: "uint64", parse: "v.$F = p.number($W, $D)", print: "w.number($W, v.$F)", given: "v.$F != $D", code: "c.Ulong(&v.$F)",
	}
	named := goKind{
		typ: "$T", parse: "v.$F = parseNamed(p, $W, $D, Parse$T)", print: "w.word($W, v.$F.Short())", given: "v.$F != $D", code: "c.Ulong((*uint64)(&v.$F))",
	}
	switch k {
	case table.Handle:
		number.typ, number.parse, number.print, number.code = "ObjectHandle", "v.$F = ObjectHandle(p.number($W, $D))", "w.number($W, uint64(v.$F))", named.code
	case table.Bool:
		return goKind{typ: "bool", parse: "v.$F = p.flag($W)", print: `w.word($W, "true")`, given: "v.$F", code: "c.Bool(&v.$F)"}
	case table.Hash:
		named.typ, named.parse = "MechanismType", "v.$F = p.hash($W, $D)"
		return named
	case table.MGF:
		named.typ, named.parse = "MGF", "v.$F = p.mgf($W, v.$O)"
		return named
	case table.Enum:
		return named
	case table.Bytes, table.Block:
		return goKind{typ: "[]byte", parse: "v.$F = p.bytes($W, $E)", print: "w.bytes($W, v.$F)", given: "len(v.$F) > 0", code: "c.Bytes(&v.$F)"}
	case table.Array:
		return goKind{typ: "[$N]byte", parse: "copy(v.$F[:], p.array($W, $N, $R))", print: "w.bytes($W, v.$F[:])", given: "v.$F != [$N]byte{}", code: "c.Array(v.$F[:])"}
	case table.Struct:
		return goKind{typ: "$T", parse: "v.$F.parse(p)", print: "v.$F.print(w)", given: "true", code: "v.$F.Code(c)"}
	case table.Pointer:
		return goKind{
			typ: "*$T", parse: "v.$F = new($T)\nv.$F.parse(p)", print: "v.$F.print(w)", given: "v.$F != nil",
			code: "if v.$F == nil {\nv.$F = new($T)\n}\nv.$F.Code(c)",
		}
	}
	return number
}

// fill puts the field into code; facts of the mechanism are those of the variable
// named.
func fill(code, facts string, f *table.Field) string {
	typ := f.Enum
	if f.Inner != nil {
		typ = f.Inner.GoType
	}
	return strings.NewReplacer("$F", f.Go, "$W", strconv.Quote(f.Facts["word"]), "$D", absent(f, facts), "$O", f.Facts["of"],
		"$T", typ, "$N", strconv.Itoa(f.Size), "$E", emptyOf(f), "$R", strconv.FormatBool(f.Facts.Has("required"))).Replace(code)
}

// absent is the Go expression for the value of an absent word.
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
	}
	return cmp.Or(v, "0")
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

// params writes the parameters of mechanisms: types, what dispatches on their
// kind, and for each struct how its words are read and printed, what is checked,
// and what goes over a wire.
func (p *printer) params() error {
	p.paramKinds()
	p.words()
	declared := map[string]bool{"RawParam": true}
	flags := false
	for _, s := range p.Params {
		if declared[s.GoType] || s.Custom {
			continue
		}
		declared[s.GoType] = true
		p.paramType(s)
		if s.Value() {
			p.valueMethods(s)
			continue
		}
		p.parseMethod(s)
		p.printMethod(s)
		if err := p.checkMethod(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		p.codeMethod(s)
		flags = flags || slices.ContainsFunc(s.Fields, func(f *table.Field) bool { return f.Kind == table.Bool })
	}
	if flags {
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

// onKind writes a method of ParamKind: what it does for each kind, nothing for
// "", and what otherwise.
func (p *printer) onKind(doc, signature string, body func(*table.Param) string, otherwise string) {
	p.f("\n// %s\nfunc (k ParamKind) %s {\nswitch k {\n", doc, signature)
	for _, s := range p.kinds() {
		if code := body(s); code != "" {
			p.f("case Param%s:\n%s\n", s.Name, code)
		}
	}
	p.f("}\n%s\n}\n", otherwise)
}

func (p *printer) paramKinds() {
	p.f("\n// ParamKind says which parameter a mechanism takes.\ntype ParamKind int\n")
	p.f("\n// The parameters. ParamRaw is one that this package does not take apart.\nconst (\nParamNone ParamKind = iota\nParamRaw // RawParam\n")
	for _, s := range p.kinds() {
		p.f("Param%s // %s\n", s.Name, goParam(s))
	}
	p.f(")\n")
	bytes := func(s *table.Param) bool { return s.Value() && s.Fields[0].Kind == table.Bytes }
	p.onKind("Layout is the number of the kind in our own protocol: 0 for bytes.", "Layout() uint8", func(s *table.Param) string {
		if s.Layout == 0 {
			return ""
		}
		return fmt.Sprintf("return %d", s.Layout)
	}, "return 0")
	p.onKind("parse makes the parameter of the words.", "parse(p *paramParser) Param", func(s *table.Param) string {
		switch {
		case bytes(s):
			return fmt.Sprintf("if v := %s; v != nil {\nreturn %s(v)\n}", fill("p.bytes($W, $E)", "p", s.Fields[0]), s.GoType)
		case s.Value():
			return fmt.Sprintf("return %s(%s)", s.GoType, fill("p.number($W, $D)", "p", s.Fields[0]))
		}
		return fmt.Sprintf("v := new(%s)\nv.parse(p)\nreturn v", s.GoType)
	}, "return nil")
	p.onKind("fromBytes is the parameter that param= gives.", "fromBytes(b []byte) Param", func(s *table.Param) string {
		if !bytes(s) || s.GoType == "RawParam" {
			return ""
		}
		return fmt.Sprintf("return %s(b)", s.GoType)
	}, "return RawParam(b)")
	p.onKind("rawWord is the word of a RawParam of the kind.", "rawWord() string", func(s *table.Param) string {
		if s.GoType != "RawParam" {
			return ""
		}
		return fill("return $W", "", s.Fields[0])
	}, `return "param"`)
	p.onKind("check checks a parameter of the kind.", "check(c checker, p Param) error", func(s *table.Param) string {
		check := "return v.check(c)"
		if s.Value() {
			check = checks(s) + "return nil"
		}
		return fmt.Sprintf("if v, ok := p.(%s); ok {\n%s\n}", goParam(s), check)
	}, `return c.errorf("the parameter is of another mechanism's type")`)
	p.onKind("read takes a parameter of the kind from c.", "read(c Coder) Param", func(s *table.Param) string {
		switch {
		case !s.Value():
			return fmt.Sprintf("v := new(%s)\nv.Code(c)\nreturn v", s.GoType)
		case !bytes(s):
			return fmt.Sprintf("var v %s\nc.Ulong((*uint64)(&v))\nreturn v", s.GoType)
		case s.GoType != "RawParam":
			return fmt.Sprintf("var v %s\nc.Bytes((*[]byte)(&v))\nreturn v", s.GoType)
		}
		return ""
	}, "var v RawParam\nc.Bytes((*[]byte)(&v))\nreturn v")
}

func (p *printer) words() {
	all := []string{`"param"`}
	p.onKind("words returns the words of the kind.", "words() []paramWord", func(s *table.Param) string {
		parts := map[*table.Field]int{} // fields of optional structs
		for i, f := range s.Fields {
			if f.Facts.Has("optional") {
				for _, w := range f.Inner.Words() {
					parts[w] = i + 1
				}
			}
		}
		var b strings.Builder
		for _, f := range s.Words() {
			all = append(all, strconv.Quote(f.Facts["word"]))
			fmt.Fprintf(&b, "{name: %q", f.Facts["word"])
			for _, text := range []struct{ name, value string }{{"about", f.About}, {"sample", f.Facts["sample"]}} {
				if text.value != "" {
					fmt.Fprintf(&b, ", %s: %q", text.name, text.value)
				}
			}
			if f.Kind == table.Array { // whose length is wrong if it is missing
				fmt.Fprintf(&b, ", size: %d", f.Size)
			} else if f.Facts.Has("required") {
				b.WriteString(", required: true")
			}
			if f.Facts["default"] == "mechanism" {
				b.WriteString(", fromName: true")
			}
			if parts[f] != 0 {
				fmt.Fprintf(&b, ", part: %d", parts[f])
			}
			b.WriteString("},\n")
		}
		return "return []paramWord{\n" + b.String() + "}"
	}, "return nil")
	slices.Sort(all)
	p.f("\n// isParamWord says whether the word is a parameter's; no attribute has such a\n// name.\nfunc isParamWord(s string) bool {\nswitch s {\ncase %s:\nreturn true\n}\nreturn false\n}\n",
		strings.Join(slices.Compact(all), ", "))
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
		p.f("%s\n", kindOf(s.Fields[0].Kind).typ)
		return
	}
	p.f("struct {\n")
	for _, f := range s.Fields {
		if f.Go != "" {
			about := cmp.Or(f.About, f.Facts["unit"])
			if about != "" {
				about = " // " + about
			}
			p.f("%s %s%s\n", f.Go, fill(kindOf(f.Kind).typ, "", f), about)
		}
	}
	p.f("}\n")
}

func (p *printer) valueMethods(s *table.Param) {
	code, print := "c.Ulong((*uint64)(&v))", "w.number($W, uint64(v))"
	if s.Fields[0].Kind == table.Bytes {
		code, print = "c.Bytes((*[]byte)(&v))", "w.bytes($W, v)"
	}
	p.f("\n// Code writes the parameter.\nfunc (v %s) Code(c Coder) { %s }\n", s.GoType, code)
	p.f("\nfunc (v %s) print(w *paramWriter) { %s }\n", s.GoType, fill(print, "w", s.Fields[0]))
}

// inText says whether the field has words.
func inText(f *table.Field) bool { return f.Go != "" && (f.Facts["word"] != "" || f.Inner != nil) }

func (p *printer) parseMethod(s *table.Param) {
	p.f("\nfunc (v *%s) parse(p *paramParser) {\n", s.GoType)
	for _, f := range s.Fields {
		if !inText(f) {
			continue
		}
		code := fill(kindOf(f.Kind).parse, "p", f)
		if f.Facts.Has("optional") {
			var words []string
			for _, in := range f.Inner.Words() {
				words = append(words, fill("p.has($W)", "", in))
			}
			code = fmt.Sprintf("if %s {\n%s\n}", strings.Join(words, " || "), code)
		}
		p.f("%s\n", code)
	}
	p.f("}\n")
}

func (p *printer) printMethod(s *table.Param) {
	// The fields in the order of their words.
	place := func(f *table.Field) int {
		return slices.IndexFunc(s.Words(), func(w *table.Field) bool {
			return w == f || f.Inner != nil && slices.Contains(f.Inner.Words(), w)
		})
	}
	p.f("\nfunc (v *%s) print(w *paramWriter) {\n", s.GoType)
	for _, f := range slices.SortedStableFunc(slices.Values(s.Fields), func(a, b *table.Field) int { return place(a) - place(b) }) {
		k := kindOf(f.Kind)
		switch {
		case !inText(f):
		case f.Facts.Has("shown") || f.Facts.Has("required") || f.Kind == table.Struct:
			p.f("%s\n", fill(k.print, "w", f))
		default:
			p.f("if %s {\n%s\n}\n", fill(k.given, "w", f), fill(k.print, "w", f))
		}
	}
	p.f("}\n")
}

// codeMethod writes how the struct goes over a wire.
func (p *printer) codeMethod(s *table.Param) {
	p.f("\n// Code reads or writes the fields, in the order of the C struct.\nfunc (v *%s) Code(c Coder) {\n", s.GoType)
	var after strings.Builder
	for _, f := range s.Fields {
		code := fill(kindOf(f.Kind).code, "", f)
		switch {
		case f.Facts.Has("bits-of"):
			// Programs leave it unset, and the bytes have a length of their own.
			code = fmt.Sprintf("%s := 8 * uint64(len(v.%s))\nc.Ulong(&%s)", f.C, f.Facts["bits-of"], f.C)
		case f.Facts.Has("const"):
			want := fmt.Sprintf("uint64(%s)", f.Facts["const"])
			code = fmt.Sprintf("%s := %s\nc.Ulong(&%s)", f.C, want, f.C)
			wrong := fmt.Sprintf("%s != %s", f.C, want)
			if of := f.Facts["of"]; of != "" {
				wrong += fmt.Sprintf(" && (%s != 0 || len(v.%s) > 0)", f.C, of)
			}
			fmt.Fprintf(&after, "if %s {\nc.Refuse(Errorf(CKR_MECHANISM_PARAM_INVALID, \"%s is not %%d: %%d\", %s, %s))\n}\n", wrong, f.C, want, f.C)
		case f.Facts.Has("optional"):
			code = fmt.Sprintf("%s := v.%s != nil\nc.Bool(&%s)\nif %s {\n%s\n}", f.C, f.Go, f.C, f.C, code)
		}
		p.f("%s\n", code)
	}
	p.f("%s}\n", after.String())
}
