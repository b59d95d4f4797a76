package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11/gen/table"
)

// A marshaller is a function in C that carries values to the daemon and back.
type marshaller struct {
	*table.Function
	Params  string   // as C declares them
	Session bool     // the first
	Others  []string // the names of all but the first
	Bad     []string // conditions under which the arguments are bad
	Puts    []string
	Gets    []string
	Result  string // what takes the result, of which it is to be known whether it is whole
}

// Operation is the kind whose operation this begins or ends.
func (m *marshaller) Operation() string { return cmp.Or(m.Facts["once"], m.Facts["final"]) }

// Uses are the operations that it is of.
func (m *marshaller) Uses() string {
	uses := cmp.Or(m.Facts["uses"], m.Facts["final"])
	if uses == "" {
		return ""
	}
	return "CKF_" + strings.ReplaceAll(uses, ",", " | CKF_")
}

// A shape is how a value of one type stands in C: $N is its name, $C its count, $U
// the type of a number and $B that of bytes of that name.
type shape struct {
	params string
	bad    string // the condition under which it is no such value
	put    string
	get    string
}

func shapeOf(typ string) shape {
	return map[string]shape{
		"u":  {params: "$U $N", put: "put_ulong(&c, $N)"},
		"M":  {params: "CK_MECHANISM *$N", put: "put_mechanism(&c, $N, $I)"},
		"ay": {params: "$B *$N, CK_ULONG $N_len", bad: "($N == NULL && $N_len != 0)", put: "put_array(&c, $N, $N_len)"},
		"fy": {params: "$B *$N, CK_ULONG *$N_len", bad: "$N_len == NULL", put: "put_room(&c, $N, $N_len)", get: "get_result(&c, $N, $N_len)"},
		"fu": {params: "$U *$N, CK_ULONG *$C", put: "put_count(&c, $N, $C)", get: "get_list(&c, $N, $C)"},
		"aA": {params: "CK_ATTRIBUTE *$N, CK_ULONG $C", put: "put_template(&c, $N, $C)"},
		"fA": {params: "CK_ATTRIBUTE *$N, CK_ULONG $C", put: "put_wanted(&c, $N, $C)", get: "get_template(&c, $N, $C)"},
		// Of replies: a number, and members of a struct.
		">u":  {params: "$U *$N", bad: "$N == NULL", get: "get_number(&c, $N)"},
		"i>s": {get: "get_text(&c, i.$N, sizeof i.$N)"},
		"i>u": {get: "i.$N = get_ulong(&c)"},
		"i>v": {get: "get_version(&c, &i.$N)"},
		// The struct itself.
		"i": {params: "$S *info", bad: "info == NULL"},
	}[typ]
}

// newMarshaller finds how the values of a function stand in C.
func newMarshaller(f *table.Function) (*marshaller, error) {
	m := &marshaller{Function: f, Params: f.Params}
	if f.Params != "" {
		return m, nil
	}
	values, reply := slices.Clone(f.Request), ">"
	if f.Facts.Has("struct") {
		values, reply = append(values, table.Value{Type: "i"}), "i>"
	}
	for _, v := range f.Reply {
		values = append(values, table.Value{Name: v.Name, Type: reply + v.Type})
	}
	m.Session = values[0].Name == "session"
	var params []string
	for i, v := range values {
		s := shapeOf(v.Type)
		if s == (shape{}) {
			return nil, fmt.Errorf("%s: no function in C has a value of type %s", f.Name, v.Type)
		}
		fill := strings.NewReplacer("$N", v.Name, "$C", strings.TrimSuffix(strings.TrimSuffix(v.Name, "types"), "template")+"count",
			"$U", numberType(v.Name), "$B", bytesType(v.Name), "$S", f.Facts["struct"], "$I", strconv.FormatBool(strings.HasSuffix(f.Name, "Init"))).Replace
		if s.params != "" {
			params = append(params, strings.Split(fill(s.params), ", ")...)
		}
		if s.bad != "" && (f.Facts.Has("once") || i >= len(f.Request)) {
			m.Bad = append(m.Bad, fill(s.bad))
		}
		if s.put != "" && (i > 0 || !m.Session) {
			m.Puts = append(m.Puts, fill(s.put))
		}
		switch {
		case v.Type == "fy" && m.Operation() != "":
			m.Result = fill(s.get)
		case v.Type == "fy":
			m.Gets = append(m.Gets, "(void)"+fill(s.get))
		case s.get != "":
			m.Gets = append(m.Gets, fill(s.get))
		}
	}
	for _, p := range params[1:] {
		m.Others = append(m.Others, p[strings.LastIndexAny(p, " *")+1:])
	}
	m.Params = strings.Join(params, ", ")
	return m, nil
}

// numberType is the type of a number of that name.
func numberType(name string) string {
	types := map[string]string{
		"session": "CK_SESSION_HANDLE", "slot": "CK_SLOT_ID", "flags": "CK_FLAGS", "user": "CK_USER_TYPE",
		"type": "CK_MECHANISM_TYPE", "types": "CK_MECHANISM_TYPE", "size": "CK_ULONG", "kind": "CK_ULONG",
	}
	return cmp.Or(types[name], "CK_OBJECT_HANDLE")
}

// bytesType is the type of the bytes of that name.
func bytesType(name string) string {
	types := map[string]string{"pin": "CK_UTF8CHAR", "old_pin": "CK_UTF8CHAR", "new_pin": "CK_UTF8CHAR", "name": "CK_UTF8CHAR", "parameter": "void"}
	return cmp.Or(types[name], "CK_BYTE")
}
