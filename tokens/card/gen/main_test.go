package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpToDate compares the generated files with the table.
func TestUpToDate(t *testing.T) {
	text, err := os.ReadFile("../table.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join("..", name)); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what the table says (%v): go generate ./tokens/card", name, err)
		}
	}
}

// TestSecondABI makes the functions of an ABI with the kinds that EP11 does not have.
func TestSecondABI(t *testing.T) {
	files, err := generate("abi other 7 - \"another\"\nVERB 3 rules:bytes count:counter token:inout=2500 text:inout=text+16\n  c %rules count #token token #text text=8 - *16\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"hostlib/layouts_gen.go": "params: []param{{keywordsAt, 0}, {numberAt, 1}, {lengthAt, 2}, {data, 2}, {lengthAt, 3}, {data, 3}, {zeros, 0}, {zeros, 16}},",
		"functions_gen.go":       `3: {OTHER, 3, "VERB", []Kind{Bytes, Counter, InOut, InOut}}`,
		"other/client_gen.go":    "func VERB(ctx context.Context, via card.Transport, target card.Target, rules []byte, count uint64, token []byte, text []byte) (newCount uint64, newToken []byte, newText []byte, err error)",
		"other/server_gen.go":    "VERB(ctx context.Context, rules []byte, count uint64, token []byte, text []byte) (newCount uint64, newToken []byte, newText []byte, err error)",
	} {
		if !strings.Contains(string(files[name]), want) {
			t.Errorf("%s has no %s:\n%s", name, want, files[name])
		}
	}
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no abi":     {"f 1", "table.txt:1"},
		"no number":  {"abi a 1 - \"x\"\nf", "number is missing"},
		"twice":      {"abi a 1 - \"x\"\nf 1\ng 1", "f is there already"},
		"kind":       {"abi a 1 - \"x\"\nf 1 x:thing", "no value: x:thing"},
		"no room":    {"abi a 1 - \"x\"\nf 1 x:output", "no value: x:output"},
		"no layout":  {"abi a 1 - \"x\"\nf 1 x:counter", "x of kind counter wants a line c"},
		"c":          {"abi a 1 - \"x\"\nf 1 x:bytes\nc #y", "there is no value y"},
		"words":      {"abi a 1", "an abi is"},
		"abi number": {"abi a 0 - \"x\"", "number 0"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := generate(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %s", err, c.want)
			}
		})
	}
}
