package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/tokens/store/storetest"
)

var orders = []byteOrder{binary.LittleEndian, binary.BigEndian}

func other(o byteOrder) byteOrder {
	if o == binary.LittleEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// TestRecognize tells the byte order of the directories of stock programs.
func TestRecognize(t *testing.T) {
	for archive, want := range map[string]byteOrder{
		"swtok": binary.LittleEndian, "swtok-pristine": binary.LittleEndian, "swold": binary.LittleEndian,
		"swtok-be": binary.BigEndian, "lite-be": binary.BigEndian,
	} {
		kind := "swtok"
		if strings.HasPrefix(archive, "lite") {
			kind = "lite"
		}
		f, err := little(t, kind).Recognize(readFile(t, storetest.Untar(t, archive), "NVTOK.DAT"))
		if err != nil || f.(v38).order != want {
			t.Errorf("%s: %v, %v", archive, f, err)
			continue
		}
		if f.Foreign() != (want != nativeOrder()) {
			t.Errorf("%s: foreign is %v", archive, f.Foreign())
		}
	}
}

// TestOrderOf spoils the numbers by which the order is told.
func TestOrderOf(t *testing.T) {
	f := little(t, "swtok")
	good := f.PrintFile(f.newData())
	for name, tt := range map[string]struct {
		minPIN, weakDES uint32
		want            byteOrder
	}{
		"little":                    {4, 1, binary.LittleEndian},
		"big":                       {4 << 24, 1 << 24, binary.BigEndian},
		"another PIN length":        {6, 1, binary.LittleEndian},
		"no weak keys, big":         {4 << 24, 0, binary.BigEndian},
		"one little, the other big": {4, 1 << 24, nil},
		"neither":                   {6, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good)
			binary.LittleEndian.PutUint32(b[offMinPIN:], tt.minPIN)
			binary.LittleEndian.PutUint32(b[offSwitches:], tt.weakDES)
			got, err := f.Recognize(b)
			if tt.want == nil {
				if p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || got.(v38).order != tt.want {
				t.Fatalf("%v, %v", got, err)
			}
			// A directory does not change its order.
			v := v38{kind: f.kind, order: other(tt.want), rand: f.rand}
			if _, err := v.ParseFile(b); p11.RVOf(err) != p11.CKR_TOKEN_NOT_RECOGNIZED {
				t.Errorf("in the other order: %v", err)
			}
		})
	}
	if _, err := f.Recognize(good[:dataSize-1]); !errors.Is(err, ErrShort) {
		t.Errorf("short: %v", err)
	}
}

