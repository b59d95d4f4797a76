package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// sources are the files of the source with one of these endings.
func sources(t *testing.T, endings ...string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"build", "bin", ".git", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case !d.IsDir() && slices.Contains(endings, path.Ext(name)):
			rel, err := filepath.Rel(root, name)
			list = append(list, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestLinks follows each link of each page of the source, also those that the site has not,
// as they are read where the source lies.
func TestLinks(t *testing.T) {
	pages := map[string]*page{}
	for _, source := range sources(t, ".md") {
		p, err := parse(root, source)
		if err != nil {
			t.Fatal(err)
		}
		pages[source] = p
	}
	followed := 0
	for source, p := range pages {
		for _, l := range p.links {
			if outside(l.to) {
				continue
			}
			followed++
			file, id := p.target(l.to)
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: [%s](%s): %v", source, l.text, l.to, err)
			} else if id != "" && (pages[file] == nil || !pages[file].has(id)) {
				t.Errorf("%s: [%s](%s): there is no such heading", source, l.text, l.to)
			}
		}
	}
	if followed < 100 {
		t.Errorf("%d links only", followed)
	}
}

// TestMentions: pages that texts name without a link are there, too.
func TestMentions(t *testing.T) {
	name := regexp.MustCompile(`\bdocs/[a-zA-Z0-9/-]+\.[a-z0-9]+\b`)
	for _, source := range sources(t, ".md", ".1", ".5", ".7", ".service", ".socket", ".sh") {
		b, err := os.ReadFile(filepath.Join(root, source))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAll(b, -1) {
			if _, err := os.Stat(filepath.Join(root, string(m))); err != nil {
				t.Errorf("%s names %s, which is not there", source, m)
			}
		}
	}
}

// TestSite builds the site of the source's own pages and manual pages.
func TestSite(t *testing.T) {
	var manuals []manual
	paths, err := filepath.Glob(filepath.Join(root, "docs/man/*.[1-8]"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, p := range paths {
		manuals = append(manuals, manual{filepath.Base(p), []byte(`<h1 id="NAME">NAME</h1>`)})
	}
	files, err := build(root, manuals)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range check(files) {
		t.Error(wrong)
	}
	// Each page is in the navigation of each, and each file of docs is a page.
	index := string(files["index.html"])
	for _, source := range sources(t, ".md") {
		if dir := path.Dir(source); dir != "." && dir != "docs" {
			continue
		}
		if _, ok := files[nameOf(source)]; !ok {
			t.Errorf("%s does not list %s", contents, source)
		} else if !strings.Contains(index, `href="`+nameOf(source)+`"`) {
			t.Errorf("the navigation lacks %s", nameOf(source))
		}
	}
	for name, b := range files {
		if strings.Contains(string(b), "<script") || strings.Contains(string(b), "@import") {
			t.Errorf("%s has a script, or fetches a style", name)
		}
	}
	if page := string(files["login.html"]); !strings.Contains(page, `<a href="login.html" aria-current="page">Why am I not logged in?</a>`) || !strings.Contains(page, `<a href="#sudo-and-su">`) {
		t.Errorf("the navigation of a page does not show where one is:\n%s", page)
	}
}

// TestManuals has mandoc write the source's own manual pages: it warns of nothing in them, and
// they lead to each other.
func TestManuals(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("wants mandoc, which contrib/packages.txt has")
	}
	manuals, err := readManuals(filepath.Join(root, "docs/man"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := build(root, manuals)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range check(files) {
		t.Error(wrong)
	}
	if !strings.Contains(string(files["p11fs.1.html"]), `<a href="p11fs-tree.7.html">p11fs-tree(7)</a>`) {
		t.Error("p11fs(1) does not lead to p11fs-tree(7)")
	}
	for _, m := range manuals {
		out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", filepath.Join(root, "docs/man", m.name)).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", m.name, err, out)
		}
	}
}

// TestCheck: what is wrong is found.
func TestCheck(t *testing.T) {
	files := map[string][]byte{
		"style.css": nil,
		"a.html":    []byte(`<h1 id="top">a</h1><a href="b.html#here">, <a href="https://example.org/"> and <a href="#top">`),
		"b.html":    []byte(`<a id="here"><a href="a.html#gone"><a href="c.html"><a href="#nowhere"><img src="https://example.org/a.png"><link href="style.css">`),
	}
	var got []string
	for _, err := range check(files) {
		got = append(got, err.Error())
	}
	want := []string{
		`b.html: href="a.html#gone", which has no such place`,
		`b.html: href="c.html", which is not here`,
		`b.html: href="#nowhere", which has no such place`,
		`b.html: src="https://example.org/a.png", which is not here`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestDead: a site with a link that leads nowhere is not made, and the error says where it is.
func TestDead(t *testing.T) {
	for name, c := range map[string]struct{ link, want string }{
		"no file":      {"gone.md", "docs/one.md: the link to gone.md: "},
		"no page":      {"other.md", "docs/one.md: the link to other.md: the site has no such page"},
		"no heading":   {"README.md#none", `one.html: href="pages.html#none", which has no such place`},
		"HTML":         {"#one) <name>", `docs/one.md: "<name>" is HTML`},
		"right":        {"README.md#the-pages", "<nil>"},
		"itself":       {"#one", "<nil>"},
		"no such here": {"#two", `one.html: href="one.html#two", which has no such place`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{
				"README.md":      "# p11fs\n",
				"docs/README.md": "# The pages\n\n## To use it\n\n- [one](one.md), [p11fs](../README.md)\n",
				"docs/one.md":    "# One\n\n[it](" + c.link + ")\n",
				"docs/other.md":  "# Other\n",
			} {
				if err := os.MkdirAll(filepath.Join(dir, path.Dir(file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			files, err := build(dir, nil)
			if wrong := check(files); err == nil && len(wrong) > 0 {
				err = wrong[0]
			}
			if got := fmt.Sprint(err); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestAnchor(t *testing.T) {
	seen := map[string]int{}
	for _, c := range [][2]string{
		{"Why am I not logged in?", "why-am-i-not-logged-in"},
		{"tmux, screen, IDE terminals", "tmux-screen-ide-terminals"},
		{"CKR_PIN_LOCKED: `EACCES`", "ckr_pin_locked-eacces"},
		{"Übung – zwei", "übung--zwei"},
		{"Twice", "twice"},
		{"Twice", "twice-1"},
	} {
		if got := anchor(c[0], seen); got != c[1] {
			t.Errorf("%q has the anchor %q, want %q", c[0], got, c[1])
		}
	}
}
