// Command gen makes of table.txt the tables of package card, of each ABI's package its
// functions, and how their arguments stand in C. It runs in tokens/card, by go generate.
package main

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run writes the files; dir is tokens/card.
func run(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "table.txt"))
	if err != nil {
		return err
	}
	files, err := generate(string(text))
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

//go:embed *.tmpl
var templates embed.FS

// generate returns the files by name.
func generate(text string) (map[string][]byte, error) {
	abis, err := read(text)
	if err != nil {
		return nil, err
	}
	all, err := template.ParseFS(templates, "*.tmpl")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	write := func(name, tmpl string, data any) error {
		var b bytes.Buffer
		if err := all.ExecuteTemplate(&b, tmpl, data); err != nil {
			return err
		}
		source, err := format.Source(b.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		files[name] = source
		return nil
	}
	err = errors.Join(write("functions_gen.go", "functions.tmpl", abis), write("hostlib/layouts_gen.go", "layouts.tmpl", abis))
	for _, a := range abis {
		err = errors.Join(err, write(a.Name+"/client_gen.go", "client.tmpl", a), write(a.Name+"/server_gen.go", "server.tmpl", a))
		if in, ok := cABIs()[a.Name]; ok {
			text, cerr := cCode(a, in)
			files["../../cmd/libcard/src/"+a.Name+"_gen.c"], err = []byte(text), errors.Join(err, cerr)
			continue
		}
		files["../../cmd/libcard/src/"+a.Name+"_gen.h"] = []byte(cNumbers(a))
	}
	return files, err
}

// An abi is a section of the table.
type abi struct {
	Name, Prefix, What string
	Number             int
	Functions          []*function
}

// Upper is its constant.
func (a *abi) Upper() string { return strings.ToUpper(a.Name) }

// A function is a line of the table.
type function struct {
	Name, Go string
	Number   int
	Values   []*value
	C        []string // the words of a line c
}

// A value is an argument.
type value struct {
	Index      int
	Name, Word string
	Room       string // of a Go caller
	shape
}

// A shape is how values of a word of the table stand in Go. $N is the name, $I the index.
type shape struct {
	Kind   string // card.Kind
	Type   string // that goes in; "" for none
	Result string // that comes out; "" for none
	Make   string // the card.Arg of a caller
	Read   string // what who answers gets
	Got    string // what comes out of it, for a caller
	Give   string // what puts it there, for who answers: true if it fits
}

func shapes() map[string]shape {
	number := shape{Kind: "Number", Type: "uint64", Make: "{Number: $N}", Read: "c.Args[$I].Number"}
	return map[string]shape{
		"number":     number,
		"u32":        number,
		"counter":    {Kind: "Counter", Type: "uint64", Result: "uint64", Make: "{Number: $N}", Read: "c.Args[$I].Number", Got: "c.Args[$I].Number", Give: "c.Args[$I].Count($R)"},
		"bytes":      {Kind: "Bytes", Type: "[]byte", Make: "{Bytes: $N}", Read: "c.Args[$I].Bytes"},
		"absent":     {Kind: "Bytes", Type: "[]byte", Make: "{Bytes: $N}", Read: "c.Args[$I].Bytes"},
		"mechanism":  {Kind: "Mechanism", Type: "p11.Mechanism", Make: "{Mechanism: &$N}", Read: "*c.Args[$I].Mechanism"},
		"attributes": {Kind: "Attributes", Type: "p11.Attributes", Make: "{Attributes: $N}", Read: "c.Args[$I].Attributes"},
		"output":     {Kind: "Output", Result: "[]byte", Make: "{Room: $ROOM}", Got: "c.Args[$I].Out", Give: "c.Args[$I].Give($R)"},
		"fill":       {Kind: "Output", Type: "int", Result: "[]byte", Make: "{Room: uint64($N)}", Read: "int(c.Args[$I].Room)", Got: "c.Args[$I].Out", Give: "c.Args[$I].Give($R)"},
		"state":      {Kind: "InOut", Type: "[]byte", Result: "[]byte", Make: "{Bytes: $N, Room: uint64(len($N))}", Read: "c.Args[$I].Bytes", Got: "c.Args[$I].Out", Give: "c.Args[$I].Give($R)"},
		"inout":      {Kind: "InOut", Type: "[]byte", Result: "[]byte", Make: "{Bytes: $N, Room: $ROOM}", Read: "c.Args[$I].Bytes", Got: "c.Args[$I].Out", Give: "c.Args[$I].Give($R)"},
		"numbers":    {Kind: "Numbers", Result: "[]uint64", Make: "{Room: $ROOM}", Got: "c.Args[$I].Numbers", Give: "c.Args[$I].GiveNumbers($R)"},
		"info":       {Kind: "Numbers", Result: "[]uint64", Make: "{Room: 3}", Got: "c.Args[$I].Numbers", Give: "c.Args[$I].GiveNumbers($R)"},
		"wanted":     {Kind: "Wanted", Type: "[]p11.AttributeType", Result: "p11.Attributes", Make: "card.Want($N)", Read: "c.Args[$I].WantedTypes()", Got: "c.Args[$I].Attributes", Give: "c.Args[$I].GiveAttributes($R)"},
	}
}

func read(text string) (abis []*abi, err error) {
	sc := bufio.NewScanner(strings.NewReader(text))
	for line := 1; sc.Scan(); line++ {
		words := strings.Fields(sc.Text())
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if words[0] == "abi" {
			a, err := readABI(words, sc.Text())
			if err != nil {
				return nil, fmt.Errorf("table.txt:%d: %w", line, err)
			}
			abis = append(abis, a)
			continue
		}
		if len(abis) == 0 {
			return nil, fmt.Errorf("table.txt:%d: a function before the first abi", line)
		}
		a := abis[len(abis)-1]
		if last := len(a.Functions) - 1; words[0] == "c" && last >= 0 {
			a.Functions[last].C = words[1:]
			continue
		}
		f, err := a.readFunction(words)
		if err != nil {
			return nil, fmt.Errorf("table.txt:%d: %s: %w", line, words[0], err)
		}
		a.Functions = append(a.Functions, f)
	}
	return abis, sc.Err()
}

func readABI(words []string, line string) (*abi, error) {
	_, what, quoted := strings.Cut(line, `"`)
	what, closed := strings.CutSuffix(what, `"`)
	if len(words) < 5 || !quoted || !closed {
		return nil, errors.New(`an abi is "abi NAME NUMBER PREFIX "...""`)
	}
	n, err := strconv.Atoi(words[2])
	if err != nil || n < 1 || n > 255 {
		return nil, fmt.Errorf("number %s", words[2])
	}
	return &abi{Name: words[1], Number: n, Prefix: strings.TrimPrefix(words[3], "-"), What: what}, nil
}

func (a *abi) readFunction(words []string) (*function, error) {
	if len(words) < 2 {
		return nil, errors.New("the number is missing")
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 1 || n > 1000 {
		return nil, fmt.Errorf("number %s", words[1])
	}
	f := &function{Name: words[0], Go: goName(strings.TrimPrefix(words[0], a.Prefix)), Number: n}
	for _, other := range a.Functions {
		if other.Number == n || other.Name == f.Name {
			return nil, fmt.Errorf("%s is there already", other.Name)
		}
	}
	for i, w := range words[2:] {
		v, err := readValue(i, w)
		if err != nil {
			return nil, err
		}
		f.Values = append(f.Values, v)
	}
	return f, nil
}

// goName makes an exported name: get_xcp_info is GetXcpInfo.
func goName(s string) string {
	var b strings.Builder
	for _, part := range strings.Split(s, "_") {
		b.WriteString(strings.ToUpper(part[:min(1, len(part))]) + part[min(1, len(part)):])
	}
	return b.String()
}

func readValue(i int, text string) (*value, error) {
	name, word, ok := strings.Cut(text, ":")
	word, room, hasRoom := strings.Cut(word, "=")
	s, known := shapes()[word]
	if !ok || !known || hasRoom != strings.Contains(s.Make, "$ROOM") {
		return nil, fmt.Errorf("no value: %s", text)
	}
	if of, more, sum := strings.Cut(room, "+"); sum {
		room = fmt.Sprintf("uint64(len(%s)) + %s", of, more)
	}
	v := &value{Index: i, Name: name, Word: word, Room: room, shape: s}
	fill := strings.NewReplacer("$N", name, "$I", strconv.Itoa(i), "$ROOM", room, "$R", "out"+strconv.Itoa(i))
	for _, p := range []*string{&v.Make, &v.Read, &v.Got, &v.Give} {
		*p = fill.Replace(*p)
	}
	return v, nil
}

// P11 says whether Go's functions have types of package p11.
func (a *abi) P11() bool {
	for _, f := range a.Functions {
		for _, v := range f.Values {
			if strings.Contains(v.Type+v.Result, "p11.") {
				return true
			}
		}
	}
	return false
}

// In are the parameters of the Go function.
func (f *function) In() string {
	var list []string
	for _, v := range f.Values {
		if v.Type != "" {
			list = append(list, v.Name+" "+v.Type)
		}
	}
	return strings.Join(list, ", ")
}

// Out are its results, behind each a comma.
func (f *function) Out() string {
	var b strings.Builder
	for _, v := range f.Values {
		switch {
		case v.Result == "":
		case v.Type == "":
			b.WriteString(v.Name + " " + v.Result + ", ")
		default:
			b.WriteString("new" + goName(v.Name) + " " + v.Result + ", ")
		}
	}
	return b.String()
}

// Results are the values that come out.
func (f *function) Results() (list []*value) {
	for _, v := range f.Values {
		if v.Result != "" {
			list = append(list, v)
		}
	}
	return list
}

// Zeros are the results of a call that failed, behind each a comma.
func (f *function) Zeros() string {
	var b strings.Builder
	for _, v := range f.Results() {
		if v.Result == "uint64" {
			b.WriteString("0, ")
			continue
		}
		b.WriteString("nil, ")
	}
	return b.String()
}

// Reads are the arguments of who answers.
func (f *function) Reads() string {
	list := []string{"ctx"}
	for _, v := range f.Values {
		if v.Type != "" {
			list = append(list, v.Read)
		}
	}
	return strings.Join(list, ", ")
}
