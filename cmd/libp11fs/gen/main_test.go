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
		got, err := os.ReadFile(filepath.Join("..", "src", name))
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
	if len(stray) != len(files) {
		t.Errorf("files %v, generated are %d", stray, len(files))
	}
}

func TestTables(t *testing.T) {
	files, err := generate("param N NParams CK_N_PARAMS 9\nvalue ulong word=n\ntype MechanismType CKM_ x\nCKM_X 0x1 fn=sign param=N?\nalias CKM_Y CKM_X\naka Z CKM_X\nCKM_Z 0xffffffffffffffff\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, line string }{
		{"constants_gen.h", "#define CKM_X 0x1UL"},
		{"constants_gen.h", "#define CKM_Y CKM_X"},
		{"constants_gen.h", "#define CKM_Z (~0UL)"},
		{"mechanism_gen.h", "typedef CK_ULONG CK_N_PARAMS;"},
		{"mechanism_gen.c", "    {CKM_X, 9, 0, param_N},"},
		{"attributes_gen.h", "{0x3UL"},
		{"attributes_gen.h", "{0x61dUL, FORM_NATIVE}, /* CKA_PARAMETER_SET */"},
		{"calls_gen.h", `    C(SignOnce, 256, "uMuayfy", "ay") \`},
	} {
		if has := strings.Contains(files[c.file], c.line); has == (c.line == "{0x3UL") {
			t.Errorf("%s: %q there: %v", c.file, c.line, has)
		}
	}
	if _, err := generate("CKM_X\n"); err == nil || !strings.Contains(err.Error(), "table.txt:1") {
		t.Errorf("a name without a number: %v", err)
	}
}
