package errortexts

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/errors.md anew")

// TestErrorTexts holds each text to what a reader needs, and the page to the texts.
func TestErrorTexts(t *testing.T) {
	list, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 400 {
		t.Fatalf("found %d texts only", len(list))
	}
	for _, dir := range unread(t, "../..") {
		t.Errorf("%s makes errors, and no section of the page has it", dir)
	}
	for _, e := range list {
		for _, wrong := range complaints(e) {
			t.Errorf("%s: %q: %q: %s", e.at, e.text, e.advice, wrong)
		}
	}
	const page = "../../docs/errors.md"
	want := document(list)
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != want {
		t.Errorf("docs/errors.md is not what the code says (%v): go generate ./contrib/errortexts", err)
	}
}

// unread returns the packages of the product with errors that no section has.
func unread(t *testing.T, root string) (dirs []string) {
	t.Helper()
	known := []string{"cmd/libp11fs/gen", "p11/gen", "p11/gen/table", "tokens/card/gen"} // which run when the product is built
	for _, s := range sections() {
		known = append(known, s.dirs...)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		product := regexp.MustCompile(`^(cmd|engine|fs|locks|mountd|p11|secret|shm|tokens)\b`).MatchString(dir) && !strings.Contains(dir, "test")
		if err != nil || !product || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || slices.Contains(known, dir) {
			return err
		}
		text, err := os.ReadFile(path)
		if regexp.MustCompile(`Errorf\(|errors\.New\(`).Match(text) {
			dirs, known = append(dirs, dir), append(known, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// complaints says what is wrong with a text.
func complaints(e entry) (list []string) {
	all := e.text + ": " + e.advice
	check := func(wrong bool, what string) {
		if wrong {
			list = append(list, what)
		}
	}
	if strings.Trim(e.text, "… :;,()") == "" { // another's text, or several
		return nil
	}
	check(strings.ContainsAny(all, "\n\t!") || strings.Contains(all, "  "), "it is no plain line")
	check(strings.HasSuffix(e.text, ".") && !strings.Contains(e.at, "pkcsslotd.go"), "it ends in a full stop")
	check(strings.Contains(all, "CKR_"), "it has a second CK_RV")
	check(regexp.MustCompile(`(?i)\b(invalid|illegal|please|abort|fatal|nil|EOF|ioctl|syscall|fd)\b`).MatchString(all), "it is not in plain words")
	check(e.advice == "" && !e.prefix, "it does not say what to do")
	check(repeats(all) != "" && e.dir != "mountd/doctor", "it says twice: "+repeats(all))
	return list
}

// repeats returns three words that a text has twice.
func repeats(text string) string {
	words := regexp.MustCompile(`[\pL\pN'-]+|…`).FindAllString(strings.ToLower(text), -1)
	seen := map[string]bool{}
	for i := 0; i+3 <= len(words); i++ {
		three := strings.Join(words[i:i+3], " ")
		if seen[three] && !strings.Contains(three, "…") {
			return three
		}
		seen[three] = true
	}
	return ""
}
