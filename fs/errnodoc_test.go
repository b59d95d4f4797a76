package fs

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p11fs/p11"
)

var update = flag.Bool("update", false, "write docs/return-values.md anew")

// TestReturnValues holds docs/return-values.md to the values that there are, with what each is
// at a file, and what to do: for who has a number from a program and looks it up.
func TestReturnValues(t *testing.T) {
	tree, err := os.ReadFile("../docs/tree.md")
	if err != nil {
		t.Fatal(err)
	}
	means := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (E[A-Z]+) \| ([^|]*) \|`).FindAllStringSubmatch(string(tree), -1) {
		means[m[1]] = m[2]
	}
	var b strings.Builder
	b.WriteString(`# Return values

Programs with a PKCS#11 module get a return value when something fails. Some print its name, such as ` + "`CKR_PIN_INCORRECT`" + `, and
some its number only, such as 0xa0 or 160. Here each has what it means, what it is at a file of the tree, and what to do, by the
numbers. At the tree the file ` + "`error`" + ` says it with its reason ([tree.md](tree.md#errors)); [errors.md](errors.md) lists the reasons.

` + "A test writes this page: `go test ./fs -run TestReturnValues -update`." + `

| number | | name | means, at a file | what to do |
|---:|---:|---|---|---|
`)
	for _, rv := range p11.AllRVs() {
		if rv == p11.CKR_OK {
			fmt.Fprintf(&b, "| 0x0 | 0 | `%s` | done | nothing |\n", rv)
			continue
		}
		name := errnoName(errnoOf(rv))
		what, ok := means[name]
		if !ok {
			t.Errorf("docs/tree.md does not say what %s means", name)
		}
		fmt.Fprintf(&b, "| %#x | %d | `%s` | %s: %s | %s |\n", uint64(rv), uint64(rv), rv, what, name, strings.NewReplacer("|", "\\|", "<", "\\<").Replace(rv.Advice()))
	}
	const page = "../docs/return-values.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != b.String() {
		t.Errorf("docs/return-values.md is not what the table says (%v): go test ./fs -run TestReturnValues -update", err)
	}
}

func errnoName(errno syscall.Errno) string {
	if errno == syscall.EOPNOTSUPP { // which has two names
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(errno)
}

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
		name := errnoName(errno)
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
