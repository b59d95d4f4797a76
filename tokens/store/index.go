package store

import "bytes"

// OBJ.IDX, the index, says which objects the token has: each line is the name of
// an object file and a line feed. A file that it does not list is no object, and
// a line whose file is absent is none either.
//
// The line of an object that was destroyed may stay, marked: every byte of the
// name has its highest bit set. So the name cannot be taken for that of an
// object, by stock programs neither, but it still says which file is to go.

const (
	indexLine = 9    // a name and a line feed
	markBit   = 0x80 // in each byte of a marked name
)

// marked is the marked form of a name.
func (n name) marked() []byte {
	for i := range n {
		n[i] |= markBit
	}
	return n[:]
}

// parseMarked returns the name whose marked form is line. A line that is marked
// in part, by a write that was cut off, counts as marked.
func parseMarked(line []byte) (n name, ok bool) {
	if len(line) != len(n) {
		return n, false
	}
	bits := byte(0)
	for i, c := range line {
		n[i] = c &^ markBit
		bits |= c & markBit
	}
	return n, bits != 0 && n.madeOf(letters)
}

// An index is what OBJ.IDX says.
type index struct {
	names     []name   // of objects, in the order of their lines, each once
	destroyed []name   // whose lines are marked, and that no other line names
	unknown   []string // lines that are neither, and not empty
	marked    int      // number of marked lines
	// clean says that no line is double, cut off or impossible, so that lines may
	// be appended and changed in place.
	clean bool
}

// parseIndex reads the contents of OBJ.IDX. Stock drops the last byte of a line
// unseen, so a last line without its line feed is none.
func parseIndex(b []byte) index {
	x := index{clean: true, names: make([]name, 0, len(b)/indexLine)}
	seen := make(map[name]bool, len(b)/indexLine)
	var marked []name
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		n, isName := parseName(string(line))
		m, isMarked := parseMarked(line)
		switch {
		case !whole:
			x.clean = false
		case isName && !seen[n]:
			seen[n] = true
			x.names = append(x.names, n)
		case isName:
			x.clean = false
		case isMarked:
			marked = append(marked, m)
		default:
			x.clean = x.clean && canBeFile(line)
			if len(line) > 0 {
				x.unknown = append(x.unknown, string(line))
			}
		}
	}
	x.marked = len(marked)
	for _, m := range marked {
		if !seen[m] {
			seen[m] = true
			x.destroyed = append(x.destroyed, m)
		}
	}
	return x
}

// canBeFile says whether a file in the directory can have line for its name.
func canBeFile(line []byte) bool {
	return len(line) > 0 && len(line) < 256 && !bytes.ContainsAny(line, "/\x00") && string(line) != "." && string(line) != ".."
}

// What editIndex does with a line.
type lineEdit int

const (
	keepLine lineEdit = iota
	dropLine
	markLine
)

// editIndex returns b, the contents of OBJ.IDX, with lines for the names in add at
// the end. edit says what is done with each line of a name, which may be marked;
// nil keeps them. Lines that parseIndex does not take for clean are left out: they
// name no file, or name one again.
func editIndex(b []byte, edit func(n name, marked bool) lineEdit, add ...name) []byte {
	out := make([]byte, 0, len(b)+len(add)*indexLine)
	seen := make(map[name]bool, len(b)/indexLine+len(add))
	for _, n := range add {
		seen[n] = true
	}
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		n, isName := parseName(string(line))
		m, isMarked := parseMarked(line)
		do := keepLine
		switch {
		case !whole, isName && seen[n]:
			do = dropLine
		case isName:
			seen[n] = true
			if edit != nil {
				do = edit(n, false)
			}
		case isMarked:
			n = m
			if edit != nil {
				do = edit(n, true)
			}
		case !canBeFile(line):
			do = dropLine
		}
		switch do {
		case dropLine:
			continue
		case markLine:
			line = n.marked()
		}
		out = append(append(out, line...), '\n')
	}
	for _, n := range add {
		out = append(append(out, n[:]...), '\n')
	}
	return out
}
