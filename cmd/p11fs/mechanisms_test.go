package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"p11fs/p11"
	"p11fs/tokens/swtok"
)

// TestMechanismPage checks that the manual page has every mechanism, with its number, its
// sizes and where it is described, and nothing else.
func TestMechanismPage(t *testing.T) {
	page := string(mechanismPage(swtok.Mechanisms(), time.Unix(0, 0)))
	list := swtok.Mechanisms()
	if n := strings.Count(page, "\n.It Li "); n != len(list) {
		t.Errorf("%d mechanisms of %d", n, len(list))
	}
	for _, m := range list {
		want := fmt.Sprintf("\n.It Li %s\n%s, %#x: %s.\n", m.Type.Short(), m.Type, uint64(m.Type), strings.Join(m.Uses(), ", "))
		_, item, ok := strings.Cut(page, want)
		item, _, _ = strings.Cut(item, "\n.It Li ")
		if s := sizes(m); !ok || s != "-" && !strings.Contains(item, s) && len(keysOf(m)) > 0 {
			t.Errorf("%s is not right: %q", m.Type, item)
		}
		if m.Type.Chapter() == "" || !strings.Contains(item, roff(m.Type.Chapter())) {
			t.Errorf("%s is not described anywhere", m.Type)
		}
		for _, w := range m.Type.ParamWords() {
			if !strings.Contains(item, ".Li "+w.Name+"= :") {
				t.Errorf("%s has no word %s", m.Type, w.Name)
			}
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") || strings.Contains(line, "%!") {
			t.Errorf("line %q", line)
		}
	}
}

func keysOf(m p11.MechanismInfo) []p11.KeyType {
	facts, _ := p11.MechanismFacts(m.Type)
	return facts.KeyTypes
}

// TestExamples checks that the parameters in the examples are good, but for what comes
// from elsewhere.
func TestExamples(t *testing.T) {
	for _, m := range swtok.Mechanisms() {
		text := example(m)
		if m.Type == p11.CKM_DH_PKCS_KEY_PAIR_GEN || m.Type == p11.CKM_DSA_KEY_PAIR_GEN {
			if !strings.Contains(text, "2048 label="+m.Type.Short()+"' > ") || strings.Contains(text, "=0x") {
				t.Errorf("%s: %q", m.Type, text)
			}
			continue // words of generate alone
		}
		spec := text[strings.LastIndex(text, "\n")+1:]
		for _, before := range []string{"$T/objects/", ":", "$T/digest/", "echo '"} {
			if _, after, ok := strings.Cut(spec, before); ok {
				spec = after
			}
		}
		spec = spec[:strings.IndexAny(spec+" ", "; '")]
		parsed, _, err := p11.ParseOperation(spec)
		if err != nil || parsed.Type != m.Type {
			t.Errorf("%s: %q: %v", m.Type, text, err)
		}
	}
}

// TestMechanismsCommand asks for one that is there, one that is not, and one that is none.
func TestMechanismsCommand(t *testing.T) {
	ask := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := newRoot(streams{out: &out, err: &out})
		c.SetArgs(append([]string{"mechanisms"}, args...))
		err := c.Execute()
		return out.String(), err
	}
	for _, name := range []string{"aes-gcm", "CKM_AES_GCM"} {
		out, err := ask(name)
		for _, want := range []string{"aes-gcm (CKM_AES_GCM)\n", "0x1087\n", "16-32 bytes\n", "parameters  iv= ", "§6.13, ", "/encrypt:aes-gcm,iv=0x"} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%s: no %q in %q, %v", name, want, out, err)
			}
		}
	}
	if out, err := ask("kip-mac"); err == nil || exitCode(err) != 1 {
		t.Errorf("of what is not there it says %q, %v", out, err)
	}
	if out, err := ask("aes-gmc"); err == nil || exitCode(err) != 2 || !strings.Contains(err.Error(), "aes-g") {
		t.Errorf("of what is none it says %q, %v", out, err)
	}
	if out, err := ask("HKDF"); exitCode(err) != 2 || !strings.Contains(err.Error(), "hkdf-derive") {
		t.Errorf("of a part of a name it says %q, %v", out, err)
	}
	if out, err := ask(); err != nil || strings.Count(out, "\n") < 100 {
		t.Errorf("the list is %q, %v", out, err)
	}
}
