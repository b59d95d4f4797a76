package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzzScript fuzzes a module whose target fails: contrib/fuzz.sh says so,
// shows the input, and leaves the sources as they were.
func TestFuzzScript(t *testing.T) {
	script, err := os.ReadFile("../fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	const target = `package p
import "testing"
func FuzzP(f *testing.F) {
	f.Add("a")
	f.Fuzz(func(t *testing.T, s string) { if s != "a" { t.Error("found") } })
}
`
	root := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\ngo 1.26\n", "p/p_test.go": target, "contrib/fuzz.sh": string(script)} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", filepath.Join(root, "contrib/fuzz.sh"), "10s", "./p", "FuzzP")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("a failing target is no failure:\n%s", out)
	}
	kept, _ := filepath.Glob(filepath.Join(root, "build/fuzz/p/testdata/fuzz/FuzzP/*"))
	if len(kept) != 1 || !strings.Contains(string(out), kept[0][len(root)+1:]) || !strings.Contains(string(out), "\nstring(") {
		t.Errorf("kept %v, and said\n%s", kept, out)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "p/*")); len(left) != 1 {
		t.Errorf("among the sources: %v", left)
	}
}
