package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
)

// row is one file and what comes of it. The stock daemon is asked about the
// same rows in TestStockAgrees.
type row struct {
	name   string
	src    string
	slots  []string // see summary
	warn   []string // "line: part of the reason", in order
	refuse []string // likewise; with any, there are no slots
	// differs says why the stock daemon does something else here, on purpose.
	differs string
}

// summary is one slot in one line; defaults are left out.
func summary(s Slot) string {
	out := fmt.Sprintf("%d %s", s.ID, s.Library)
	add := func(key, value, usual string) {
		if value != usual {
			out += fmt.Sprintf(" %s=%s", key, value)
		}
	}
	add("d", s.Description, "Linux")
	add("m", s.Manufacturer, "IBM")
	add("h", version(s.Hardware), "0.0")
	add("f", version(s.Firmware), "0.0")
	add("c", s.ConfName, "")
	add("t", s.TokenName, "")
	return out
}

func block(lines ...string) string {
	return strings.Join(append([]string{"slot 3", "{", "stdll = x.so"}, append(lines, "}", "")...), "\n")
}

func rows() []row {
	long := func(n int) string { return strings.Repeat("x", n) }
	return []row{
		{name: "empty", src: ""},
		{name: "blank lines and comments", src: "\n# a\n   # b\n\n"},
		{name: "one slot", src: "slot 3\n{\nstdll = x.so\n}\n", slots: []string{"3 x.so"}},
		{name: "every key", src: "slot 0\n{\nstdll = x.so\ndescription = \"a b\"\nmanufacturer = \"c d\"\nhwversion = 1.23\nfirmwareversion = \"4.5\"\nconfname = my.conf\ntokname = tk\n}\n",
			slots: []string{"0 x.so d=a b m=c d h=1.23 f=4.5 c=my.conf t=tk"}},

		// version
		{name: "version first", src: "version opencryptoki-3.1\n" + block(), slots: []string{"3 x.so"}},
		{name: "version between slots", src: "slot 1 {\nstdll=a\n}\nversion x\nslot 2 {\nstdll=b\n}\n", slots: []string{"1 a", "2 b"}},
		{name: "version twice", src: "version x\nversion y\n" + block(), slots: []string{"3 x.so"}},
		{name: "version with a dot", src: "version 3.1\n" + block(), slots: []string{"3 x.so"}},
		{name: "version in quotes", src: "version \"3\"\n" + block(), slots: []string{"3 x.so"}},
		{name: "version whole number", src: "version 3\n" + block(), warn: []string{"1: whole number"}},
		{name: "version without value", src: "version\n" + block(), warn: []string{"1: wants a value, found the end of the line"}},
		{name: "version with two values", src: "version a b\n" + block(), warn: []string{`1: must end after the version, found "b"`}},
		{name: "version in capitals", src: "VERSION x\n" + block(), warn: []string{`1: found "VERSION"`}},
		{name: "version in a block", src: block("version x"), warn: []string{`4: found the word "version"`}},

		// braces
		{name: "brace on the slot line", src: "slot 3 {\nstdll = x.so\n}\n", slots: []string{"3 x.so"}},
		{name: "brace touches the number", src: "slot 3{\nstdll = x.so\n}\n", warn: []string{`1: wants a number, found "3{"`}},
		{name: "brace with blanks behind", src: "slot 3 {  \t\nstdll = x.so\n}\n", slots: []string{"3 x.so"}},
		{name: "brace with comment behind", src: "slot 3 { # c\nstdll = x.so\n}\n", slots: []string{"3 x.so"}},
		{name: "brace indented", src: "slot 3\n {\nstdll = x.so\n}\n", warn: []string{"1: first character of the next"}},
		{name: "blank line before the brace", src: "slot 3\n\n{\nstdll = x.so\n}\n", warn: []string{"1: first character of the next"}},
		{name: "comment before the brace", src: "slot 3 # c\n{\nstdll = x.so\n}\n", warn: []string{"1: first character of the next"}},
		{name: "comment line before the brace", src: "slot 3\n# c\n{\nstdll = x.so\n}\n", warn: []string{"1: first character of the next"}},
		{name: "word after the brace", src: "slot 3 { x\nstdll = x.so\n}\n", warn: []string{`1: nothing may follow "{" in its line, found "x"`}},
		{name: "key after the brace", src: "slot 3\n{ stdll = x.so\n}\n", warn: []string{`2: nothing may follow`}},
		{name: "brace touches a word", src: "slot 3\n{stdll = x.so\n}\n", warn: []string{`2: nothing may follow`}},
		{name: "no brace", src: "slot 3\nstdll = x.so\n}\n", warn: []string{"1: first character of the next"}},
		{name: "closing brace on a value line", src: "slot 3 {\nstdll = x.so }\n", warn: []string{`2: must end after the value of stdll, found "}"`}},
		{name: "closing brace without newline", src: "slot 3 {\nstdll = x.so\n}", slots: []string{"3 x.so"}},
		{name: "closing brace indented", src: "slot 3 {\nstdll = x.so\n  }\n", slots: []string{"3 x.so"}},
		{name: "slot behind a closing brace", src: "slot 3 {\nstdll = x.so\n} slot 4 {\nstdll = y.so\n}\n", slots: []string{"3 x.so", "4 y.so"}},
		{name: "comment behind a closing brace", src: "slot 3 {\nstdll = x.so\n} # c\n", slots: []string{"3 x.so"}},
		{name: "word behind a closing brace", src: "slot 3 {\nstdll = x.so\n} x\n" + "slot 4 {\nstdll = y\n}\n", slots: []string{"3 x.so"}, warn: []string{`3: wanted "slot" or "version", found "x"`}},
		{name: "no closing brace", src: "slot 3 {\nstdll = x.so\n", warn: []string{`3: slot 3 has no "}"`}},
		{name: "block inside a block", src: "slot 3 {\nslot 4 {\n", warn: []string{`2: found the word "slot"`}},
		{name: "brace alone", src: "{\n", warn: []string{`1: found "{"`}},
		{name: "closing brace alone", src: "}\n", warn: []string{`1: found "}"`}},

		// lines in a block
		{name: "blank line in a block", src: block("", "t = a"), warn: []string{"4: may not hold an empty line"}},
		{name: "comment line in a block", src: block("# c", "t = a"), warn: []string{"4: may not hold an empty line or a line with a comment"}},
		{name: "comment after a value", src: "slot 3 {\nstdll = x.so # c\n}\n", slots: []string{"3 x.so"}},
		{name: "comment touches a value", src: "slot 3 {\nstdll = x.so#c\n}\n", slots: []string{"3 x.so#c"}},
		{name: "comment after a quoted value", src: "slot 3 {\nstdll = \"x.so\"# c\n}\n", slots: []string{"3 x.so"}},
		{name: "CRLF", src: "slot 3\r\n{\r\nstdll = x.so\r\n}\r\n", warn: []string{`1: CRLF`}},
		{name: "CRLF comment", src: "# c\r\n" + block(), slots: []string{"3 x.so"}},
		{name: "last line a comment without newline", src: block() + "# the end", slots: []string{"3 x.so"}, warn: []string{"5: needs a newline"}},
		{name: "last word a hash", src: block() + "#", slots: []string{"3 x.so"}, warn: []string{"5: needs a newline"}},
		{name: "no equals sign", src: block("description x"), warn: []string{`4: wanted "=" after "description", found "x"`}},
		{name: "no value", src: block("description ="), warn: []string{"4: description wants a value, found the end of the line"}},
		{name: "no key", src: block("= x"), warn: []string{`4: wanted "key = value" or "}", found "="`}},
		{name: "two values", src: block("description = a b"), warn: []string{`4: found "b" (a value with blanks needs quotes)`}},
		{name: "value touches quotes", src: block(`description = a"b"`), warn: []string{`4: found "b"`}},
		{name: "a quote without partner", src: block(`description = "a`), slots: []string{"3 x.so d=a"}, warn: []string{"4: quote without its partner"}},
		{name: "a quote in the key", src: block(`"description = a`), slots: []string{"3 x.so d=a"}, warn: []string{"4: quote without its partner"}},

		// values
		{name: "no blanks round equals", src: "slot 3 {\nstdll=x.so\n}\n", slots: []string{"3 x.so"}},
		{name: "many blanks round equals", src: "slot 3 {\n \t stdll \t =  \t x.so \t\n}\n", slots: []string{"3 x.so"}},
		{name: "braces and more in a word", src: block("tokname = a{b}c.d-e#f"), slots: []string{"3 x.so t=a{b}c.d-e#f"}},
		{name: "digits value", src: block("hwversion = 2"), warn: []string{`4: must stand in quotes: "2"`}},
		{name: "digits stdll", src: "slot 3 {\nstdll = 99\n}\n", warn: []string{`2: must stand in quotes: "99"`}},
		{name: "quoted digits", src: block(`hwversion = "2"`), slots: []string{"3 x.so h=2.0"}},
		{name: "value slot", src: block("description = slot"), warn: []string{`4: must stand in quotes: "slot"`}},
		{name: "value version", src: block("description = version"), warn: []string{`4: must stand in quotes: "version"`}},
		{name: "value slots", src: block("description = slots"), slots: []string{"3 x.so d=slots"}},
		{name: "quoted slot", src: block(`description = "slot"`), slots: []string{"3 x.so d=slot"}},
		{name: "quoted backslash", src: block(`description = "a\"`), slots: []string{`3 x.so d=a\`}},
		{name: "quoted hash and braces", src: block(`description = "# { } = x"`), slots: []string{"3 x.so d=# { } = x"}},
		{name: "empty description", src: block(`description = ""`), slots: []string{"3 x.so"}, warn: []string{"4: description is ignored: it is empty"}},
		{name: "empty manufacturer", src: block(`manufacturer = ""`), slots: []string{"3 x.so"}, warn: []string{"4: manufacturer is ignored: it is empty"}},
		{name: "empty description, then another", src: block(`description = ""`, "description = b"), slots: []string{"3 x.so d=b"}, warn: []string{"4: it is empty"}},
		{name: "empty confname, then another", src: block(`confname = ""`, "confname = b"), slots: []string{"3 x.so"}, warn: []string{"5: line 4 sets it"}},
		{name: "empty hwversion", src: block(`hwversion = ""`), refuse: []string{"4: hwversion holds no number"}},
		{name: "hwversion of a dot", src: block(`hwversion = .`), refuse: []string{"4: hwversion holds no number"}},
		{name: "hwversion starts with a dot", src: block(`hwversion = .5`), slots: []string{"3 x.so h=5.0"}, warn: []string{"4: taken as 5.0"}},
		{name: "hwversion with two dots", src: block(`hwversion = 1..5`), slots: []string{"3 x.so h=1.5"}, warn: []string{"4: taken as 1.5"}},
		{name: "empty tokname", src: block(`tokname = ""`), slots: []string{"3 x.so"}},
		{name: "empty stdll", src: "slot 3 {\nstdll = \"\"\n}\n", slots: []string{"3 "}, warn: []string{"2: stdll is empty"}},

		// keys
		{name: "keys of one letter", src: "slot 3 {\ns = x\nd = a\nm = b\nh = 1.2\nf = 3.4\nc = e\nt = g\n}\n", slots: []string{"3 x d=a m=b h=1.2 f=3.4 c=e t=g"}},
		{name: "keys cut short", src: "slot 3 {\nstd = x\ndescr = a\nmanu = b\n}\n", slots: []string{"3 x d=a m=b"}},
		{name: "empty key", src: "slot 3 {\n\"\" = x\n}\n", slots: []string{"3 x"}},
		{name: "quoted key", src: "slot 3 {\n\"stdll\" = x\n}\n", slots: []string{"3 x"}},
		{name: "key in capitals", src: block("Description = a"), slots: []string{"3 x.so"}, warn: []string{`4: unknown key "Description"`}},
		{name: "key too long", src: block("tokname2 = a"), slots: []string{"3 x.so"}, warn: []string{`4: unknown key "tokname2"`}},
		{name: "key of a later release", src: block("tokversion = 3.12", "usergroup = a"), slots: []string{"3 x.so"}, warn: []string{`5: unknown key "usergroup"`}},
		{name: "tokversion that no release takes", src: block("tokversion = new"), refuse: []string{`4: tokversion "new" is not MAJOR.MINOR`}, differs: "it does not know the key"},
		{name: "tokversion a whole number", src: block(`tokversion = "3"`), refuse: []string{`4: tokversion "3" is not MAJOR.MINOR`}, differs: "it does not know the key"},
		{name: "tokversion over a byte", src: block(`tokversion = 3.268`), refuse: []string{`4: numbers up to 255`}, differs: "it does not know the key"},
		{name: "repeated key", src: block("description = a", "description = b", "d = c"), slots: []string{"3 x.so d=a"}, warn: []string{"6: line 5 sets it", "5: line 4 sets it"}},
		{name: "repeated key, first too long", src: block("description = "+long(65), "description = b"), slots: []string{"3 x.so d=b"}, warn: []string{"4: 65 bytes, of at most 64"}},

		// lengths
		{name: "description 64", src: block("description = " + long(64)), slots: []string{"3 x.so d=" + long(64)}},
		{name: "description 65", src: block("description = " + long(65)), slots: []string{"3 x.so"}, warn: []string{"4: description is ignored"}},
		{name: "manufacturer 32", src: block("manufacturer = " + long(32)), slots: []string{"3 x.so m=" + long(32)}},
		{name: "manufacturer 33", src: block("manufacturer = " + long(33)), slots: []string{"3 x.so"}, warn: []string{"4: manufacturer is ignored"}},
		{name: "confname 255", src: block("confname = " + long(255)), slots: []string{"3 x.so c=" + long(255)}},
		{name: "confname 256", src: block("confname = " + long(256)), refuse: []string{"4: 256 bytes, of at most 255"}, differs: "it overflows"},
		{name: "stdll 256", src: "slot 3 {\nstdll = " + long(256) + "\n}\n", refuse: []string{"2: 256 bytes", `1: slot 3 has no "stdll"`}, differs: "it overflows"},
		{name: "tokname 50", src: block("tokname = " + long(50)), slots: []string{"3 x.so t=" + long(50)}},
		{name: "tokname 51", src: block("tokname = " + long(51)), refuse: []string{"4: tokname has 51 bytes"}, differs: "its clients overflow"},

		// versions
		{name: "version without dot", src: block(`firmwareversion = "7"`), slots: []string{"3 x.so f=7.0"}},
		{name: "version over a byte", src: block("hwversion = 300.257"), slots: []string{"3 x.so h=44.1"}, warn: []string{"4: taken as 44.1"}},
		{name: "version of three parts", src: block("hwversion = 1.2.3"), slots: []string{"3 x.so h=1.2"}, warn: []string{"4: taken as 1.2"}},
		{name: "version of letters", src: block("hwversion = abc"), slots: []string{"3 x.so"}, warn: []string{"4: taken as 0.0"}},
		{name: "version negative", src: block("hwversion = -1.-2"), slots: []string{"3 x.so h=255.254"}, warn: []string{"4: taken as 255.254"}},
		{name: "version with blanks", src: block(`hwversion = " 1. 2"`), slots: []string{"3 x.so h=1.2"}, warn: []string{"4: taken as 1.2"}},
		{name: "version ends in a dot", src: block("hwversion = 5."), slots: []string{"3 x.so h=5.0"}, warn: []string{"4: taken as 5.0"}},

		// slots
		{name: "slot 1023", src: "slot 1023 {\nstdll = x\n}\n", slots: []string{"1023 x"}},
		{name: "slot with zeros", src: "slot 007 {\nstdll = x\n}\n", slots: []string{"7 x"}},
		{name: "slots out of order", src: "slot 9 {\nstdll = x\n}\nslot 2 {\nstdll = y\n}\n", slots: []string{"9 x", "2 y"}},
		{name: "slot 1024", src: "slot 1024 {\nstdll = x\n}\n", refuse: []string{"1: numbered 0 to 1023"}, differs: "it writes past its table"},
		{name: "slot huge", src: "slot 99999999999999999999 {\nstdll = x\n}\n", refuse: []string{"1: numbered 0 to 1023"}, differs: "it writes past its table"},
		{name: "slot negative", src: "slot -1 {\nstdll = x\n}\n", warn: []string{`1: wants a number, found "-1"`}},
		{name: "slot without number", src: "slot\n{\nstdll = x\n}\n", warn: []string{`1: wants a number, found "{"`}},
		{name: "slot in quotes", src: "\"slot\" 3 {\nstdll = x\n}\n", warn: []string{`1: wanted "slot" or "version", found "slot"`}},
		{name: "slot in capitals", src: "Slot 3 {\nstdll = x\n}\n", warn: []string{`1: found "Slot"`}},
		{name: "no stdll", src: "slot 3 {\ndescription = a\n}\n", refuse: []string{`1: slot 3 has no "stdll"`}},
		{name: "empty block", src: "slot 3 {\n}\n", refuse: []string{`1: slot 3 has no "stdll"`}},
		{name: "slot twice", src: block() + block(), refuse: []string{"5: slot 3 is there already, in line 1"}},
		{name: "tokname twice", src: "slot 1 {\nstdll = x\nt = a\n}\nslot 2 {\nstdll = x\nt = a\n}\n", refuse: []string{`7: tokname "a" is used already, by the slot in line 1`}},
		{name: "two mistakes", src: "slot 1 {\n}\nslot 2 {\n}\n", refuse: []string{`1: slot 1 has no`, `3: slot 2 has no`}},
		{name: "good slot, then a syntax error, then a good slot", src: block() + "slot 4\n\n{\nstdll = y\n}\nslot 5 {\nstdll = z\n}\n", slots: []string{"3 x.so"}, warn: []string{"5: everything from here on is ignored"}},
		{name: "broken block with a bad value", src: block() + "slot 4 {\nhwversion = 2\n}\n", slots: []string{"3 x.so"}, warn: []string{"6: must stand in quotes"}},

		// names that would leave the directory or hide a file of the tree
		{name: "tokname with slash", src: block("tokname = ../etc"), refuse: []string{"4: must not contain a slash"}, differs: "it leaves its directory"},
		{name: "tokname dot", src: block("tokname = .."), refuse: []string{"4: must not start with a dot"}, differs: "it leaves its directory"},
		{name: "tokname of a file of the tree", src: block("tokname = status"), refuse: []string{"4: file at the top of the tree"}, differs: "it has no tree"},
		{name: "tokname of a link of the tree", src: block("tokname = rpc.sock"), refuse: []string{"4: file at the top of the tree"}, differs: "it has no tree"},
		{name: "tokname with blanks at the end", src: block(`tokname = "a "`), refuse: []string{"4: blanks at its ends"}, differs: "the name could not be typed"},
		{name: "tokname with NUL", src: block("tokname = a\x00b"), refuse: []string{"4: NUL"}, differs: "it cuts the name there"},
	}
}

// matchProblems compares problems with "line: part; line: part".
func matchProblems(t *testing.T, what string, got []*Problem, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d: %v; want %d: %q", what, len(got), got, len(want), want)
		return
	}
	for i, w := range want {
		line, part, _ := strings.Cut(w, ": ")
		if fmt.Sprint(got[i].Line) != line || !strings.Contains(got[i].Reason, part) || got[i].File != "the.conf" {
			t.Errorf("%s %d: got %q, want line %s and %q", what, i, got[i], line, part)
		}
	}
}

// unjoin takes apart what Parse joined.
func unjoin(t *testing.T, err error) []*Problem {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is a %T, want the joined problems", err)
	}
	var out []*Problem
	for _, e := range joined.Unwrap() {
		p, ok := e.(*Problem) //nolint:errorlint // each joined error is itself a Problem
		if !ok {
			t.Fatalf("joined error is a %T, want *Problem", e)
		}
		out = append(out, p)
	}
	return out
}

func TestParse(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			f, warn, err := Parse("the.conf", r.src)
			matchProblems(t, "warnings", warn, r.warn)
			matchProblems(t, "refusals", unjoin(t, err), r.refuse)
			if (f == nil) != (err != nil) {
				t.Fatalf("file is %v with error %v", f, err)
			}
			if f == nil {
				return
			}
			var got []string
			for _, s := range f.Slots {
				got = append(got, summary(s))
			}
			if diff := cmp.Diff(r.slots, got); diff != "" {
				t.Errorf("slots (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLibraryName(t *testing.T) {
	for library, want := range map[string]string{
		"libpkcs11_sw.so":                 "libpkcs11_sw",
		"/usr/lib/pkcs11/libpkcs11_sw.so": "libpkcs11_sw",
		"libpkcs11_sw.so.0":               "libpkcs11_sw",
		"libother.so":                     "libother",
		"libpkcs11_sw":                    "",
		"":                                "",
	} {
		if got := (Slot{Library: library}).LibraryName(); got != want {
			t.Errorf("library %q: got %q, want %q", library, got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for line, want := range map[string]p11.Version{
		"d = a":                {},
		"tokversion = 0.0":     {},
		"tokversion = 3.12":    {Major: 3, Minor: 12},
		`tokversion = "3.27"`:  {Major: 3, Minor: 27},
		"tokversion = 255.255": {Major: 255, Minor: 255},
		"tokv = 3.11":          {Major: 3, Minor: 11},
	} {
		f, warn, err := Parse("the.conf", block(line))
		if err != nil || len(warn) != 0 {
			t.Errorf("%s: %v, %v", line, warn, err)
			continue
		}
		if got := f.Slots[0].Format; got != want {
			t.Errorf("%s: got %v, want %v", line, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "opencryptoki.conf")
	t.Run("absent", func(t *testing.T) {
		if _, _, err := Load(path); !os.IsNotExist(err) {
			t.Errorf("got %v, want that it does not exist", err)
		}
	})
	t.Run("good", func(t *testing.T) {
		write(t, path, block())
		f, warn, err := Load(path)
		if err != nil || len(warn) != 0 || len(f.Slots) != 1 {
			t.Errorf("got %v, %v, %v", f, warn, err)
		}
	})
	t.Run("names the path", func(t *testing.T) {
		write(t, path, "slot 1 {\n}\n")
		_, _, err := Load(path)
		if want := path + `:1: slot 1 has no "stdll"`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("too long", func(t *testing.T) {
		write(t, path, strings.Repeat("#\n", maxFile/2+1))
		if _, _, err := Load(path); err == nil {
			t.Error("a file over the limit was accepted")
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// printed is a file that parses to the same slots.
func printed(f *File) string {
	var b strings.Builder
	b.WriteString("version opencryptoki-3.1\n")
	for _, s := range f.Slots {
		fmt.Fprintf(&b, "\nslot %d\n{\n", s.ID)
		line := func(key, value string) { fmt.Fprintf(&b, "%s = \"%s\"\n", key, value) }
		line("stdll", s.Library)
		line("description", s.Description)
		line("manufacturer", s.Manufacturer)
		line("hwversion", version(s.Hardware))
		line("firmwareversion", version(s.Firmware))
		if s.HasFormat {
			line("tokversion", version(s.Format))
		}
		if s.ConfName != "" {
			line("confname", s.ConfName)
		}
		if s.TokenName != "" {
			line("tokname", s.TokenName)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	n := 0
	for _, r := range rows() {
		f.Add(r.src)
		n++
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, src string) {
		file, warn, err := Parse("the.conf", src)
		lines := strings.Count(src, "\n") + 1
		for _, p := range warn {
			if p.Line < 1 || p.Line > lines || p.Reason == "" {
				t.Errorf("warning %v for a file of %d lines", p, lines)
			}
		}
		if err != nil {
			return
		}
		// What parses prints back, and parses to the same without a warning.
		again, warn, err := Parse("the.conf", printed(file))
		if err != nil {
			t.Fatalf("printed file is refused: %v\n%s", err, printed(file))
		}
		for _, w := range warn {
			if !strings.Contains(w.Reason, "stdll is empty") {
				t.Errorf("printed file warns: %v\n%s", w, printed(file))
			}
		}
		if len(again.Slots) != len(file.Slots) {
			t.Fatalf("%d slots became %d", len(file.Slots), len(again.Slots))
		}
		for i := range file.Slots {
			a, b := file.Slots[i], again.Slots[i]
			a.Line, b.Line = 0, 0
			if a != b {
				t.Errorf("slot %+v became %+v", a, b)
			}
		}
	})
}
