package grants

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"p11fs/p11"
)

// Names says what the names in a grant stand for.
type Names struct {
	User, Group func(name string) (id uint32, err error)
	Tokens      []string // that there are; nil: any name will do
}

// Parse reads one line. It returns nil for one that is empty or a comment. An error says what
// is wrong, and what to write.
func Parse(line string, names Names) (*Grant, error) {
	words, err := split(line)
	if err != nil || words == nil {
		return nil, err
	}
	g := &Grant{Text: strings.Join(words, " ")}
	seen := map[string]bool{}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%q is not NAME=VALUE: write user=, group= or unit=, token=, label= or id=, functions=, and mechanisms=", w)
		case seen[name]:
			return nil, fmt.Errorf("%s= stands twice: write a line for each", name)
		}
		seen[name] = true
		if err := g.set(name, value, w, names); err != nil {
			return nil, err
		}
	}
	switch {
	case g.UID == nil && g.GID == nil && g.Unit == "":
		return nil, errors.New("nobody is granted anything: write user=NAME, group=NAME or unit=NAME.service")
	case g.Token == "":
		return nil, errors.New("the token is missing: write token=NAME, as p11fs ls shows it")
	case g.Label == nil && g.ID == nil:
		return nil, errors.New("the key is missing: write label=NAME or id=0x01")
	case g.Functions == 0:
		return nil, fmt.Errorf("the functions are missing: write functions= and of %s those that are needed, with commas", strings.Join(FunctionNames(), " "))
	}
	return g, nil
}

// set takes one word of a line.
func (g *Grant) set(name, value, word string, names Names) (err error) {
	switch name {
	case "user":
		g.UID, err = id("user", value, names.User)
	case "group":
		g.GID, err = id("group", value, names.Group)
	case "unit":
		if strings.ContainsAny(value, "/\"'") || !strings.Contains(value, ".") || strings.HasSuffix(value, ".slice") {
			return fmt.Errorf("%q is no unit that runs programs: write its whole name, as unit=nginx.service", value)
		}
		g.Unit = value
	case "token":
		if names.Tokens != nil && !slices.Contains(names.Tokens, value) {
			return fmt.Errorf("there is no token %q here: write one of %s", value, strings.Join(names.Tokens, ", "))
		}
		g.Token = value
	case "label", "id":
		t, err := p11.ParseTemplate(word)
		if err != nil {
			return fmt.Errorf("%q is no %s: write label=\"TEXT\" or id=0x01", value, name)
		}
		if len(t) != 1 || len(t[0].Value) == 0 {
			return fmt.Errorf("the %s is empty, or more than one: write one", name)
		}
		if name == "id" {
			g.ID = t[0].Value
		} else {
			g.Label = t[0].Value
		}
	case "functions":
		for f := range strings.SplitSeq(value, ",") {
			flag, ok := flagOf(f)
			if !ok {
				return fmt.Errorf("there is no function %q: write of %s those that are needed", f, strings.Join(FunctionNames(), " "))
			}
			g.Functions |= flag
		}
	case "mechanisms":
		for m := range strings.SplitSeq(value, ",") {
			t, err := p11.ParseMechanismType(m)
			if err != nil {
				return fmt.Errorf("there is no mechanism %q: write it as p11fs mechanisms does", m)
			}
			g.Mechanisms = append(g.Mechanisms, t)
		}
	case "always-authenticate":
		if value != "granted" {
			return fmt.Errorf("always-authenticate is %q: write always-authenticate=granted, or leave it out", value)
		}
		g.AlwaysAuthenticate = true
	default:
		return fmt.Errorf("a grant has no word %q: write user=, group=, unit=, token=, label=, id=, functions=, mechanisms= or always-authenticate=granted", name)
	}
	return err
}

func flagOf(name string) (p11.Flags, bool) {
	for _, f := range functions() {
		if f.name == name {
			return f.flag, true
		}
	}
	return 0, false
}

// id is a number, or what the name stands for.
func id(what, value string, lookup func(string) (uint32, error)) (*uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	found := uint32(n)
	if err != nil {
		if lookup == nil {
			return nil, fmt.Errorf("%s %q is no number: write one", what, value)
		}
		if found, err = lookup(value); err != nil {
			return nil, fmt.Errorf("there is no %s %q: write another name, or the number", what, value)
		}
	}
	if found == ^uint32(0) {
		return nil, fmt.Errorf("%s %q is nobody's number: write another", what, value)
	}
	return &found, nil
}

// split cuts a line into words at blanks that are not in quotes, which stay. A # that begins
// a word begins a comment. Without words it returns nil.
func split(line string) ([]string, error) {
	var words []string
	var w strings.Builder
	quote := rune(0)
	escaped := false
	for _, r := range line {
		switch {
		case r < ' ' && r != '\t' || r == 0x7f:
			return nil, errors.New("the line has a control character: write the line anew")
		case escaped:
			escaped = false
		case quote == '"' && r == '\\':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#' && w.Len() == 0:
			return words, nil
		case r == ' ' || r == '\t':
			if w.Len() > 0 {
				words = append(words, w.String())
				w.Reset()
			}
			continue
		}
		w.WriteRune(r)
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed: write the second %c", quote)
	}
	if w.Len() > 0 {
		words = append(words, w.String())
	}
	return words, nil
}
