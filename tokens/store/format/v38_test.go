package format

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/storetest"
)

func TestMasterKeys(t *testing.T) {
	k := little(t, "lite")
	key, err := k.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	key.Use(func(b []byte) {
		for _, c := range b {
			n := 0
			for ; c > 0; c &= c - 1 {
				n++
			}
			if n%2 == 0 {
				t.Error("even parity")
			}
		}
	})
	k = little(t, "ccatok")
	cca, err := k.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	defer cca.Close()
	cca.Use(func(b []byte) {
		if len(b) != 64 || !bytes.Equal(b[24:], make([]byte, 40)) || bytes.Equal(b[:24], make([]byte, 24)) {
			t.Error("not 24 random bytes and 40 zeros")
		}
	})
	if _, err := (v38{kind: k.kind, order: k.order, rand: bytes.NewReader(nil)}).NewMasterKey(); err == nil {
		t.Error("a key without randomness")
	}
	if k.KeyFileSize() != 88 {
		t.Errorf("%d bytes", k.KeyFileSize())
	}
	if _, ok := KindOf("tpm"); ok {
		t.Error("tpm has no master key file")
	}
}

func TestNames(t *testing.T) {
	n := firstName()
	for i := range uint64(2000) {
		if n.number() != i {
			t.Fatalf("%s is number %d, not %d", n, n.number(), i)
		}
		if again, ok := ParseName(n.String()); !ok || again != n {
			t.Fatalf("%s does not parse", n)
		}
		n = n.next()
	}
	for from, to := range map[string]string{
		"90000000": "A0000000", "Z0000000": "01000000", "ZZ000000": "00100000",
		"ZZZZZZZY": "0000000Z", "ZZZZZZZZ": "10000000",
	} {
		n, ok := ParseName(from)
		if !ok || n.next().String() != to {
			t.Errorf("after %s comes %s, want %s", from, n.next(), to)
		}
	}
	for _, bad := range []string{"", "0000000", "000000000", "0000/000", "0000000-", "........", "0000000\n"} {
		if _, ok := ParseName(bad); ok {
			t.Errorf("%q parses", bad)
		}
	}
}

// TestTrailingBytes reads a file that is longer than its header says.
func TestTrailingBytes(t *testing.T) {
	n := firstName()
	o := &objects38{order: binary.LittleEndian}
	b, err := o.Seal(n, dataObject("a", "b", false), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open(n, append(b, "more"...)); err != nil {
		t.Error(err)
	}
	binary.LittleEndian.PutUint32(b, 4)
	if _, _, err := o.Open(n, b); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestMarkedLines(t *testing.T) {
	for text, want := range map[string]Index{
		"\xc1\xb0\xb0\xb0\xb0\xb0\xb0\xb0\n": {Destroyed: []Name{name("A0000000")}, Marked: 1, Clean: true},
		// Marked in part.
		"\xc1\xb0\xb00\xb0\xb0\xb0\xb0\n": {Names: []Name{name("A0000000")}},
		"A000\xb0000\nA0000000\n":         {Names: []Name{name("A0000000")}},
		"A0000000\n\xc10000000\n":         {Names: []Name{name("A0000000")}},
		// Another object has the name by now.
		"\xc1\xb0\xb0\xb0\xb0\xb0\xb0\xb0\nA0000000\n": {Names: []Name{name("A0000000")}, Marked: 1, Clean: true},
		"\xff\xb0\xb0\xb0\xb0\xb0\xb0\xb0\n":           {Unknown: []string{"\xff\xb0\xb0\xb0\xb0\xb0\xb0\xb0"}, Clean: true},
		"\xb0\xb0\n":                                   {Unknown: []string{"\xb0\xb0"}, Clean: true},
	} {
		x := ParseIndex([]byte(text))
		if len(x.Names) == 0 {
			x.Names = nil
		}
		if d := cmp.Diff(want, x); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
	line := name("A0000000")
	if m := line.Marked(); bytes.ContainsAny(m, letters) || string(line[:]) != "A0000000" {
		t.Errorf("%q is marked as %q", line, m)
	}
}

// TestGoldenKeyFiles wraps the keys as stock did, byte for byte.
func TestGoldenKeyFiles(t *testing.T) {
	m := storetest.ReadManifest(t)
	for _, tt := range []struct{ kind, archive, file, pin string }{
		{"swtok", "swtok", "MK_SO", m.SWTok.SOPIN},
		{"swtok", "swtok", "MK_USER", m.SWTok.UserPIN},
		{"swtok", "swtok-pristine", "MK_SO", m.Pristine.SOPIN},
		{"ccatok", "ccatok", "MK_USER", m.CCATok.UserPIN},
	} {
		t.Run(tt.archive+" "+tt.file, func(t *testing.T) {
			k := little(t, tt.kind)
			stock := readFile(t, storetest.Untar(t, tt.archive), tt.file)
			key, err := k.unwrap(stock, pin(t, tt.pin))
			if err != nil || key == nil {
				t.Fatalf("not opened: %v", err)
			}
			defer key.Close()
			b, err := k.wrap(key, pin(t, tt.pin))
			if err != nil || !bytes.Equal(b, stock) {
				t.Errorf("wrapped as %x, stock %x (%v)", b, stock, err)
			}
			if wrong, err := k.unwrap(stock, pin(t, "wrong")); wrong != nil || err != nil {
				t.Error("a wrong PIN opens it")
			}
		})
	}
}

// TestGoldenTPM reads a private object of the tpm token, which has AES in place
// of 3DES.
func TestGoldenTPM(t *testing.T) {
	m := storetest.ReadManifest(t)
	master, err := secret.New([]byte("any"))
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	o, err := v38{kind: TPM(), order: binary.LittleEndian}.Objects(master)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := v38{kind: TPM(), order: binary.LittleEndian}.Objects(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := storetest.Untar(t, "tpm")
	for text, g := range m.TPM.Objects {
		n := name(text)
		stock := readFile(t, dir, "TOK_OBJ", text)
		if private, a, err := locked.Open(n, stock); !private || a != nil || err != nil {
			t.Errorf("without a login: private %v, %v, %v", private, a, err)
		}
		_, a, err := o.Open(n, stock)
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := a.Get(p11.CKA_VALUE); a.Label() != g.Label || !bytes.Equal(v, g.Value) {
			t.Errorf("%q = %q", a.Label(), v)
		}
		if b, err := o.Seal(n, a, nil); err != nil || !bytes.Equal(b, stock) {
			t.Errorf("written as %x, stock %x (%v)", b, stock, err)
		}
	}
}

// Programs tell tokens apart by their serial numbers.
func TestEachTokenHasItsSerialNumber(t *testing.T) {
	kind, _ := KindOf("swtok")
	f := v38{kind: kind, order: nativeOrder(), rand: rand.Reader}
	seen := make(map[string]bool)
	for range 3 {
		d, _, err := f.NewToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again, _ := f.Initialized(d)
		for _, s := range []string{d.Info(time.Time{}).Serial, again.Info(time.Time{}).Serial} {
			if len(s) != 16 || seen[s] {
				t.Errorf("serial number %q", s)
			}
			seen[s] = true
		}
	}
}
