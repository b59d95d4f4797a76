package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// A page is one file of Markdown.
type page struct {
	source   string // below the root, with slashes
	src      []byte
	doc      ast.Node
	title    string
	headings []heading
	links    []link
}

type heading struct {
	Level    int
	ID, Text string
}

// A link leads to to, as it is written. node has the place where the site's goes.
type link struct {
	to   string
	text string
	node ast.Node // *ast.Link or *ast.Image
}

func markdown() goldmark.Markdown {
	return goldmark.New(goldmark.WithExtensions(extension.Table))
}

// parse reads a page of the source.
func parse(root, source string) (*page, error) {
	src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(source)))
	if err != nil {
		return nil, err
	}
	p := &page{source: source, src: src, doc: markdown().Parser().Parse(text.NewReader(src))}
	seen := map[string]int{}
	err = ast.Walk(p.doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			words := p.words(n)
			id := anchor(words, seen)
			n.SetAttributeString("id", []byte(id))
			p.headings = append(p.headings, heading{n.Level, id, words})
			if p.title == "" {
				p.title = words
			}
		case *ast.Link:
			p.links = append(p.links, link{string(n.Destination), p.words(n), n})
		case *ast.Image:
			p.links = append(p.links, link{string(n.Destination), p.words(n), n})
		case *ast.RawHTML:
			return ast.WalkContinue, p.comment(n.Segments)
		case *ast.HTMLBlock:
			return ast.WalkContinue, p.comment(n.Lines())
		}
		return ast.WalkContinue, nil
	})
	return p, err
}

// comment returns an error for HTML that is no comment: some show it, some leave it out, and
// most often it is a <name> that is missing its marks.
func (p *page) comment(html *text.Segments) error {
	if b := html.Value(p.src); !bytes.HasPrefix(b, []byte("<!--")) {
		return fmt.Errorf("%s: %q is HTML: write it as code", p.source, b)
	}
	return nil
}

// words is the text below n, without its marks.
func (p *page) words(n ast.Node) string {
	var b strings.Builder
	// The function returns no error.
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Segment.Value(p.src))
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// anchor is the name that GitHub and others give a heading, so that one link serves here and
// there. seen counts those of the page.
func anchor(words string, seen map[string]int) string {
	id := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			return unicode.ToLower(r)
		}
		return -1
	}, words)
	n := seen[id]
	seen[id]++
	if n > 0 {
		id = fmt.Sprintf("%s-%d", id, n)
	}
	return id
}

// has says whether the page has an anchor.
func (p *page) has(id string) bool {
	for _, h := range p.headings {
		if h.ID == id {
			return true
		}
	}
	return false
}

// outside says whether a link leads out of the source.
func outside(to string) bool {
	return strings.HasPrefix(to, "https://") || strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "mailto:")
}

// target is the file below the root that a link of the page leads to, and the anchor in it.
func (p *page) target(to string) (file, id string) {
	file, id, _ = strings.Cut(to, "#")
	if file == "" {
		return p.source, id
	}
	return path.Join(path.Dir(p.source), file), id
}

// html is the page with its links as leads has them.
func (p *page) html(leads func(to string) (string, error)) ([]byte, error) {
	for _, l := range p.links {
		to, err := leads(l.to)
		if err != nil {
			return nil, fmt.Errorf("%s: the link to %s: %w", p.source, l.to, err)
		}
		switch n := l.node.(type) {
		case *ast.Link:
			n.Destination = []byte(to)
		case *ast.Image:
			n.Destination = []byte(to)
		}
	}
	var b bytes.Buffer
	err := markdown().Renderer().Render(&b, p.src, p.doc)
	return b.Bytes(), err
}
