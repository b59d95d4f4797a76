package format

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/store/storetest"
)

// stock38 and stock312 are directories of the two formats, as stock programs left them.
var (
	stock38  = []string{"swtok", "swtok-pristine", "ccatok", "tpm", "swold"}
	stock312 = []string{"sw312", "sw312-v3.23", "swmig", "swpqc"}
)

// seeds are the files of such directories whose names keep accepts.
func seeds(f *testing.F, archives []string, keep func(name string) bool) (files [][]byte) {
	f.Helper()
	for _, archive := range archives {
		dir := storetest.Untar(f, archive)
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

// is accepts files of these names.
func is(names ...string) func(string) bool {
	return func(n string) bool { return slices.Contains(names, n) }
}

func isObject(name string) bool {
	_, ok := ParseName(name)
	return ok
}

// FuzzObjectFile reads any bytes as an object file of format 3.8. What is read is
// written and read again, with the same result; and written once more, with the same
// bytes.
func FuzzObjectFile(f *testing.F) {
	o := golden(f)
	for _, b := range seeds(f, stock38, isObject) {
		f.Add(b)
	}
	fuzzObjects(f, o, o.order, func(b []byte) (private bool, record []byte, err error) {
		private, record, err = o.splitFile(b)
		if err == nil && private {
			record, err = o.ciphers[0].open(record)
		}
		return private, record, err
	})
}

// FuzzObjectFile312 does so in format 3.12.
func FuzzObjectFile312(f *testing.F) {
	o := golden312(f)
	for _, b := range seeds(f, stock312, isObject) {
		f.Add(b)
	}
	fuzzObjects(f, o, binary.LittleEndian, o.record)
}

// fuzzObjects does so with o; record is the record in a file.
func fuzzObjects(f *testing.F, o Objects, order byteOrder, record func([]byte) (private bool, record []byte, err error)) {
	f.Fuzz(func(t *testing.T, b []byte) {
		private, r, err := record(b)
		if err != nil {
			return
		}
		// Its own name, so that this check does not end everything.
		n, _, err := parseRecord(r, order)
		if err != nil {
			return
		}
		was, attrs, err := o.Open(n, b)
		if err != nil {
			return
		}
		if was != private || private != attrs.Bool(p11.CKA_PRIVATE) {
			t.Error("header and CKA_PRIVATE disagree")
		}
		again := roundTrip(t, n, attrs, o)
		roundTrip(t, n, again, o)
	})
}

func roundTrip(t *testing.T, n Name, attrs p11.Attributes, o Objects) p11.Attributes {
	t.Helper()
	b, err := o.Seal(n, attrs, nil)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	_, again, err := o.Open(n, b)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if !cmp.Equal(attrs, again) {
		t.Fatalf("%v came back as %v", attrs, again)
	}
	return again
}

// FuzzRecord reads any bytes as a record, in both byte orders. What is stored in the
// fields that have no meaning is lost, nothing else.
func FuzzRecord(f *testing.F) {
	o := golden(f)
	for _, b := range seeds(f, stock38, isObject) {
		private, body, err := o.splitFile(b)
		if err != nil {
			f.Fatal(err)
		}
		if private {
			if body, err = o.ciphers[0].open(body); err != nil {
				continue // another token's
			}
		}
		f.Add(body)
	}
	current := golden312(f)
	for _, b := range seeds(f, stock312, isObject) {
		if _, record, err := current.record(b); err == nil {
			f.Add(record)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
			n, attrs, err := parseRecord(bytes.Clone(b), order)
			if err != nil {
				continue
			}
			out, err := printRecord(n, attrs, order)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			if len(out) != len(b) {
				t.Fatalf("%d bytes came back as %d", len(b), len(out))
			}
			if !bytes.Equal(out, meaning(b, order)) {
				t.Fatalf("%x came back as %x", b, out)
			}
		}
	})
}

// meaning clears the fields of a well-formed record that say nothing.
func meaning(b []byte, order byteOrder) []byte {
	b = bytes.Clone(b)
	clear(b[:4])
	clearAttributes(b[recordHeader:], order, 0)
	return b
}

func clearAttributes(b []byte, order byteOrder, depth int) {
	for len(b) > 0 {
		t, end := p11.AttributeType(order.Uint32(b)), attributeHeader+int(order.Uint32(b[8:]))
		clear(b[4:8])
		if value := b[attributeHeader:end]; nested(t, value, order, depth) != nil {
			clearAttributes(value, order, depth+1)
		}
		b = b[end:]
	}
}

// FuzzTokenData reads any bytes as NVTOK.DAT of format 3.8.
func FuzzTokenData(f *testing.F) {
	for _, b := range seeds(f, stock38, is("NVTOK.DAT")) {
		f.Add(b)
	}
	f.Add(make([]byte, dataSize))
	f.Add(readFile(f, storetest.Untar(f, "lite-be"), "NVTOK.DAT"))
	f.Fuzz(func(t *testing.T, b []byte) { checkTokenData(t, little(t, "swtok"), b) })
}

// FuzzTokenData312 reads any bytes as NVTOK.DAT of format 3.12.
func FuzzTokenData312(f *testing.F) {
	for _, b := range seeds(f, stock312, is("NVTOK.DAT")) {
		f.Add(b)
	}
	f.Add(make([]byte, dataSize312))
	f.Fuzz(func(t *testing.T, b []byte) { checkTokenData(t, fast312(), b) })
}

func checkTokenData(t *testing.T, f Format, b []byte) {
	v, err := f.Recognize(b)
	if err != nil {
		return
	}
	d, err := v.ParseFile(b)
	if err != nil {
		t.Fatalf("it was recognized: %v", err)
	}
	if !bytes.Equal(v.PrintFile(d), b) {
		t.Fatal("it came back changed")
	}
	if again, err := v.ParseSegment(v.PrintSegment(d)); err != nil || again != d {
		t.Fatalf("the segment's form came back changed: %v", err)
	}
	i := d.Info(time.Now())
	if len(i.Label) > 32 || len(i.Manufacturer) > 32 || len(i.Model) > 16 || len(i.Serial) > 16 || i.MinPINLen > i.MaxPINLen {
		t.Errorf("%+v", i)
	}
	e := d
	e.SetFlags(d.Flags())
	for _, role := range []p11.UserType{p11.CKU_SO, p11.CKU_USER} {
		if r := v.PIN(d, role); v.PIN(v.WithPIN(d, role, r), role) != r {
			t.Error("another PIN")
		}
	}
	if v.KeepNames(e, d) != d {
		t.Error("setting what is there changed something")
	}
}

// FuzzIndexFile reads any bytes as OBJ.IDX.
func FuzzIndexFile(f *testing.F) {
	for _, b := range seeds(f, slices.Concat(stock38, stock312), is("OBJ.IDX")) {
		f.Add(b)
	}
	f.Add([]byte("00000000\n00000000\n"))
	f.Add([]byte("00000000\n1000"))
	f.Add([]byte("\n"))
	f.Add([]byte("00000000\n0000\xb0000"))
	f.Add([]byte("OB02PR0o\n\xb0\xb00\xb0\xb0\xb0\xb0\xb0\n00000000x\n.\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := ParseIndex(b)
		out := EditIndex(b, nil)
		if x.Clean != bytes.Equal(out, b) {
			t.Fatalf("%q is written as %q, clean is %v", b, out, x.Clean)
		}
		again := ParseIndex(out)
		if !again.Clean || !cmp.Equal(x.Names, again.Names) || !cmp.Equal(x.Destroyed, again.Destroyed) {
			t.Fatalf("%v came back as %v", x, again)
		}
		plain := bytes.Clone(b)
		for i := range plain {
			plain[i] &^= markBit
		}
		for _, n := range x.Names {
			if !strings.Contains(string(plain), n.String()) {
				t.Fatalf("%s is made up", n)
			}
			if at := FindLine(out, n); at < 0 || at > 0 && out[at-1] != '\n' {
				t.Fatalf("the line of %s is not found", n)
			} else if found, err := SearchLine(int64(len(out)), func(b []byte, at int64) error {
				_, err := bytes.NewReader(out).ReadAt(b, at)
				return err
			}, n, numbered{}.Place); err != nil || found >= 0 && found != int64(at) {
				t.Fatalf("the line of %s is at %d, not at %d: %v", n, at, found, err)
			}
		}
		for _, line := range x.Unknown {
			if canBeFile([]byte(line)) && !slices.Contains(again.Unknown, line) {
				t.Fatalf("the line %q is lost", line)
			}
		}
		marked := EditIndex(b, func(Name, bool) LineEdit { return MarkLine })
		if m := ParseIndex(marked); len(m.Names) > 0 || len(m.Destroyed) < len(x.Names) || len(m.Unknown) != len(again.Unknown) {
			t.Fatalf("%q is marked as %q", b, marked)
		}
	})
}

// FuzzKeyFile opens any bytes as a master key file of format 3.8.
func FuzzKeyFile(f *testing.F) {
	for _, b := range seeds(f, stock38, is("MK_SO", "MK_USER")) {
		f.Add(b, "12345678")
		f.Add(b, "76543210")
	}
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		for _, kind := range []string{"swtok", "ccatok"} {
			k := little(t, kind)
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

// FuzzKeyFile312 tries a PIN on any bytes in place of a master key file of format 3.12
// and of its record. What it opens is put under the PIN again, and opens again.
func FuzzKeyFile312(f *testing.F) {
	const good = "12345678"
	v := fast312()
	key, err := v.NewMasterKey()
	if err != nil {
		f.Fatal(err)
	}
	defer key.Close()
	k, err := v.Make(f.Context(), p11.CKU_USER, pin(f, good), key, Kept{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.File, []byte(k.Record), good)
	f.Add(k.File, []byte(k.Record), "wrong")
	for _, archive := range stock312 {
		dir := storetest.Untar(f, archive)
		d, err := v.ParseFile(readFile(f, dir, "NVTOK.DAT"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(readFile(f, dir, "MK_USER"), []byte(v.PIN(d, p11.CKU_USER)), good)
		f.Add(readFile(f, dir, "MK_SO"), []byte(v.PIN(d, p11.CKU_SO)), good)
	}
	f.Fuzz(func(t *testing.T, file, record []byte, text string) {
		record = bytes.Clone(record)
		if len(record) == loginSize+wrapSize { // else many iterations would be all that is tried
			for _, at := range []int{0, loginSize} {
				n := binary.LittleEndian.Uint64(record[at:])
				if n > 100 && n <= maxIterations {
					binary.LittleEndian.PutUint64(record[at:], n%100+1)
				}
			}
		}
		o, err := v.Open(t.Context(), p11.CKU_USER, pin(t, text), Kept{PINRecord(record), file})
		if o.Right && err != nil {
			t.Errorf("%v, and the PIN is right", err)
		}
		defer o.Key.Close()
		if err != nil || o.Key == nil {
			return
		}
		if !o.Right {
			t.Fatal("a wrong PIN opens the master key")
		}
		kept, err := v.Make(t.Context(), p11.CKU_USER, pin(t, text), o.Key, Kept{PINRecord(record), file})
		if err != nil {
			t.Fatal(err)
		}
		again, err := v.Open(t.Context(), p11.CKU_USER, pin(t, text), kept)
		if err != nil || !again.Right || again.Key == nil || again.Mended != nil || !bytes.Equal(kept.File, file) {
			t.Fatalf("put under the PIN again it does not open as before: %v", err)
		}
		_ = again.Key.Close()
	})
}
