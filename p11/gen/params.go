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
		number.typ, number.parse, number.print, number.code = "ObjectHandle", "v.$F = ObjectHandle(p.number($W, $D))", "w.number($W, uint64(v.$F))", "c.Handle(&v.$F)"
	case table.Bool:
		return goKind{typ: "bool", parse: "v.$F = p.flag($W, $B)", print: "w.flag($W, v.$F)", given: "v.$F != $B", code: "c.Bool(&v.$F)"}
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
		"$T", typ, "$N", strconv.Itoa(f.Size), "$E", emptyOf(f), "$R", strconv.FormatBool(f.Facts.Has("required")),
		"$B", strconv.FormatBool(f.Facts["default"] == "true")).Replace(code)
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

// goParam is the Go type that is a Param.
func goParam(s *table.Param) string {
	if s.Value() {
		return s.GoType
	}
	return "*" + s.GoType
}

func isBytes(s *table.Param) bool { return s.Value() && s.Only().Kind == table.Bytes }

// kinds are the parameters without the structs in them.
func kinds(t *table.Table) []*table.Param {
	return slices.DeleteFunc(slices.Clone(t.Params), func(s *table.Param) bool { return s.Layout < 0 })
}

// declared are the parameters and structs whose Go types are generated.
func declared(t *table.Table) (list []*table.Param) {
	seen := map[string]bool{"RawParam": true}
	for _, s := range t.Params {
		if !seen[s.GoType] && !s.Custom {
			seen[s.GoType] = true
			list = append(list, s)
		}
	}
	return list
}

// valueCode is the code that reads or writes a parameter that is a number.
func valueCode(s *table.Param) string {
	if s.Only().Kind == table.Handle {
		return "c.Handle((*ObjectHandle)(&v))"
	}
	return "c.Ulong((*uint64)(&v))"
}

// paramWord gives the members of the paramWord of a field, which is the parameter's or
// stands in a struct of it.
func paramWord(s *table.Param, f *table.Field) string {
	members := member("name", quoted(f.Facts["word"])) + member("about", quoted(f.About)) + member("sample", quoted(f.Facts["sample"]))
	if f.Kind == table.Array { // whose length is wrong if it is missing
		members += member("size", strconv.Itoa(f.Size))
	} else if f.Facts.Has("required") {
		members += member("required", "true")
	}
	if f.Facts.Has("secret") {
		members += member("secret", "true")
	}
	if f.Facts["default"] == "mechanism" {
		members += member("fromName", "true")
	}
	for i, part := range s.Fields {
		if part.Facts.Has("optional") && slices.Contains(part.Inner.Words(), f) {
			members += member("part", strconv.Itoa(i+1))
		}
	}
	return strings.TrimSuffix(members, ", ")
}

// allWords are the words of all parameters, as the cases of a switch.
func allWords(t *table.Table) string {
	all := []string{`"param"`}
	for _, s := range kinds(t) {
		for _, f := range s.Words() {
			all = append(all, strconv.Quote(f.Facts["word"]))
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// docOf says what the Go type of a parameter is.
func docOf(s *table.Param) string {
	switch {
	case s.CType == "" || s.Doc == "":
		return s.CType + s.Doc
	case s.Value():
		return s.CType + ": " + s.Doc
	}
	return s.CType + " (" + s.Doc + ")"
}

func goType(f *table.Field) string { return fill(kindOf(f.Kind).typ, "", f) }

// inText says whether the field has words.
func inText(f *table.Field) bool { return f.Go != "" && (f.Facts["word"] != "" || f.Inner != nil) }

// byWords are the fields in the order of their words.
func byWords(s *table.Param) []*table.Field {
	place := func(f *table.Field) int {
		return slices.IndexFunc(s.Words(), func(w *table.Field) bool {
			return w == f || f.Inner != nil && slices.Contains(f.Inner.Words(), w)
		})
	}
	return slices.SortedStableFunc(slices.Values(s.Fields), func(a, b *table.Field) int { return place(a) - place(b) })
}

// parsed is the statement that reads the field's words.
func parsed(f *table.Field) string {
	code := fill(kindOf(f.Kind).parse, "p", f)
	if !f.Facts.Has("optional") {
		return code
	}
	var words []string
	for _, in := range f.Inner.Words() {
		words = append(words, fill("p.has($W)", "", in))
	}
	return fmt.Sprintf("if %s {\n%s\n}", strings.Join(words, " || "), code)
}

// printed is the statement that prints the field's words.
func printed(f *table.Field) string {
	k := kindOf(f.Kind)
	if f.Facts.Has("secret") {
		return fmt.Sprintf("if w.full {\n%s\n}", fill(k.print, "w", f))
	}
	if f.Facts.Has("shown") || f.Facts.Has("required") || f.Kind == table.Struct {
		return fill(k.print, "w", f)
	}
	return fmt.Sprintf("if %s {\n%s\n}", fill(k.given, "w", f), fill(k.print, "w", f))
}

// coded are the statements with which the field goes over a wire.
func coded(f *table.Field) string {
	code := fill(kindOf(f.Kind).code, "", f)
	switch {
	case f.Facts.Has("bits-of"):
		// Programs leave it unset, and the bytes have a length of their own.
		return fmt.Sprintf("%s := 8 * uint64(len(v.%s))\nc.Ulong(&%s)", f.C, f.Facts["bits-of"], f.C)
	case f.Facts.Has("has"):
		return fmt.Sprintf("%s := v.%s != 0\nc.Bool(&%s)", f.C, f.Facts["has"], f.C)
	case f.Facts.Has("const"):
		return fmt.Sprintf("%s := uint64(%s)\nc.Ulong(&%s)", f.C, f.Facts["const"], f.C)
	case f.Facts.Has("optional"):
		return fmt.Sprintf("%s := v.%s != nil\nc.Bool(&%s)\nif %s {\n%s\n}", f.C, f.Go, f.C, f.C, code)
	}
	return code
}

// codeCheck is what follows those of all fields: a number that is always the same is
// that number, and a handle is one if there is said to be one.
func codeCheck(f *table.Field) string {
	if h := f.Facts["has"]; h != "" {
		return fmt.Sprintf("if !%s {\nv.%s = 0\n} else if v.%s == 0 {\nc.Refuse(Errorf(CKR_MECHANISM_PARAM_INVALID, \"%s is true, and there is no such key\"))\n}", f.C, h, h, f.C)
	}
	if !f.Facts.Has("const") {
		return ""
	}
	want := fmt.Sprintf("uint64(%s)", f.Facts["const"])
	wrong := fmt.Sprintf("%s != %s", f.C, want)
	if of := f.Facts["of"]; of != "" {
		wrong += fmt.Sprintf(" && (%s != 0 || len(v.%s) > 0)", f.C, of)
	}
	return fmt.Sprintf("if %s {\nc.Refuse(Errorf(CKR_MECHANISM_PARAM_INVALID, \"%s is not %%d: %%d\", %s, %s))\n}", wrong, f.C, want, f.C)
}
