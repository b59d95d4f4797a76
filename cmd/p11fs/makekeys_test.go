package main

import (
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
)

// TestMakerFile: what a command is given as an attribute is that attribute in the name of a
// file, whatever stands in it, and no other.
func TestMakerFile(t *testing.T) {
	for _, label := range []string{"web", "two words", `a"b`, `a\b`, "a/b", "x,extractable=true", "x extractable=true", "{", "'", "\t", "ü", "a=b", "0x41", `\x2f`} {
		file, err := makerFile("objects/kek.sec", "unwrap", "aes-key-wrap-kwp", []string{"label:=" + label, "id=0x01"})
		if err != nil {
			t.Errorf("%q: %v", label, err)
			continue
		}
		name := filepath.Base(file)
		if filepath.Dir(file) != "objects/kek.sec" || strings.ContainsRune(name, '/') {
			t.Errorf("%q leads to %s", label, file)
		}
		m, attrs, err := p11.ParseOperation(strings.TrimPrefix(name, "unwrap:"))
		if err != nil || m.Type != p11.CKM_AES_KEY_WRAP_KWP || attrs.Label() != label || len(attrs) != 2 {
			t.Errorf("%q: %s is %v of %v, %v", label, name, attrs.Text(), m, err)
		}
	}
	if file, err := makerFile("k", "derive", "", nil); err != nil || file != "k/derive" {
		t.Errorf("without anything it is %q, %v", file, err)
	}
	if file, err := makerFile("k", "derive", "", []string{"label=x"}); err != nil || file != "k/derive:,label=x" {
		t.Errorf("without a mechanism it is %q, %v", file, err)
	}
	for _, bad := range []string{"label", "=x", ":=x", "a b=c", "a,b=c", "a/b=c"} {
		if file, err := makerFile("k", "unwrap", "", []string{bad}); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q is taken as %q (%v)", bad, file, err)
		}
	}
	if _, err := makerFile("k", "unwrap", "", []string{"label=" + strings.Repeat("x", 250)}); err == nil || !strings.Contains(err.Error(), "p11fs set") {
		t.Errorf("a name that no file can have: %v", err)
	}
}

// TestDestination: where a copy goes.
func TestDestination(t *testing.T) {
	dir := fakeTree(t)
	at := tree{filepath.Join(dir, "swtok")}
	for to, want := range map[string]struct{ token, label string }{
		"copy": {"swtok", "copy"}, "swtok": {"swtok", ""}, "swtok/x": {"swtok", "x"},
	} {
		token, label, err := at.destination(to)
		if err != nil || filepath.Base(token.dir) != want.token || label != want.label {
			t.Errorf("%q is %q in %s, %v", to, label, token.dir, err)
		}
	}
	for _, bad := range []string{"", "nothing/x", "swtok/", "swtok/a/b", "../x"} {
		if token, label, err := at.destination(bad); err == nil {
			t.Errorf("%q is %q in %s", bad, label, token.dir)
		}
	}
}
