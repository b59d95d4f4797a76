package fs

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/tokens/tokentest/hooks"
)

func TestEscape(t *testing.T) {
	for label, want := range map[string]string{
		"web":            "web",
		"web server":     "web server",
		"schlüssel":      "schlüssel",
		"a/b":            "a%2Fb",
		"100%":           "100%25",
		"a~b":            "a%7Eb",
		".hidden":        "%2Ehidden",
		"not.hidden":     "not.hidden",
		"..":             "%2E.",
		"nul\x00":        "nul%00",
		"line\nend":      "line%0Aend",
		"esc\x1b[31m":    "esc%1B[31m",
		"bad\xff\xfeutf": "bad%FF%FEutf",
		"c1\u0085":       "c1%C2%85",
		"rtl\u202e":      "rtl%E2%80%AE",
		"-rf":            "-rf",
	} {
		if got := escape(label); got != want {
			t.Errorf("escape(%q) is %q, want %q", label, got, want)
		}
		if got, ok := unescape(want); !ok || got != label {
			t.Errorf("unescape(%q) is %q, %v, want %q", want, got, ok, label)
		}
	}
	for _, name := range []string{"", "%", "%2", "%zz", "%41", "%2f", "a~b", ".x", "a/b", "100%"} {
		if got, ok := unescape(name); ok {
			t.Errorf("unescape(%q) is %q, want none: escape does not give it", name, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"web", "a/b", "%41", ".", "..", "\xff", "\u202e~", strings.Repeat("é", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		name := escape(label)
		if strings.ContainsAny(name, "/\x00\n\x1b~") || strings.HasPrefix(name, ".") || !utf8.ValidString(name) {
			t.Errorf("escape(%q) is %q", label, name)
		}
		if label != "" {
			if got, ok := unescape(name); !ok || got != label {
				t.Errorf("%q becomes %q and then %q", label, name, got)
			}
		}
		if got, ok := unescape(label); ok && escape(got) != label {
			t.Errorf("%q is the name of %q, whose name is %q", label, got, escape(got))
		}
		i := engine.ObjectInfo{Name: "OB000001", Label: label, Class: p11.CKO_SECRET_KEY}
		plain := plainNameOf(i)
		full := plain.full(refOf(i))
		for _, n := range []string{full, escape(label) + ".sec"} {
			if base, suf, ok := splitName(n); ok && base+suf != n {
				t.Errorf("splitName(%q) is %q and %q", n, base, suf)
			}
		}
		if n := len(full); n > maxName {
			t.Errorf("a name of %d bytes", n)
		}
		if !plain.cut && len(plain.String()) > maxName {
			t.Errorf("a plain name of %d bytes", len(plain.String()))
		} else if plain.cut && !utf8.ValidString(plain.base) {
			t.Errorf("%q is cut within a character", plain.base)
		}
	})
}

// labels makes session objects with these labels and ids, and returns the
// names.
func (p person) make(lines ...string) []string {
	p.w.t.Helper()
	var names []string
	for _, line := range lines {
		p.must(p.echo("generic:128 "+line, "tok/generate"))
		name, errno := p.cat("tok/generate")
		p.must(errno)
		names = append(names, strings.TrimSuffix(name, "\n"))
	}
	return names
}

func TestNames(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p, other := w.person(1000, 100), w.person(1000, 200)
	p.must(p.echo(userPIN, "tok/login"))
	names := p.make("label=same", "label=same id=0x01", "label=same private=false id=0x02", "id=0xabcd", "id=0xabcd", "label=abcd", "label=\"a/b c\"", "",
		`label="`+strings.Repeat("é", 150)+`"`, "label=tilde~x", "label=passing token=false", "label=passing token=false id=0x03")
	list := p.ls("tok/objects")
	if len(list) != len(names) {
		t.Errorf("%d names for %d objects: %q", len(list), len(names), list)
	}
	seen := make(map[string]bool)
	for i, name := range list {
		if seen[name] {
			t.Errorf("%q stands twice", name)
		}
		seen[name] = true
		if _, _, errno := p.walk("tok/objects/" + name); errno != 0 {
			t.Errorf("%q is listed and gives %v", name, errno)
		}
		if len(name) > maxName {
			t.Errorf("%q has %d bytes", name, len(name))
		}
		_ = i
	}
	uid := func(i int) string {
		_, rest, _ := strings.Cut(names[i], "~")
		return strings.TrimSuffix(rest, ".sec")
	}
	for i, want := range map[int]string{
		0: "same.sec", 1: "same~" + uid(1) + ".sec", 2: "same~" + uid(2) + ".sec",
		3: "abcd.sec", 4: "abcd~" + uid(4) + ".sec", 5: "abcd.sec",
		6: "a%2Fb c.sec", 9: "tilde%7Ex.sec", 10: "passing.sec", 11: "passing~" + uid(11) + ".sec",
	} {
		if names[i] != want {
			t.Errorf("object %d was named %q, want %q", i, names[i], want)
		}
	}
	// A label wins over an identifier, whichever was first.
	p.reads("tok/objects/abcd.sec/attr/label", "abcd\n")
	if n := len(slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !strings.HasPrefix(s, "abcd~") })); n != 2 {
		t.Errorf("%d objects give way to the label, want 2: %q", n, list)
	}
	t.Run("a hidden object gives its name away", func(t *testing.T) {
		if got := other.ls("tok/objects"); !slices.Equal(got, []string{"same.sec"}) {
			t.Errorf("the others see %q", got)
		}
		other.reads("tok/objects/same.sec/attr/private", "false\n")
		p.reads("tok/objects/same.sec/attr/private", "true\n")
		p.reads("tok/objects/"+names[2]+"/attr/private", "false\n")
	})
	t.Run("the full name always finds", func(t *testing.T) {
		p.must(p.rmdir("tok/objects/same.sec"))
		p.reads("tok/objects/same.sec/attr/label", "same\n")
		p.reads("tok/objects/"+names[1]+"/attr/label", "same\n")
		_, _, errno := p.walk("tok/objects/other~" + uid(1) + ".sec")
		wantErrno(t, "another label", errno, syscall.ENOENT)
		_, _, errno = p.walk("tok/objects/same~" + uid(1) + ".key")
		wantErrno(t, "another class", errno, syscall.ENOENT)
	})
	t.Run("by-uid and by-id", func(t *testing.T) {
		for _, dir := range []string{"tok/by-uid", "tok/by-id"} {
			for _, name := range p.ls(dir) {
				if _, _, errno := p.walk(dir + "/" + name); errno != 0 {
					t.Errorf("%s/%s: %v", dir, name, errno)
				}
			}
		}
		if n, m := len(p.ls("tok/by-uid")), len(p.ls("tok/objects")); n != m-2 { // the session objects
			t.Errorf("%d stored names, %d objects", n, m)
		}
		if got := p.ls("tok/by-id"); len(got) != 5 || got[2] != "abcd.sec" || !strings.HasPrefix(got[3], "abcd~") {
			t.Errorf("by-id lists %q", got)
		}
	})
	t.Run("mv", func(t *testing.T) {
		p.must(p.rename("tok/objects/tilde%7Ex.sec", "tok/objects/new name.sec"))
		p.reads("tok/objects/new name.sec/attr/label", "new name\n")
		for to, want := range map[string]syscall.Errno{
			"new name.key": syscall.EPERM, "new name": syscall.EPERM, ".sec": syscall.EPERM, "a~b.sec": syscall.EPERM,
			"%41.sec": syscall.EPERM, "abcd.sec": syscall.EEXIST, "new name.sec": 0,
		} {
			wantErrno(t, "to "+to, p.rename("tok/objects/new name.sec", "tok/objects/"+to), want)
		}
		wantErrno(t, "elsewhere", p.rename("tok/objects/new name.sec", "tok/data/x"), syscall.EXDEV)
	})
}

