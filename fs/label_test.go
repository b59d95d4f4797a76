package fs

import (
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

// TestAnyLabel gives keys labels that a script does not know: all of each is the label, and
// nothing of it another attribute.
func TestAnyLabel(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.keys()
	for _, label := range []string{
		"a,b", "x,extractable=true", `a" extractable=true id="`, "it's", `\`, `\"`, "{", "'", ` a  b `, "a\nextractable=true", "two\n", "=", ":=", "größe", "$(id)", "\tend\t",
	} {
		for _, file := range []string{"tok/generate", "tok/import:template"} {
			recipe := "aes:256"
			if file != "tok/generate" {
				if strings.Contains(label, "\n") { // a line is an object there
					continue
				}
				recipe = "class=secret-key key-type=aes value=0x" + strings.Repeat("5a", 32)
			}
			p.must(p.echo(recipe+" id=0x77 label:="+label, file))
			p.must(p.echo("id=0x77 label:="+label, "tok/find"))
			found, errno := p.cat("tok/find")
			if errno != 0 || strings.Count(found, "\n") != 1 {
				t.Fatalf("%s: %q: %v, and there is %q", file, label, errno, found)
			}
			dir := "tok/objects/" + strings.TrimSuffix(found, "\n") + "/"
			want := (p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}}).FormatValue(p11.CKA_LABEL) + "\n"
			if got, errno := p.cat(dir + "attr/label"); errno != 0 || got != want {
				t.Errorf("%s: the label is %q, %v, want %q", file, got, errno, want)
			}
			if got, errno := p.cat(dir + "attr/extractable"); errno != 0 || got != "false\n" {
				t.Errorf("%s: %q: extractable is %q, %v", file, label, got, errno)
			}
			p.must(p.rmdir(strings.TrimSuffix(dir, "/")))
		}
	}
}
