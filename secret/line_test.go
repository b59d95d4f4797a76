package secret

import "testing"

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"1234":                      "1234",
		"1234\n":                    "1234",
		"1234\r\n":                  "1234",
		"1234\r":                    "1234",
		"\xef\xbb\xbf1234\r\n":      "1234",
		"\xef\xbb\xbf":              "",
		" 12\r34 \n":                " 12\r34 ",
		"1234\n\n":                  "1234\n",
		"\xef\xbb\xbf\xef\xbb\xbfx": "\xef\xbb\xbfx",
	} {
		if got := string(Line([]byte(in))); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}
