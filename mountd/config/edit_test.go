package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p11fs/p11"
)

// editSource has comments and forms that an edit must leave alone.
const editSource = `version opencryptoki-3.8
# the first
slot 0
{
  stdll = libpkcs11_tpm.so
}

slot 2
{
  stdll = libpkcs11_sw.so
  tokname = "two"
}
# the end
`

func TestAddAndRemoveSlot(t *testing.T) {
	s := Slot{Library: "libpkcs11_sw.so", Description: "p11fs work", Manufacturer: "p11fs", TokenName: "work", Format: p11.Version{Major: 3, Minor: 12}, HasFormat: true}
	text, id, err := AddSlot("c", editSource, s)
	if err != nil || id != 1 || !strings.HasPrefix(text, editSource) {
		t.Fatalf("%d, %v\n%s", id, err, text)
	}
	f, _, err := Parse("c", text)
	if got, ok := find(f, 1); err != nil || !ok || got.TokenName != "work" || got.Format != s.Format || len(f.Slots) != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	if back, err := RemoveSlot("c", text, 1); err != nil || strings.TrimSpace(back) != strings.TrimSpace(editSource) {
		t.Errorf("%v\n%s", err, back)
	}
	for id, want := range map[p11.SlotID]string{0: "libpkcs11_tpm", 2: "two"} {
		without, err := RemoveSlot("c", text, id)
		if err != nil || strings.Contains(without, want) || !strings.Contains(without, "# the end") || !strings.Contains(without, "work") {
			t.Errorf("without %d: %v\n%s", id, err, without)
		}
	}
	if _, err := RemoveSlot("c", text, 7); err == nil {
		t.Error("a slot is removed that is not there")
	}
	if _, _, err := AddSlot("c", text, s); err == nil {
		t.Error("a second slot has the token's name")
	}
	// What stands behind a syntax error is ignored, and so would be the slot.
	if text, _, err := AddSlot("c", editSource+"nonsense\n", s); err == nil {
		t.Errorf("a slot is added where nobody reads it:\n%s", text)
	}
}

func TestWriteAddedAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte(editSource), 0o640); err != nil {
		t.Fatal(err)
	}
	id, err := WriteAdded(path, Slot{Library: "libpkcs11_sw.so", Description: "d", Manufacturer: "m", TokenName: "work"})
	if err != nil || id != 1 {
		t.Fatal(id, err)
	}
	if f, _, err := Load(path); err != nil || len(f.Slots) != 3 {
		t.Error(f, err)
	}
	if err := WriteRemoved(path, id); err != nil {
		t.Fatal(err)
	}
	if f, _, err := Load(path); err != nil || len(f.Slots) != 2 {
		t.Error(f, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Error(st.Mode(), err)
	}
}

// FuzzAddSlot: whatever stands in a file, an edit changes nothing else, or is refused.
func FuzzAddSlot(f *testing.F) {
	f.Add(editSource)
	f.Add("slot 0\n{\nstdll = a.so\n}")
	f.Add("")
	f.Fuzz(func(t *testing.T, src string) {
		before, _, err := Parse("c", src)
		if err != nil {
			return
		}
		text, id, err := AddSlot("c", src, Slot{Library: "l.so", Description: "d", Manufacturer: "m", TokenName: "fuzzed"})
		if err != nil {
			return
		}
		back, err := RemoveSlot("c", text, id)
		if err != nil {
			t.Fatalf("%q cannot be taken back: %v", text, err)
		}
		if after, _, err := Parse("c", back); err != nil || len(after.Slots) != len(before.Slots) {
			t.Fatalf("%q became %q", src, back)
		}
	})
}
