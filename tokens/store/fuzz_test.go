package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
)

// seeds are the files of the golden token whose names keep accepts.
func seeds(f *testing.F, keep func(name string) bool) (files [][]byte) {
	f.Helper()
	for _, archive := range []string{"swtok", "swtok-pristine", "ccatok", "tpm"} {
		dir := untar(f, archive)
		err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
			if err == nil && fi.Mode().IsRegular() && keep(fi.Name()) {
				files = append(files, readFile(f, path))
			}
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	return files
}

func isObject(name string) bool {
	_, ok := parseName(name)
	return ok
}

// goldenCipher opens the private objects of the golden token.
func goldenCipher(t testing.TB) objectCipher {
	t.Helper()
	k := swtok(t)
	m := readManifest(t)
	master, err := k.unwrap(readFile(t, untar(t, "swtok"), userKeyFile), pin(t, m.SWTok.UserPIN))
	if err != nil || master == nil {
		t.Fatalf("no master key: %v", err)
	}
	defer master.Close()
	c, err := k.objectCipher(master)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzObjectFile reads any bytes as an object file. What is read is written and
// read again, with the same result; and written once more, with the same bytes.
func FuzzObjectFile(f *testing.F) {
	c := goldenCipher(f)
	for _, b := range seeds(f, isObject) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		private, body, err := parseHeader(b)
		if err != nil {
			return
		}
		// Its own name, so that this check does not end everything.
		n := firstName()
		if flat := body; !private || len(flat) > 0 {
			if private {
				if flat, err = c.open(body); err != nil {
					return
				}
			}
			if n, _, err = unflatten(flat); err != nil {
				return
			}
		}
		attrs, err := decodeObject(n, b, c)
		if err != nil {
			return
		}
		again := roundTrip(t, n, private, attrs, c)
		if private != attrs.Bool(p11.CKA_PRIVATE) {
			t.Error("header and CKA_PRIVATE disagree")
		}
		roundTrip(t, n, private, again, c)
	})
}

func roundTrip(t *testing.T, n name, private bool, attrs p11.Attributes, c objectCipher) p11.Attributes {
	t.Helper()
	b, err := encodeObject(n, private, attrs, c)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	again, err := decodeObject(n, b, c)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if !cmp.Equal(attrs, again) {
		t.Fatalf("%v came back as %v", attrs, again)
	}
	return again
}

// FuzzFlattened reads any bytes as a flattened object. What is stored in the
// fields that have no meaning is lost, nothing else.
func FuzzFlattened(f *testing.F) {
	c := goldenCipher(f)
	for _, b := range seeds(f, isObject) {
		private, body, err := parseHeader(b)
		if err != nil {
			f.Fatal(err)
		}
		if private {
			if body, err = c.open(body); err != nil {
				continue // another token's
			}
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, attrs, err := unflatten(bytes.Clone(b))
		if err != nil {
			return
		}
		out, err := flatten(n, attrs)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if len(out) != len(b) {
			t.Fatalf("%d bytes came back as %d", len(b), len(out))
		}
		if !bytes.Equal(out, meaning(b)) {
			t.Fatalf("%x came back as %x", b, out)
		}
	})
}

// meaning clears the fields of a well-formed flattened object that say nothing.
func meaning(b []byte) []byte {
	b = bytes.Clone(b)
	clear(b[:4])
	for at := flatSize; at < len(b); {
		size := int(b[at+8]) | int(b[at+9])<<8 | int(b[at+10])<<16 | int(b[at+11])<<24
		clear(b[at+4 : at+8])
		at += attributeSize + size
	}
	return b
}

// FuzzTokenData reads any bytes as NVTOK.DAT.
func FuzzTokenData(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == dataFile }) {
		f.Add(b)
	}
	f.Add(make([]byte, dataSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseTokenData(b)
		if err != nil {
			return
		}
		if !bytes.Equal(d[:], b) {
			t.Fatal("it came back changed")
		}
		if d.name() == (name{}) {
			d.setNext(d.next())
		}
		i := d.info(testTime())
		if len(i.Label) > 32 || len(i.Manufacturer) > 32 || len(i.Model) > 16 || len(i.Serial) > 16 || i.MinPINLen > i.MaxPINLen {
			t.Errorf("%+v", i)
		}
		e := d
		e.setFlags(d.flags())
		e.setNext(d.next())
		if e != d {
			t.Error("setting what is there changed something")
		}
	})
}

