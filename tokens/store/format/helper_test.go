package format

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens/store/storetest"
)

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pin(t testing.TB, text string) *secret.Bytes {
	t.Helper()
	b, err := secret.New([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// name is the name that text spells.
func name(text string) Name { return Name([]byte(text)) }

// little is the format as a directory of a little-endian machine has it.
func little(t testing.TB, kind string) v38 {
	t.Helper()
	k, ok := KindOf(kind)
	if !ok {
		t.Fatalf("there is no %s", kind)
	}
	return v38{kind: k, order: binary.LittleEndian, rand: rand.Reader}
}

// dataObject is a complete data object.
func dataObject(label, value string, private bool) p11.Attributes {
	return p11.Attributes{
		{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.CKO_DATA)},
		{Type: p11.CKA_TOKEN, Value: p11.Bool(true)},
		{Type: p11.CKA_PRIVATE, Value: p11.Bool(private)},
		{Type: p11.CKA_LABEL, Value: []byte(label)},
		{Type: p11.CKA_VALUE, Value: []byte(value)},
	}
}

// golden reads and writes the objects of the directory swtok.
func golden(t testing.TB) *objects38 {
	t.Helper()
	f := little(t, "swtok")
	m := storetest.ReadManifest(t)
	master, err := f.unwrap(readFile(t, storetest.Untar(t, "swtok"), "MK_USER"), pin(t, m.SWTok.UserPIN))
	if err != nil || master == nil {
		t.Fatalf("no master key: %v", err)
	}
	defer master.Close()
	o, err := f.Objects(master)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*objects38)
}

// fast312 is format 3.12 with PINs that take no time.
func fast312() v312 {
	k, _ := KindOf312("swtok")
	return v312{kind: k, rand: rand.Reader, iterations: 1}
}

// golden312 reads and writes the objects of the directory sw312.
func golden312(t testing.TB) objects312 {
	t.Helper()
	master, err := secret.New(storetest.ReadDecoded(t)["sw312"].Master)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	o, err := fast312().Objects(master)
	if err != nil {
		t.Fatal(err)
	}
	return o.(objects312)
}
