package fs

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// TestErrnoDocument compares the table in docs/tree.md with errnoOf: each
// CK_RV that has an errno of its own stands there, once, under that errno.
func TestErrnoDocument(t *testing.T) {
	page, err := os.ReadFile("../docs/tree.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[p11.RV]string)
	row := regexp.MustCompile(`(?m)^\| (E[A-Z]+) \|[^|]*\| ([A-Z0-9_, ]+) \|$`)
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		for _, name := range strings.Split(m[2], ", ") {
			rv, err := p11.ParseRV("CKR_" + name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if other, twice := documented[rv]; twice {
				t.Errorf("%v stands under %s and under %s", rv, other, m[1])
			}
			documented[rv] = m[1]
		}
	}
	for _, rv := range p11.AllRVs() {
		if rv == p11.CKR_OK {
			continue
		}
		errno := errnoOf(rv)
		name := unix.ErrnoName(errno)
		if errno == syscall.EOPNOTSUPP { // which has two names
			name = "EOPNOTSUPP"
		}
		// What is not listed is EIO.
		if doc, listed := documented[rv]; listed && doc != name || !listed && errno != syscall.EIO {
			t.Errorf("%v is %s, and in the document %q", rv, name, doc)
		}
	}
}

// TestDefaultsAreDocumented: the table of operations in docs/tree.md has what each does
// by default, for each type of key.
func TestDefaultsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/tree.md")
	if err != nil {
		t.Fatal(err)
	}
	inWords := map[p11.MechanismType]string{p11.CKM_RSA_PKCS_OAEP: "RSA OAEP with SHA-256", p11.CKM_AES_KEY_WRAP_KWP: "KWP, RFC 5649"}
	row := ""
	for _, o := range operations() {
		found := regexp.MustCompile("(?m)^\\| `" + o.name + "` \\|.*\\| (.*) \\|$").FindSubmatch(page)
		if found == nil {
			t.Fatalf("no row is about %s", o.name)
		}
		if said := string(found[1]); said != "the same" {
			row = said
		}
		for kt, list := range o.defaults {
			words, ok := inWords[list[0].Type]
			if !ok {
				words = "`" + list[0].Type.Short()
			}
			if !strings.Contains(row, words) {
				t.Errorf("%s with a key of type %s is %s by default, and in the document %q", o.name, kt.Short(), list[0].Type.Short(), row)
			}
		}
	}
}
