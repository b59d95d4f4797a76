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

// seeds are the files of the golden token whose names keep accepts.
func seeds(f *testing.F, keep func(name string) bool) (files [][]byte) {
	f.Helper()
	for _, archive := range []string{"swtok", "swtok-pristine", "ccatok", "tpm"} {
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

func isObject(name string) bool {
	_, ok := ParseName(name)
	return ok
}

// FuzzObjectFile reads any bytes as an object file. What is read is written and
// read again, with the same result; and written once more, with the same bytes.
func FuzzObjectFile(f *testing.F) {
	o := golden(f)
	for _, b := range seeds(f, isObject) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		private, record, err := o.splitFile(b)
		if err != nil {
			return
		}
		// Its own name, so that this check does not end everything.
		if private {
			if record, err = o.ciphers[0].open(record); err != nil {
				return
			}
		}
		n, _, err := parseRecord(record, o.order)
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
	for _, b := range seeds(f, isObject) {
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
	for at := recordHeader; at < len(b); {
		size := int(order.Uint32(b[at+8:]))
		clear(b[at+4 : at+8])
		at += attributeHeader + size
	}
	return b
}

// FuzzTokenData reads any bytes as NVTOK.DAT.
func FuzzTokenData(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == "NVTOK.DAT" }) {
		f.Add(b)
	}
	f.Add(make([]byte, dataSize))
	f.Add(readFile(f, storetest.Untar(f, "lite-be"), "NVTOK.DAT"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := little(t, "swtok").Recognize(b)
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
	})
}

// FuzzIndexFile reads any bytes as OBJ.IDX.
func FuzzIndexFile(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == "OBJ.IDX" }) {
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
		for _, n := range x.Names {
			if !strings.Contains(string(b), n.String()) {
				t.Fatalf("%s is made up", n)
			}
			if at := FindLine(b, n); at < 0 || at > 0 && b[at-1] != '\n' {
				t.Fatalf("the line of %s is not found", n)
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

// FuzzKeyFile opens any bytes as a master key file.
func FuzzKeyFile(f *testing.F) {
	for _, b := range seeds(f, func(n string) bool { return n == "MK_SO" || n == "MK_USER" }) {
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
