package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Function is one of PKCS#11, or a call on the wire that is none.
type Function struct {
	Name    string // with its C_
	Version string // of the function list that it came with; "-" if it is in none
	Number  uint64 // of its call; 0 if it goes over no wire
	Request []Value
	Reply   []Value
	Params  string // in C, if it is by hand
	Facts   Facts
}

// A Value of a call. Its type is as in the signatures of docs/rpc.md; without a name
// it is several of them.
type Value struct{ Name, Type string }

// Replies are what the reply has for values of the request that make room for it.
var replies = map[string]string{"fy": "ay", "fu": "au", "fA": "aAu"} //nolint:gochecknoglobals // a table, never written

// Call is the name of its call in C and in Go.
func (f *Function) Call() string { return strings.TrimPrefix(f.Name, "C_") }

// RequestTypes is the signature of the request.
func (f *Function) RequestTypes() string { return typesOf(f.Request) }

// ReplyTypes is the signature of the reply.
func (f *Function) ReplyTypes() string {
	types := ""
	for _, v := range f.Request {
		for room, result := range replies {
			if strings.HasSuffix(v.Type, room) {
				types += result
			}
		}
	}
	return types + typesOf(f.Reply)
}

func typesOf(values []Value) (types string) {
	for _, v := range values {
		types += v.Type
	}
	return types
}

// Calls are the functions that go over the wire, by their numbers.
func (t *Table) Calls() []*Function {
	calls := slices.DeleteFunc(slices.Clone(t.Functions), func(f *Function) bool { return f.Number == 0 })
	slices.SortFunc(calls, func(a, b *Function) int { return int(a.Number) - int(b.Number) })
	return calls
}

// functions reads lines of the functions of a version.
func (t *Table) functions(version string) func([]string, string) error {
	return func(words []string, quoted string) error {
		f := &Function{Name: words[0], Version: version, Params: quoted}
		if t.known[f.Name] {
			return fmt.Errorf("%s stands twice", f.Name)
		}
		t.known[f.Name] = true
		if len(words) < 2 || !strings.HasPrefix(f.Name, "C_") {
			return fmt.Errorf("%s: the line wants a C_ name and the call's number", f.Name)
		}
		if words[1] != "-" {
			n, err := strconv.ParseUint(words[1], 10, 16)
			if err != nil || slices.ContainsFunc(t.Functions, func(g *Function) bool { return g.Number == n }) {
				return fmt.Errorf("%s: number %q is none, or another's", f.Name, words[1])
			}
			f.Number = n
		}
		words = words[2:]
		for len(words) > 0 && strings.ContainsAny(words[0], ":>") {
			if name, typ, ok := strings.Cut(words[0], ":"); ok {
				f.Request = append(f.Request, Value{name, typ})
			} else {
				name, typ, _ := strings.Cut(words[0], ">")
				f.Reply = append(f.Reply, Value{name, typ})
			}
			words = words[1:]
		}
		var err error
		f.Facts, err = factsOf(words, "struct", "changes", "init", "once", "update", "final", "uses")
		t.Functions = append(t.Functions, f)
		return err
	}
}
