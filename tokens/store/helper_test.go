package store

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
	"p11fs/tokens/store/format"
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// nth is the name of the n-th object that a token is given.
func nth(n int) (name format.Name) {
	for i := range name {
		name[i] = digits[n%36]
		n /= 36
	}
	return name
}

// parseName is the name that text spells.
func parseName(t testing.TB, text string) format.Name {
	t.Helper()
	n, ok := format.ParseName(text)
	if !ok {
		t.Fatalf("%q is no name", text)
	}
	return n
}

// v38 is the format of a kind of token.
func v38(t testing.TB, kind string) format.Format {
	t.Helper()
	k, ok := format.KindOf(kind)
	if !ok {
		t.Fatalf("there is no %s", kind)
	}
	return format.V38(k, rand.Reader)
}

// testFormat is the format of the directories that most tests make.
func testFormat(t testing.TB) format.Format {
	t.Helper()
	if os.Getenv(formatEnv) != "" {
		return v312(t)
	}
	return v38(t, "swtok")
}

// onDisk is the token's data in an NVTOK.DAT.
func onDisk(t testing.TB, b []byte) format.TokenData {
	t.Helper()
	d, err := testFormat(t).ParseFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// objectFile is the file of a public object.
func objectFile(t testing.TB, n format.Name, attrs p11.Attributes) []byte {
	t.Helper()
	codec, err := testFormat(t).Objects(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := codec.Seal(n, attrs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func info(t testing.TB, s *Store) p11.TokenInfo {
	t.Helper()
	i, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// dataOf is the token's data in memory.
func dataOf(s *Store) format.TokenData {
	_, d := s.snapshot()
	return d
}

// parsed is the token's data in an NVTOK.DAT of the machine's byte order, or in a
// segment.
func parsed(t testing.TB, b []byte) format.TokenData {
	t.Helper()
	d, err := v38(t, "swtok").ParseSegment(b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// rawData is the token's data in such a form, to be changed as a stock process
// changes it.
type rawData []byte

const (
	dataSize    = 232
	offLabel    = 0
	offFlags    = 96
	offUserHash = 160
	offNext     = 208
)

func (d rawData) next() format.Name { return format.Name(d[offNext : offNext+8]) }

func (d rawData) setNext(n format.Name) { copy(d[offNext:], n[:]) }

func (d rawData) setLabel(text string) {
	clear(d[offLabel:32])
	copy(d[offLabel:], text)
}

func (d rawData) flags() p11.Flags { return p11.Flags(binary.NativeEndian.Uint32(d[offFlags:])) }

func (d rawData) flag(set p11.Flags) {
	binary.NativeEndian.PutUint32(d[offFlags:], uint32(d.flags()|set))
}

// place is the place of a name in the order in which they are given out.
func place(n format.Name) (v int) {
	for i := len(n) - 1; i >= 0; i-- {
		v = v*36 + strings.IndexByte(digits, n[i])
	}
	return v
}

// A damage is an object file that gives no object.
type damage struct {
	name format.Name
	err  error
}

// damaged are the object files that give no object, in the order of their names.
func damaged(s *Store) (all []damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, err := range s.bad {
		all = append(all, damage{n, err})
	}
	slices.SortFunc(all, func(a, b damage) int { return cmp.Compare(s.format.Place(a.name), s.format.Place(b.name)) })
	return all
}