// convert returns the files of a token directory in the other byte order.
func convert(t *testing.T, kind string, files map[string][]byte, userPIN string) map[string][]byte {
	t.Helper()
	g, err := little(t, kind).Recognize(files["NVTOK.DAT"])
	if err != nil {
		t.Fatal(err)
	}
	from := g.(v38)
	to := v38{kind: from.kind, order: other(from.order), rand: from.rand}
	d, err := from.ParseFile(files["NVTOK.DAT"])
	if err != nil {
		t.Fatal(err)
	}
	opened, err := from.Open(t.Context(), p11.CKU_USER, pin(t, userPIN), Kept{from.PIN(d, p11.CKU_USER), files["MK_USER"]})
	if err != nil || !opened.Right || opened.Key == nil || opened.Why != "" {
		t.Fatalf("the PIN does not open the master key: %+v, %v", opened, err)
	}
	defer opened.Key.Close()
	objects := func(f v38) Objects {
		o, err := f.Objects(opened.Key)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	out := map[string][]byte{}
	for name, b := range files {
		out[name] = b
		n, ok := ParseName(name)
		switch {
		case name == "NVTOK.DAT":
			out[name] = to.PrintFile(d)
		case ok:
			_, attrs, err := objects(from).Open(n, b)
			if err == nil {
				out[name], err = objects(to).Seal(n, attrs, nil)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if cmp.Equal(out[name], b) {
				t.Errorf("%s does not change", name)
			}
			_, again, err := objects(to).Open(n, out[name])
			if err != nil || !cmp.Equal(attrs, again) {
				t.Errorf("%s came back as %v, %v", name, again, err)
			}
		}
	}
	return out
}

// TestConvert converts directories to the other byte order and back, with all bytes
// the same.
func TestConvert(t *testing.T) {
	m := storetest.ReadManifest(t)
	for _, tt := range []struct{ archive, kind, pin string }{
		{"swtok", "swtok", m.SWTok.UserPIN},
		{"swold", "swtok", storetest.UserPIN},
		{"swtok-be", "swtok", storetest.UserPIN},
		{"lite-be", "lite", storetest.UserPIN},
	} {
		t.Run(tt.archive, func(t *testing.T) {
			dir, files, objects := storetest.Untar(t, tt.archive), map[string][]byte{}, 0
			for _, sub := range []string{"", "/TOK_OBJ"} {
				entries, err := os.ReadDir(dir + sub)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					if !e.IsDir() {
						files[e.Name()] = readFile(t, dir+sub, e.Name())
						objects += len(sub) / len("/TOK_OBJ")
					}
				}
			}
			if objects < 5 {
				t.Fatalf("%d files", objects)
			}
			there := convert(t, tt.kind, files, tt.pin)
			if d := cmp.Diff(files, convert(t, tt.kind, there, tt.pin)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestTurnedValues has numbers among the attributes turned, and nothing else.
func TestTurnedValues(t *testing.T) {
	attrs := p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)},
		{Type: p11.CKA_PRIME_BITS, Value: p11.Ulong(uint64(0x0102030405060708))},
		{Type: p11.CKA_KEY_GEN_MECHANISM, Value: p11.Ulong(p11.CKM_AES_KEY_GEN)},
		{Type: p11.CKA_ALLOWED_MECHANISMS, Value: append(p11.Ulong(p11.CKM_AES_GCM), p11.Ulong(p11.CKM_AES_CBC)...)},
		{Type: p11.CKA_HW_FEATURE_TYPE, Value: []byte{1, 2, 3}}, // of no length that it has
		{Type: p11.CKA_VALUE, Value: []byte("12345678")},
		{Type: 0x80001234, Value: []byte("12345678")},
		{Type: p11.CKA_LABEL, Value: []byte{}},
	}
	want := map[byteOrder][]string{
		binary.LittleEndian: {"\x08\x07\x06\x05\x04\x03\x02\x01", "\x80\x10\x00\x00\x00\x00\x00\x00", "\x87\x10\x00\x00\x00\x00\x00\x00\x82\x10\x00\x00\x00\x00\x00\x00"},
		binary.BigEndian:    {"\x01\x02\x03\x04\x05\x06\x07\x08", "\x00\x00\x00\x00\x00\x00\x10\x80", "\x00\x00\x00\x00\x00\x00\x10\x87\x00\x00\x00\x00\x00\x00\x10\x82"},
	}
	for _, o := range orders {
		b, err := printRecord(firstName(), attrs, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range want[o] {
			if !bytes.Contains(b, []byte(v)) {
				t.Errorf("%v: there is no %x in %x", o, v, b)
			}
		}
		if bytes.Count(b, []byte("12345678")) != 2 || !bytes.Contains(b, []byte{1, 2, 3}) {
			t.Errorf("%v: %x", o, b)
		}
		_, again, err := parseRecord(b, o)
		if d := cmp.Diff(attrs, again); d != "" || err != nil {
			t.Errorf("%v: %s (%v)", o, d, err)
		}
	}
	if v, _ := attrs.Get(p11.CKA_PRIME_BITS); !bytes.Equal(v, p11.Ulong(uint64(0x0102030405060708))) {
		t.Error("the caller's attributes have changed")
	}
}
