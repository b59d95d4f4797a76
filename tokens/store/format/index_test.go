package format

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// TestSearchLine finds the line of a new object in a long index by a few reads, and no line
// where the index is another than ours.
func TestSearchLine(t *testing.T) {
	const lines = 50_000
	var names, between []Name
	for n := name("00000000"); len(names) < lines; n = n.next().next() {
		names, between = append(names, n), append(between, n.next())
	}
	index := EditIndex(nil, nil, names...)
	search := func(index []byte, n Name) (at int64, reads int) {
		t.Helper()
		at, err := SearchLine(int64(len(index)), func(b []byte, at int64) error {
			reads++
			_, err := bytes.NewReader(index).ReadAt(b, at)
			return err
		}, n, numbered{}.Place)
		if err != nil {
			t.Fatal(err)
		}
		return at, reads
	}
	for _, i := range []int{0, 1, 2, lines / 2, lines - 2, lines - 1} {
		if at, reads := search(index, names[i]); at != int64(FindLine(index, names[i])) || reads > 20 {
			t.Errorf("line %d is at %d, after %d reads", i, at, reads)
		}
	}
	for what, n := range map[string]Name{"in between": between[4], "behind": between[lines-1]} {
		if at, _ := search(index, n); at >= 0 {
			t.Errorf("a name %s is at %d", what, at)
		}
	}
	some := slices.Clone(names[:5])
	n := some[2]
	some[0], some[2] = some[2], some[0]
	marked := bytes.Replace(EditIndex(nil, nil, names[:5]...), n[:], n.Marked(), 1)
	long := slices.Concat([]byte("x\n1234567"), EditIndex(nil, nil, names[1:5]...))
	for what, index := range map[string][]byte{"none": nil, "out of order": EditIndex(nil, nil, some...), "marked": marked, "cut off": index[:30], "not alone in its line": long} {
		name := n
		if what == "not alone in its line" {
			name = names[1]
		}
		if at, _ := search(index, name); at >= 0 {
			t.Errorf("%s: it is at %d", what, at)
		}
	}
	if _, err := SearchLine(90, func([]byte, int64) error { return io.ErrUnexpectedEOF }, n, numbered{}.Place); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an index that cannot be read: %v", err)
	}
}
