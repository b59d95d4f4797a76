package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/goldmark/ast"
)

//go:embed page.html style.css
var layout embed.FS

// contents is the page that lists the others.
const contents = "docs/README.md"

// A group is a heading of the navigation.
type group struct {
	Title string
	Pages []entry
}

type entry struct {
	Name, Title string
}

// site is what is known of the pages before the first is written.
type site struct {
	root    string
	groups  []group
	pages   []*page
	names   map[string]string // the file of the site of each of the source
	manuals []manual
	files   map[string][]byte // what is written
}

// build makes the files of the site.
func build(root string, manuals []manual) (map[string][]byte, error) {
	s := &site{root: root, names: map[string]string{}, manuals: manuals, files: map[string][]byte{}}
	if err := s.collect(); err != nil {
		return nil, err
	}
	style, err := layout.ReadFile("style.css")
	if err != nil {
		return nil, err
	}
	s.files["style.css"] = style
	tmpl, err := template.ParseFS(layout, "page.html")
	if err != nil {
		return nil, err
	}
	write := func(name, title string, headings []heading, body []byte) error {
		var b bytes.Buffer
		err := tmpl.Execute(&b, map[string]any{
			"Name": name, "Title": title, "Groups": s.groups, "Headings": headings,
			"Body": template.HTML(body), // of our own pages, by goldmark and mandoc
		})
		s.files[name] = b.Bytes()
		return err
	}
	for _, p := range s.pages {
		body, err := p.html(func(to string) (string, error) { return s.leads(p, to) })
		if err == nil {
			err = write(s.names[p.source], p.title, sections(p), body)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, m := range s.manuals {
		if err := write(m.name+".html", m.title(), nil, s.linked(m)); err != nil {
			return nil, err
		}
	}
	return s.files, nil
}

// sections are what the navigation shows of the page itself.
func sections(p *page) []heading {
	return slices.DeleteFunc(slices.Clone(p.headings), func(h heading) bool { return h.Level != 2 })
}

// nameOf is the file of the site for a page of the source.
func nameOf(source string) string {
	switch source {
	case "README.md":
		return "index.html"
	case contents:
		return "pages.html"
	}
	name := strings.TrimSuffix(strings.TrimPrefix(source, "docs/"), ".md")
	name = strings.TrimSuffix(name, "/README")
	return strings.ToLower(strings.ReplaceAll(name, "/", "-")) + ".html"
}

// collect reads the pages that contents lists, and makes the navigation of it.
func (s *site) collect() error {
	list, err := parse(s.root, contents)
	if err != nil {
		return err
	}
	s.add(list)
	for _, m := range s.manuals {
		s.names["docs/man/"+m.name] = m.name + ".html"
	}
	listed := map[string]bool{}
	for n := list.doc.FirstChild(); n != nil; n = n.NextSibling() {
		if h, ok := n.(*ast.Heading); ok && h.Level == 2 {
			s.groups = append(s.groups, group{Title: list.words(h)})
			continue
		}
		if len(s.groups) == 0 {
			continue
		}
		for _, l := range linksBelow(list, n) {
			file, _ := list.target(l.to)
			if path.Ext(file) == "" { // a directory
				file = path.Join(file, "README.md")
			}
			if outside(l.to) || listed[file] {
				continue
			}
			listed[file] = true
			title := manual{name: path.Base(file)}.title()
			if path.Ext(file) == ".md" {
				p, err := parse(s.root, file)
				if err != nil {
					return err
				}
				if title = p.title; title == "" {
					return fmt.Errorf("%s has no heading", file)
				}
				s.add(p)
			}
			g := &s.groups[len(s.groups)-1]
			g.Pages = append(g.Pages, entry{s.names[file], title})
		}
	}
	// What only leads to pages that are listed already.
	s.groups = slices.DeleteFunc(s.groups, func(g group) bool { return len(g.Pages) == 0 })
	commands := group{Title: "Commands"}
	for _, m := range s.manuals {
		if !listed["docs/man/"+m.name] {
			commands.Pages = append(commands.Pages, entry{m.name + ".html", m.title()})
		}
	}
	if len(commands.Pages) > 0 {
		s.groups = append(s.groups, commands)
	}
	return nil
}

func (s *site) add(p *page) {
	s.pages = append(s.pages, p)
	s.names[p.source] = nameOf(p.source)
}

// linksBelow are the links in a part of the page.
func linksBelow(p *page, part ast.Node) (found []link) {
	for _, l := range p.links {
		for n := l.node; n != nil; n = n.Parent() {
			if n == part {
				found = append(found, l)
			}
		}
	}
	return found
}

// leads is where a link of a page leads to in the site.
func (s *site) leads(p *page, to string) (string, error) {
	if outside(to) {
		return to, nil
	}
	file, id := p.target(to)
	if st, err := os.Stat(filepath.Join(s.root, file)); err != nil {
		return "", err
	} else if st.IsDir() {
		file = path.Join(file, "README.md")
	}
	name, ok := s.names[file]
	switch {
	case ok && id != "":
		return name + "#" + id, nil
	case ok:
		return name, nil
	case path.Ext(file) != ".svg":
		return "", errors.New("the site has no such page: list it in " + contents)
	}
	b, err := os.ReadFile(filepath.Join(s.root, file))
	name = path.Base(file)
	if old, ok := s.files[name]; ok && !bytes.Equal(old, b) {
		return "", fmt.Errorf("another picture is called %s, too", name)
	}
	s.files[name] = b
	return name, err
}

// linked is a manual page with links to the others of the site, and to no others: mandoc
// makes one of each .Xr, and none in the pages that cobra writes.
func (s *site) linked(m manual) []byte {
	body := regexp.MustCompile(`<a class="Xr"[^>]*>([^<]*)</a>`).ReplaceAll(m.body, []byte("$1"))
	return regexp.MustCompile(`p11fs(-[a-z0-9-]+)?(</b>)?\([1-8]\)`).ReplaceAllFunc(body, func(b []byte) []byte {
		words := strings.ReplaceAll(string(b), "</b>", "")
		name := strings.NewReplacer("(", ".", ")", "").Replace(words)
		if name == m.name || !slices.ContainsFunc(s.manuals, func(o manual) bool { return o.name == name }) {
			return b
		}
		return fmt.Appendf(nil, `<a href="%s.html">%s</a>`, name, b)
	})
}

// check returns an error for each link of the site that leads nowhere, and for what is
// fetched from elsewhere.
func check(files map[string][]byte) (wrong []error) {
	links := regexp.MustCompile(`(href|src)="([^"]*)"`)
	has := func(name, id string) bool { return bytes.Contains(files[name], []byte(` id="`+id+`"`)) }
	for name, b := range files {
		if path.Ext(name) != ".html" {
			continue
		}
		for _, m := range links.FindAllSubmatch(b, -1) {
			attribute, to := string(m[1]), string(m[2])
			if outside(to) && attribute == "href" {
				continue
			}
			file, id, _ := strings.Cut(to, "#")
			if file == "" {
				file = name
			}
			if _, ok := files[file]; !ok {
				wrong = append(wrong, fmt.Errorf("%s: %s=%q, which is not here", name, attribute, to))
			} else if id != "" && !has(file, id) {
				wrong = append(wrong, fmt.Errorf("%s: %s=%q, which has no such place", name, attribute, to))
			}
		}
	}
	return wrong
}
