package format

import (
	"bytes"
	"cmp"
	"sort"
)

// OBJ.IDX, the index, says which objects the token has: each line is the name of
// an object file and a line feed. A file that it does not list is no object, and
// a line whose file is absent is none either.
//
// The line of an object that was destroyed may stay, marked: every byte of the
// name has its highest bit set. So the name cannot be taken for that of an
// object, by stock programs neither, but it still says which file is to go.

// IndexLine is the size of a line: a name and a line feed.
const IndexLine = 9

const markBit = 0x80 // in each byte of a marked name

// Marked is the marked form of a name.
func (n Name) Marked() []byte {
	for i := range n {
		n[i] |= markBit
	}
	return n[:]
}

// parseLine returns the name that a line has, and whether it is marked. A line that is
// marked in part is not: a write was cut off, and the object is still there, or one bit
// of the file has turned, which must not destroy anything.
func parseLine(line []byte) (n Name, marked, ok bool) {
	if len(line) != len(n) {
		return n, false, false
	}
	marked = true
	for i, c := range line {
		n[i] = c &^ markBit
		marked = marked && c&markBit != 0
	}
	return n, marked, n.madeOf(letters)
}

// An Index is what OBJ.IDX says.
type Index struct {
	Names     []Name   // of objects, in the order of their lines, each once
	Destroyed []Name   // whose lines are marked, and that no other line names
	Unknown   []string // lines that are neither, and not empty
	Marked    int      // number of marked lines
	// Clean is set if no line is double, cut off, marked in part or impossible, so that lines may
	// be appended and changed in place.
	Clean bool
}

// ParseIndex reads the contents of OBJ.IDX. Stock drops the last byte of a line
// unseen, so a last line without its line feed is none.
func ParseIndex(b []byte) Index {
	x := Index{Clean: true, Names: make([]Name, 0, len(b)/IndexLine)}
	seen := make(map[Name]bool, len(b)/IndexLine)
	var marked []Name
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		n, isMarked, isName := parseLine(line)
		switch {
		case !whole:
			x.Clean = false
		case isMarked && isName:
			marked = append(marked, n)
		case isName:
			x.Clean = x.Clean && !seen[n] && string(line) == n.String()
			if !seen[n] {
				seen[n] = true
				x.Names = append(x.Names, n)
			}
		default:
			x.Clean = x.Clean && canBeFile(line)
			if len(line) > 0 {
				x.Unknown = append(x.Unknown, string(line))
			}
		}
	}
	x.Marked = len(marked)
	for _, m := range marked {
		if !seen[m] {
			seen[m] = true
			x.Destroyed = append(x.Destroyed, m)
		}
	}
	return x
}

// canBeFile reports whether a file in the directory can have line for its name.
func canBeFile(line []byte) bool {
	return len(line) > 0 && len(line) < 256 && !bytes.ContainsAny(line, "/\x00") && string(line) != "." && string(line) != ".."
}

// A LineEdit is what EditIndex does with a line.
type LineEdit int

// The edits.
const (
	KeepLine LineEdit = iota
	DropLine
	MarkLine
)

// EditIndex returns b, the contents of OBJ.IDX, with lines for the names in add at
// the end. edit says what is done with each line of a name, which may be marked;
// nil keeps them. Lines that ParseIndex does not take for clean are left out: they
// name no file, or name one again.
func EditIndex(b []byte, edit func(n Name, marked bool) LineEdit, add ...Name) []byte {
	out := make([]byte, 0, len(b)+len(add)*IndexLine)
	seen := make(map[Name]bool, len(b)/IndexLine+len(add))
	for _, n := range add {
		seen[n] = true
	}
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		n, isMarked, isName := parseLine(line)
		do := KeepLine
		switch {
		case !whole, isName && !isMarked && seen[n]:
			do = DropLine
		case isName:
			if !isMarked {
				seen[n] = true
				line = n[:]
			}
			if edit != nil {
				do = edit(n, isMarked)
			}
		case !canBeFile(line):
			do = DropLine
		}
		switch do {
		case DropLine:
			continue
		case MarkLine:
			line = n.Marked()
		}
		out = append(append(out, line...), '\n')
	}
	for _, n := range add {
		out = append(append(out, n[:]...), '\n')
	}
	return out
}

// FindLine returns where n's line is in an index, or -1.
func FindLine(b []byte, n Name) int {
	line := append(n[:], '\n')
	if bytes.HasPrefix(b, line) {
		return 0
	}
	at := bytes.Index(b, append([]byte{'\n'}, line...))
	if at < 0 {
		return -1
	}
	return at + 1
}

// SearchLine is FindLine in an index of that many bytes, of which it reads a few lines: those
// of new names are appended, so they are in order unless somebody else has edited them. -1
// says that the line is not where it would be then. place is Format.Place.
func SearchLine(size int64, read func(b []byte, at int64) error, n Name, place func(Name) uint64) (at int64, err error) {
	if size%IndexLine != 0 {
		return -1, nil
	}
	var line [IndexLine]byte
	i, found := sort.Find(int(size/IndexLine), func(i int) int {
		if err != nil {
			return 0
		}
		err = read(line[:], int64(i)*IndexLine)
		o, _, _ := parseLine(line[:len(n)])
		return cmp.Compare(place(n), place(o))
	})
	if err != nil || !found {
		return -1, err
	}
	at = int64(i) * IndexLine
	want := append([]byte{'\n'}, append(n[:], '\n')...)
	if at == 0 {
		want = want[1:]
	}
	got := make([]byte, len(want)) // from the end of the line before
	if err := read(got, at+IndexLine-int64(len(got))); err != nil || !bytes.Equal(got, want) {
		return -1, err
	}
	return at, nil
}
