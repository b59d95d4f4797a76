package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A layout is a function's arguments in C, for who calls it with a library of the vendor's:
// in Go, of package hostlib.
type layout struct {
	Params []string // {form, argument or number}
	Shares []string // {what goes in, what comes back in its memory}
	Known  []string // {what comes back, its length, the argument whose length that is}
	Bounds []string // {a number, the argument whose bits it is at most}
}

// plain are the arguments of values of the words that have no line of their own.
func plain() map[string][]string {
	return map[string][]string{
		"number": {"number"}, "u32": {"number"}, "bytes": {"data", "length"}, "absent": {"data", "lengthOrAll"},
		"mechanism": {"mechanism"}, "attributes": {"attributes", "count"}, "output": {"data", "lengthAt"}, "fill": {"data", "length"},
		"state": {"data", "length"}, "numbers": {"data", "lengthAt"}, "info": {"data"}, "wanted": {"attributes", "count"},
	}
}

// Layout makes it; a function that has values of other words has none.
func (f *function) Layout() (*layout, error) {
	l := &layout{}
	if f.C == nil {
		for i, v := range f.Values {
			forms, ok := plain()[v.Word]
			if !ok {
				return nil, fmt.Errorf("%s: the value %s of kind %s wants a line c", f.Name, v.Name, v.Word)
			}
			for _, form := range forms {
				l.Params = append(l.Params, fmt.Sprintf("{%s, %d}", form, i))
			}
			switch v.Word {
			case "fill":
				l.Known = append(l.Known, fmt.Sprintf("{%d, whole, none}", i))
			case "info":
				l.Known = append(l.Known, fmt.Sprintf("{%d, infoSize, none}", i))
			}
		}
		return l, nil
	}
	for _, w := range f.C {
		if err := l.word(f, w); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", f.Name, w, err)
		}
	}
	return l, nil
}

// word adds the argument of a word of a line c.
func (l *layout) word(f *function, w string) error {
	add := func(form string, n any) { l.Params = append(l.Params, fmt.Sprintf("{%s, %v}", form, n)) }
	switch {
	case w == "-":
		add("zeros", 0)
		return nil
	case w == "blank":
		add("blank", 0)
		return nil
	case w[0] == '=' || w[0] == '*':
		n, err := strconv.ParseUint(w[1:], 10, 8)
		add(map[byte]string{'=': "constantAt", '*': "zeros"}[w[0]], n)
		return err
	}
	form := map[byte]string{'#': "lengthAt", '%': "keywordsAt"}[w[0]]
	if form != "" {
		w = w[1:]
	}
	w, length, known := strings.Cut(w, "=")
	w, bound, bounded := strings.Cut(w, "<")
	in, out, shared := strings.Cut(w, ">")
	i, err := f.index(in)
	if err != nil {
		return err
	}
	if bounded {
		j, err := f.index(bound)
		if err != nil {
			return err
		}
		l.Bounds = append(l.Bounds, fmt.Sprintf("{%d, %d}", i, j))
	}
	if shared {
		j, err := f.index(out)
		if err != nil {
			return err
		}
		if one := fmt.Sprintf("{%d, %d}", i, j); !slices.Contains(l.Shares, one) {
			l.Shares = append(l.Shares, one)
		}
		out = strconv.Itoa(j)
	} else {
		out = strconv.Itoa(i)
	}
	if known {
		n, of := length, "none"
		if at, err := f.index(length); err == nil {
			n, of = "0", strconv.Itoa(at)
		} else if _, err := strconv.ParseUint(length, 10, 8); err != nil {
			return err
		}
		l.Known = append(l.Known, fmt.Sprintf("{%s, %s, %s}", out, n, of))
	}
	if form == "" {
		form = "data"
		if f.Values[i].Kind == "Number" || f.Values[i].Kind == "Counter" {
			form = "numberAt"
		}
	}
	add(form, i)
	return nil
}

// index is that of a value.
func (f *function) index(name string) (int, error) {
	i := slices.IndexFunc(f.Values, func(v *value) bool { return v.Name == name })
	if i < 0 {
		return 0, fmt.Errorf("there is no value %s", name)
	}
	return i, nil
}
