package table

import (
	"fmt"
	"path"
	"strings"
)

// A Chapter is where mechanisms are described.
type Chapter struct {
	Number   string // "" if it is none of the standard
	Title    string
	Patterns []string // of short names
}

// chapter reads a line of the chapters.
func (t *Table) chapter(words []string, quoted string) error {
	if len(words) < 2 || quoted == "" {
		return fmt.Errorf("a chapter wants a number, patterns and a title")
	}
	for _, p := range words[1:] {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("chapter %s: %w", words[0], err)
		}
	}
	t.Chapters = append(t.Chapters, Chapter{strings.TrimPrefix(words[0], "-"), quoted, words[1:]})
	return nil
}

// ChapterOf returns the chapter of a mechanism by its short name, false if there is none.
func (t *Table) ChapterOf(short string) (Chapter, bool) {
	for _, c := range t.Chapters {
		for _, p := range c.Patterns {
			if ok, _ := path.Match(p, short); ok { // chapter looked at the pattern
				return c, true
			}
		}
	}
	return Chapter{}, false
}
