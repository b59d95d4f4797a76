package ep11

import (
	"testing"

	"p11fs/p11"
)

// TestGroup has groups go to a card and come out of its template, and what is none.
func TestGroup(t *testing.T) {
	parse := func(text string) p11.Attributes {
		t.Helper()
		a, err := p11.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, tt := range map[string]struct {
		kt              p11.KeyType
		of, goes, comes string
	}{
		"Diffie-Hellman":            {p11.CKK_DH, "prime=0x00c1c2c3 base=0x02", "ibm-struct-params=0xc1c2c3000002", "prime=0xc1c2c3 base=0x02"},
		"DSA":                       {p11.CKK_DSA, "prime=0xc1c2c3 subprime=0x0d01 base=0x04", "ibm-struct-params=0xc1c2c3000d01000004", "prime=0xc1c2c3 subprime=0x0d01 base=0x04"},
		"a number is missing":       {p11.CKK_DSA, "prime=0xc1c2c3 base=0x04", "", ""},
		"one is longer":             {p11.CKK_DH, "prime=0xc1 base=0x0102", "", ""},
		"one is nothing":            {p11.CKK_DH, "prime=0xc1 base=0x00", "", ""},
		"a key that is in no group": {p11.CKK_RSA, "prime=0xc1 base=0x02", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var template p11.Attributes
			PutGroup(tt.kt, parse(tt.of), &template)
			if want := parse(tt.goes); !template.Match(want) || !want.Match(template) {
				t.Errorf("%v goes, not %v", template, want)
			}
			if got, want := GroupOf(tt.kt, template), parse(tt.comes); !got.Match(want) || !want.Match(got) {
				t.Errorf("%v comes, not %v", got, want)
			}
		})
	}
	for _, text := range []string{`ibm-struct-params=""`, "ibm-struct-params=0x0102030405"} {
		if got := GroupOf(p11.CKK_DSA, parse(text)); len(got) != 0 {
			t.Errorf("%s is %v", text, got)
		}
	}
}
