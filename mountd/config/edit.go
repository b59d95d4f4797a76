package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"p11fs/p11"
)

// AddSlot returns the text of a configuration with one more slot at its end, which has the
// least number that is free, and a token name of its own. name is the file's name in what is
// reported.
func AddSlot(name, src string, s Slot) (text string, id p11.SlotID, err error) {
	f, _, err := Parse(name, src)
	if err != nil {
		return "", 0, err
	}
	for slices.ContainsFunc(f.Slots, func(o Slot) bool { return o.ID == id }) {
		id++
	}
	if id >= MaxSlots {
		return "", 0, fmt.Errorf("%s has %d slots, which is all that there can be: p11fs token rm removes one", name, MaxSlots)
	}
	s.ID = id
	text = addSlot(src, s)
	return text, id, only(name, text, append(f.Slots, s))
}

// addSlot is src with one more slot.
func addSlot(src string, s Slot) string {
	var b strings.Builder
	b.WriteString(src)
	if src != "" && !strings.HasSuffix(src, "\n") {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\nslot %d\n{\n  %s = %s\n  %s = \"%s\"\n  %s = \"%s\"\n  %s = \"%s\"\n", uint64(s.ID),
		keyLibrary, s.Library, keyDescription, s.Description, keyManufacturer, s.Manufacturer, keyTokenName, s.TokenName)
	if s.HasFormat {
		fmt.Fprintf(&b, "  %s = %s\n", keyFormat, version(s.Format))
	}
	b.WriteString("}\n")
	return b.String()
}

// ReplaceSlot returns the text of a configuration with another slot in the place of one, which
// has its number and stands at the end, and of which it says library, description, manufacturer,
// token name and format.
func ReplaceSlot(name, src string, id p11.SlotID, s Slot) (string, error) {
	text, err := RemoveSlot(name, src, id)
	if err != nil {
		return "", err
	}
	f, _, err := Parse(name, text)
	if err != nil {
		return "", err
	}
	s = Slot{ID: id, Library: s.Library, Description: s.Description, Manufacturer: s.Manufacturer, TokenName: s.TokenName, Format: s.Format, HasFormat: s.HasFormat}
	text = addSlot(text, s)
	return text, only(name, text, append(f.Slots, s))
}

// WriteReplaced is WriteAdded for ReplaceSlot.
func WriteReplaced(path string, id p11.SlotID, s Slot) error {
	return rewrite(path, func(name, src string) (string, error) { return ReplaceSlot(name, src, id, s) })
}

// RemoveSlot returns the text of a configuration without a slot, and all else as it is.
func RemoveSlot(name, src string, id p11.SlotID) (string, error) {
	f, _, err := Parse(name, src)
	if err != nil {
		return "", err
	}
	slot, ok := find(f, id)
	if !ok {
		return "", fmt.Errorf("%s has no slot %d: p11fs token ls lists what there is", name, uint64(id))
	}
	text := strings.SplitAfter(src, "\n")
	from, to := slot.Line-1, f.blocks[id].end
	if from > 0 && strings.TrimSpace(text[from-1]) == "" && (to >= len(text) || strings.TrimSpace(text[to]) == "") {
		from-- // one blank line of two
	}
	out := strings.Join(slices.Delete(text, from, to), "")
	return out, only(name, out, slices.DeleteFunc(slices.Clone(f.Slots), func(s Slot) bool { return s.ID == id }))
}

// only checks that a text has these slots and no others: nothing else may have come to mean
// something else.
func only(name, text string, want []Slot) error {
	f, _, err := Parse(name, text)
	same := err == nil && slices.EqualFunc(f.Slots, want, func(a, b Slot) bool {
		a.Line, b.Line = 0, 0
		return a == b
	})
	if !same {
		return errors.Join(err, fmt.Errorf("%s cannot be changed so that all else in it stays as it is: write or remove the slot by hand", name))
	}
	return nil
}

// WriteAdded adds a slot to the file at path, and WriteRemoved removes one. The file is
// replaced in one step, durably, and keeps its owner and mode.
func WriteAdded(path string, s Slot) (id p11.SlotID, err error) {
	return id, rewrite(path, func(name, src string) (text string, err error) {
		text, id, err = AddSlot(name, src, s)
		return text, err
	})
}

// WriteRemoved is WriteAdded's contrary.
func WriteRemoved(path string, id p11.SlotID) error {
	return rewrite(path, func(name, src string) (string, error) { return RemoveSlot(name, src, id) })
}

func rewrite(path string, change func(name, src string) (string, error)) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := change(path, string(b))
	if err != nil {
		return err
	}
	return replace(path, text)
}
