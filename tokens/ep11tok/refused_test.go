package ep11tok

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
)

// TestRefusedDoc: what docs/cards.md says that the token refuses is no mechanism of it, and
// what it says to take instead is one.
func TestRefusedDoc(t *testing.T) {
	page, err := os.ReadFile("../../docs/cards.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "\n## What is refused\n\n")
	refused, _, more := strings.Cut(section, "\n\n")
	if !ok || !more {
		t.Fatal("docs/cards.md does not say what is refused")
	}
	instead := []p11.MechanismType{p11.CKM_ECDH1_DERIVE}
	n := 0
	for _, word := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(refused, -1) {
		m, err := p11.ParseMechanismType(word[1])
		if err != nil {
			continue // a file, or an attribute
		}
		n++
		if has := slices.Contains(served(), m); has != slices.Contains(instead, m) {
			t.Errorf("the token has %s: %v", m.Short(), has)
		}
	}
	if n < 9 {
		t.Errorf("%d mechanisms are named", n)
	}
}
