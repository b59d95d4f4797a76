package errortexts

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/errors.md anew") //nolint:gochecknoglobals // as flags are

// TestErrorTexts holds each text to what a reader needs, and the page to the texts.
func TestErrorTexts(t *testing.T) {
	list, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 400 {
		t.Fatalf("found %d texts only", len(list))
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
