package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The checked-in files are what the table makes.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	text, err := os.ReadFile("../table.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what table.txt makes; run go generate ./p11 (-want +got):\n%.2000s", name, diff)
		}
	}
	stray, err := filepath.Glob("../*_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if len(stray) != len(files) {
		t.Errorf("files %v, generated are %d", stray, len(files))
	}
}

func TestTableMistakes(t *testing.T) {
	const attribute = "type AttributeType CKA_ attribute\n"
	for _, c := range []struct{ name, text, want string }{
		{"no section", "CKA_X 0x1 bool", "before the first section"},
		{"no number", attribute + "CKA_X", "table.txt:2: CKA_X has no number"},
		{"bad number", attribute + "CKA_X one bool", "number"},
		{"twice", attribute + "CKA_X 1 bool\nCKA_X 2 bool", "table.txt:3: CKA_X stands twice"},
		{"prefix", attribute + "CKM_X 1 bool", "does not begin with CKA_"},
		{"alias of nothing", attribute + "alias CKA_Y CKA_X", "CKA_X is not in this section"},
		{"no kind", attribute + "CKA_X 1", "CKA_X has no kind"},
		{"unknown kind", attribute + "CKA_X 1 colour", `unknown kind "colour"`},
		{"unknown fact", attribute + "CKA_X 1 bool hidden", `unknown fact "hidden"`},
		{"no such param", "type MechanismType CKM_ m\nCKM_X 1 param=X", "CKM_X: no param X"},
		{"layout twice", "param A A A 3\nparam B B B 3", "A and B have layout 3 both"},
		{"layout", "param A A A x", `A: layout "x"`},
		{"param twice", "param A A A 3\nparam A B B 4", "param A stands twice"},
		{"unknown type", "param A A A 3\nX colour x", `A: X: unknown type "colour"`},
		{"struct below", "param A A A 3\nX B x\nstruct B B B\nY ulong y", `unknown type "B"`},
		{"no name in C", "param A A A 3\nX ulong", "X has no name in C"},
		{"no length", "param A A A 3\nX bytes x", "len= or len-first= is missing"},
		{"unknown fact of a field", "param A A A 3\nX ulong x wrod=x", `unknown fact "wrod=x"`},
		{"unknown default", "param A A A 3\nX ulong x default=CKM_Y", "table.txt has no CKM_Y"},
		{"unknown field", "param A A A 3\nX mgf x of=Y", "A has no field Y"},
		{"range", "param A A A 3\nX ulong x range=3", "X: range=3 is not A..B"},
		{"no sample", "param A A A 3\nX ulong x word=x required", "X: a field that is required wants sample="},
		{"nothing to write", "param A A A 3\n- ulong x", "a field without a name in Go wants const=, has= or bits-of="},
		{"word twice", "param A A A 3\nX ulong x word=x\nY ulong y word=x", "word x stands twice"},
		{"word of an attribute", attribute + "CKA_X 1 bool\nparam A A A 3\nX ulong x word=x", "word x is the name of an attribute"},
		{"words", "param A A A 3\nwords x y\nX ulong x word=x", "words has 2 words, the fields 1"},
		{"no such hash", "hashes\nmd6 16", "hash md6: table.txt has no CKM_MD6"},
		{"size of a hash", "hashes\nx big\ntype MechanismType CKM_ m\nCKM_X 1", `hash x: size "big"`},
		{"unknown fact of a hash", "hashes\nx 1 mfg=y", `unknown fact "mfg=y"`},
		{"object identifier", "curves\nx 1.b 9 key=x\ntype KeyType CKK_ k\nCKK_X 1", `curve x: object identifier "1.b"`},
		{"curve without a key type", "curves\nx 1.2.3 9", "curve x: table.txt has no CKK_"},
		{"no such key type", "type MechanismType CKM_ mechanism\nCKM_X 1 fn=sign key=none", "no CKF_SIGN"},
		{"chapter without a title", "chapters \"S\"\n6.1 rsa*", "a chapter wants a number"},
		{"chapter's pattern", "chapters \"S\"\n6.1 rsa[ \"RSA\"", "chapter 6.1: syntax error"},
		{"in no chapter", "chapters \"S\"\n6.1 rsa* \"RSA\"\ntype MechanismType CKM_ m\nCKM_X 1", "CKM_X is in no chapter"},
		{"no advice", "type RV CKR_ return value\nCKR_X 1", "CKR_X: no advice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := generate(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
