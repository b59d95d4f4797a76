package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The checked-in headers are what the tables make.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	table, err := os.ReadFile("../../../p11/table.txt")
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(string(table))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", folder(name), name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is out of date; run go generate ./cmd/libp11fs (-want +got):\n%.2000s", name, diff)
		}
	}
	stray, err := filepath.Glob("../src/*_gen.[ch]")
	if err != nil {
		t.Fatal(err)
	}
	if len(stray)+1 != len(files) { // and one in Go
		t.Errorf("files %v, generated are %d", stray, len(files))
	}
}

func TestTables(t *testing.T) {
	files, err := generate("param N NParams CK_N_PARAMS 9\nvalue ulong word=n\ntype MechanismType CKM_ x\nCKM_X 0x1 fn=sign param=N?\nalias CKM_Y CKM_X\naka Z CKM_X\nCKM_Z 0xffffffffffffffff\n" +
		"functions 2.40\nC_Sign 43 session:u data:ay signature:fy once=SIGN\nC_CopyObject 21 session:u object:u template:aA copy>u changes\nC_Finalize 2 \"void *reserved\"\nfunctions -\nC_SignOnce 256 :uMuayfy\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, line string }{
		{"constants_gen.h", "#define CKM_X 0x1UL"},
		{"constants_gen.h", "#define CKM_Y CKM_X"},
		{"constants_gen.h", "#define CKM_Z (~0UL)"},
		{"mechanism_gen.h", "typedef CK_ULONG CK_N_PARAMS;"},
		{"mechanism_gen.c", "    {CKM_X, 9, 0, param_N, NULL, false},"},
		{"attributes_gen.h", "{0x3UL"},
		{"attributes_gen.h", "{0x61dUL, FORM_NATIVE}, /* CKA_PARAMETER_SET */"},
		{"calls_gen.h", `    C(SignOnce, 256, "uMuayfy", "ay")`},
		{"calls_gen.go", `		return Signature{"C_CopyObject", "uuaA", "u"}, true`},
		{"functions_gen.h", `    F(C_Finalize, (void *reserved))`},
		{"functions_gen.h", `    F(C_Sign, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len)) \`},
		{"functions_gen.c", "    if (copy == NULL)\n        call_fail(&c, CKR_ARGUMENTS_BAD);\n    c.changes = true;\n    put_ulong(&c, object);"},
		{"functions_gen.c", "    call_begin_once(&c, KIND_SIGN, session, (data == NULL && data_len != 0) || signature_len == NULL);"},
	} {
		if has := strings.Contains(files[c.file], c.line); has == (c.line == "{0x3UL") {
			t.Errorf("%s: %q there: %v", c.file, c.line, has)
		}
	}
	for text, want := range map[string]string{
		"CKM_X\n":                                "table.txt:1",
		"functions 2.40\nC_X 1 session:u x:q\n":  "C_X: no function in C has a value of type q",
		"functions 2.40\nC_X 1 session:u x>v\n":  "C_X: no function in C has a value of type >v",
		"functions 2.40\nC_X\n":                  "table.txt:2: C_X: the line wants",
		"functions 2.40\nC_X 1\nC_Y 1\n":         `C_Y: number "1" is none, or another's`,
		"functions 2.40\nC_X 1 a:u\nC_X 2 a:u\n": "table.txt:3: C_X stands twice",
		"functions 2.40\nC_X 1 a:u ends\n":       `unknown fact "ends"`,
		"functions\n":                            "functions wants a version",
	} {
		if _, err := generate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
