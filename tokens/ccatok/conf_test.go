package ccatok

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/card/softcca"
)

func TestConf(t *testing.T) {
	t.Parallel()
	c, err := parseConf(`
version cca-0
# a comment
FORCE_SENSITIVE # another
PKEY_MODE = DISABLED
EXPECTED_MKVPS
{
	SYM = "0123456789abcdef"
	AES = "0x1122334455667788"
}
#p11fs: card = /run/card
`)
	if err != nil || !c.sensitive || c.card != "/run/card" || len(c.expected) != 2 || c.expected["AES"][0] != 0x11 || len(c.ignored) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	for bad, want := range map[string]string{
		"NOWORD":                                "line 1: it is version",
		"version cca-1":                         "line 1: the version is",
		"\nEXPECTED_MKVPS {":                    "line 2: EXPECTED_MKVPS has no }",
		"EXPECTED_MKVPS":                        "wants {",
		"EXPECTED_MKVPS { DES = 00 }":           "the master keys are",
		"EXPECTED_MKVPS { AES = 0011 }":         "16 hexadecimal digits",
		"EXPECTED_MKVPS { AES }":                "wants = and a value",
		"#p11fs: card":                          "wants = and a value",
		"#p11fs: library = x":                   "it is version",
		"PKEY_MODE":                             "wants = and a value",
		"EXPECTED_MKVPS { AES = 00112233445566": "16 hexadecimal digits",
	} {
		if _, err := parseConf(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestExpected has a token refuse a card with other master keys than it expects.
func TestExpected(t *testing.T) {
	t.Parallel()
	d := newCards(t)
	p := place(t, t.TempDir())
	p.Config = filepath.Join(t.TempDir(), confFile)
	pattern, _, err := softcca.Pattern(d.set, d.set.APQNs()[0], softcca.AES, softcca.Current)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]p11.RV{
		"EXPECTED_MKVPS { AES = " + strings.Repeat("00", 8) + " }": p11.CKR_DEVICE_ERROR,
		"EXPECTED_MKVPS { AES = " + hexOf(pattern[:]) + " }":       p11.CKR_OK,
	} {
		if err := os.WriteFile(p.Config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		tok := open(t, p, d)
		if err := tok.GenerateRandom(t.Context(), make([]byte, 8)); p11.RVOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
		if err := tok.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzConf reads anything.
func FuzzConf(f *testing.F) {
	f.Add("version cca-0\nEXPECTED_MKVPS { SYM = \"0123456789abcdef\" }\n#p11fs: card = /run/card")
	f.Fuzz(func(t *testing.T, src string) {
		c, err := parseConf(src)
		if err == nil && len(c.expected) > 3 {
			t.Errorf("%q expects %d master keys", src, len(c.expected))
		}
	})
}