// FuzzIndexFile reads any bytes as OBJ.IDX.
func FuzzIndexFile(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == indexFile }) {
		f.Add(b)
	}
	f.Add([]byte("00000000\n00000000\n"))
	f.Add([]byte("00000000\n1000"))
	f.Add([]byte("\n"))
	f.Add([]byte("OB02PR0o\n\xb0\xb00\xb0\xb0\xb0\xb0\xb0\n00000000x\n.\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := parseIndex(b)
		out := editIndex(b, nil)
		if x.clean != bytes.Equal(out, b) {
			t.Fatalf("%q is written as %q, clean is %v", b, out, x.clean)
		}
		again := parseIndex(out)
		if !again.clean || !cmp.Equal(x.names, again.names) || !cmp.Equal(x.destroyed, again.destroyed) {
			t.Fatalf("%v came back as %v", x, again)
		}
		for _, n := range x.names {
			if !strings.Contains(string(b), n.String()) {
				t.Fatalf("%s is made up", n)
			}
			if at := findLine(b, n); at < 0 || at > 0 && b[at-1] != '\n' {
				t.Fatalf("the line of %s is not found", n)
			}
		}
		if n := countMarked(b); n != x.marked {
			t.Fatalf("%d lines are marked, or %d", n, x.marked)
		}
		for _, line := range x.unknown {
			if canBeFile([]byte(line)) && !slices.Contains(again.unknown, line) {
				t.Fatalf("the line %q is lost", line)
			}
		}
		marked := editIndex(b, func(name, bool) lineEdit { return markLine })
		if m := parseIndex(marked); len(m.names) > 0 || len(m.destroyed) < len(x.names) || len(m.unknown) != len(again.unknown) {
			t.Fatalf("%q is marked as %q", b, marked)
		}
	})
}

// FuzzKeyFile opens any bytes as a master key file.
func FuzzKeyFile(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == soKeyFile || n == userKeyFile }) {
		f.Add(b, "12345678")
		f.Add(b, "76543210")
	}
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		for _, kind := range []string{"swtok", "ccatok"} {
			k, _ := KindOf(kind)
			key, err := k.unwrap(b, pin(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if key == nil {
				continue
			}
			out, err := k.wrap(key, pin(t, text))
			_ = key.Close()
			if err != nil || len(out) != len(b) {
				t.Fatalf("%d bytes came back as %d (%v)", len(b), len(out), err)
			}
		}
	})
}

// FuzzSegment has somebody write anything anywhere into the segment. The store
// goes on, and no object is lost: they are there again after a restart.
func FuzzSegment(f *testing.F) {
	f.Add(uint32(264), bytes.Repeat([]byte{0xff}, dataSize))             // token data
	f.Add(uint32(264+offNext), []byte("ZZZZZZZZ"))                       // the last name
	f.Add(uint32(264+offFlags), []byte{0, 0, 4, 0})                      // a locked PIN
	f.Add(uint32(496), []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x80})    // counts
	f.Add(uint32(496), make([]byte, 12))                                 // nothing, not loaded
	f.Add(uint32(508), make([]byte, 40))                                 // holes
	f.Add(uint32(509), []byte("10000000"))                               // one object twice
	f.Add(uint32(41469), []byte("00000000"))                             // in both lists
	f.Add(uint32(509), []byte("../../xx"))                               // no name
	f.Add(uint32(500), []byte{2, 8, 0, 0, 1, 1, 0, 0, 0, 'G', 'H', 'O'}) // more than there is room for
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := newShared(t)
		raw := readFile(t, b.seg.Path())
		copy(raw[int(at)%len(raw):], patch)
		writeInPlace(t, b.seg.Path(), raw)
		for range 2 {
			_ = b.s.Refresh(t.Context())
			_, _ = b.s.Create(t.Context(), dataObject("z", "1", false))
			_ = tryLogin(t, b.s, p11.CKU_USER, testUser)
			b.now = b.now.Add(grace)
		}
		if err := b.s.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if err := b.s.Close(); err != nil {
			t.Error(err)
		}
		remove(t, b.seg.Path())
		s := openStore(t, b.cfg)
		if got := contents(t, s); len(got) < 2 || got[0] != "a=1" || got[1] != "b=1" {
			t.Errorf("after a restart there is %q", got)
		}
	})
}
