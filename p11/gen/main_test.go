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
		{"no such key type", "type MechanismType CKM_ mechanism\nCKM_X 1 fn=sign key=none", "no CKF_SIGN"},
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
