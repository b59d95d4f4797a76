package store

// The object index, OBJ.IDX, holds one name a line. It says which objects the
// token has; a file in TOK_OBJ that it does not list is no object.

const indexLine = 9 // a name and a line feed

// parseIndex returns the names in the order of their lines, each once. clean
// says that printIndex of them gives b again, and so that a line may be appended
// to b. Stock drops the last byte of a line unseen, so a last line without its
// line feed is none, and stock ignores lines that name no object.
func parseIndex(b []byte) (names []name, clean bool) {
	clean = len(b)%indexLine == 0
	names = make([]name, 0, len(b)/indexLine)
	seen := make(map[name]struct{}, len(b)/indexLine)
	for len(b) > 0 {
		end := 0
		for end < len(b) && b[end] != '\n' {
			end++
		}
		if end == len(b) {
			return names, false
		}
		n, ok := parseName(string(b[:end]))
		_, dup := seen[n]
		if ok && !dup {
			seen[n] = struct{}{}
			names = append(names, n)
		} else {
			clean = false
		}
		b = b[end+1:]
	}
	return names, clean
}

// printIndex is the contents of OBJ.IDX with these names.
func printIndex(names []name) []byte {
	b := make([]byte, 0, len(names)*indexLine)
	for _, n := range names {
		b = append(append(b, n[:]...), '\n')
	}
	return b
}
