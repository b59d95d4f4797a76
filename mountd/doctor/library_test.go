package doctor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLacking looks for functions that libraries call and that are not there, as in stock's
// of Debian 12.
func TestLacking(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("there is no compiler of C to make libraries with")
	}
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/opencryptoki/stdll")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	build := func(to, text string, args ...string) string {
		t.Helper()
		source := filepath.Join(t.TempDir(), "a.c")
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("gcc", append([]string{"-shared", "-fPIC", "-nostdlib", "-o", to, source}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("gcc: %v: %s", err, out)
		}
		return to
	}
	build(filepath.Join(root, "usr/lib/libhas.so"), "int has(void) { return 1; }")
	has := []string{"-L" + filepath.Join(root, "usr/lib"), "-lhas"}
	e := Examination{Root: root}
	for name, c := range map[string]struct {
		text string
		args []string
		want string
	}{
		"whole":   {"int has(void); int f(void) { return has(); }", has, ""},
		"lacking": {"int has(void); int dsa_sign(void); int f(void) { return has() + dsa_sign(); }", has, "dsa_sign"},
		"weak":    {"int has(void); __attribute__((weak)) int dsa_sign(void); int f(void) { return dsa_sign ? has() : 0; }", has, ""},
		"alone":   {"int f(void) { return 1; }", nil, ""},
	} {
		if got := e.lacking(build(filepath.Join(dir, "libpkcs11_"+name+".so"), c.text, c.args...)); got != c.want {
			t.Errorf("%s lacks %q, not %q", name, got, c.want)
		}
	}
	if got := e.stockLibrary("libpkcs11_lacking"); len(got) != 1 || !strings.HasSuffix(got[0], "stdll/libpkcs11_lacking.so") {
		t.Errorf("found are %v", got)
	}
	if err := os.Remove(filepath.Join(root, "usr/lib/libhas.so")); err != nil {
		t.Fatal(err)
	}
	if got := e.lacking(filepath.Join(dir, "libpkcs11_whole.so")); got != "libhas.so" {
		t.Errorf("without a library that it needs it lacks %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "no.so"), []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := e.lacking(filepath.Join(dir, "no.so")); got != "" {
		t.Errorf("what is no library lacks %q", got)
	}
}