// TestNamesAgree looks up every name of listings of objects that were made to
// meet in one name.
func TestNamesAgree(t *testing.T) {
	w := newWorld(t, hooks.Options{})
	p := w.person(1000, 100)
	p.must(p.echo(userPIN, "tok/login"))
	labels := []string{"", "01", "a", "%41", "a~b", "."}
	ids := []string{"", "id=01 ", "id=0xaa "}
	for _, private := range []bool{false, true} { // a private one is not refused for a public one
		for _, label := range labels {
			for _, id := range ids {
				p.make(fmt.Sprintf(`label="%s" %sprivate=%v token=%v`, label, id, private, label != "a"))
			}
		}
	}
	for _, who := range []person{p, w.person(1, 300)} {
		inodes := make(map[uint64]string)
		for _, name := range who.ls("tok/objects") {
			_, out, errno := who.walk("tok/objects/" + name)
			if errno != 0 {
				t.Errorf("%q: %v", name, errno)
			}
			if other, twice := inodes[out.Ino]; twice {
				t.Errorf("%q and %q are one object", name, other)
			}
			inodes[out.Ino] = name
		}
	}
}

// TestStoredNames has objects whose stored names are any bytes, of any length, and
// look like what the tree makes of others.
func TestStoredNames(t *testing.T) {
	token := hooks.New("tok", hooks.Options{})
	long := strings.Repeat("long/", 100)
	stored := []string{"s1", "s1a", "h0123456789abcdef", "S0000001", "h", "a/b.c~%41", "\xff\n", ".", "%73", long, long + "1", long + "2", strings.Repeat("é", 11)}
	made := make(map[string]bool)
	for i, name := range stored {
		for _, shared := range []bool{false, true} {
			attrs := ofClass(p11.CKO_DATA)
			attrs.SetBool(p11.CKA_TOKEN, true)
			attrs.Set(p11.CKA_VALUE, fmt.Appendf(nil, "%d %v", i, shared))
			if shared {
				attrs.Set(p11.CKA_LABEL, []byte("shared"))
				name += "+"
			}
			made[string(attrs[2].Value)] = true
			token.Store.Put(name, attrs)
		}
	}
	w := newWorldOf(t, token)
	p := w.person(1000, 100)
	for _, where := range []struct{ dir, value string }{{"tok/objects", "/value"}, {"tok/by-uid", "/value"}, {"tok/data", ""}} {
		t.Run(where.dir, func(t *testing.T) {
			values, inodes := make(map[string]string), make(map[uint64]string)
			for _, name := range p.ls(where.dir) {
				if len(name) > maxName {
					t.Errorf("%q has %d bytes", name, len(name))
				}
				path := where.dir + "/" + name
				at, out, errno := p.walk(path)
				p.must(errno)
				if at.link != nil {
					target, errno := at.Readlink(p.ctx())
					p.must(errno)
					path = "tok/" + strings.TrimPrefix(string(target), "../")
				}
				if other, twice := inodes[out.Ino]; twice {
					t.Errorf("%q and %q have one inode number", name, other)
				}
				inodes[out.Ino] = name
				value, errno := p.cat(path + where.value)
				if errno != 0 || !made[value] || values[value] != "" {
					t.Errorf("%q is the object %q, as is %q: %v", name, value, values[value], errno)
				}
				values[value] = name
			}
			if len(values) != 2*len(stored) {
				t.Errorf("%d objects are found of %d", len(values), 2*len(stored))
			}
		})
	}
	_, _, errno := p.walk("tok/objects/shared~s1.dat") // the handle of no session object
	wantErrno(t, "a handle", errno, syscall.ENOENT)
}
