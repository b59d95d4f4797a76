package integration

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"p11fs/p11"
)

// objectView is what the mount shows of one object: its attributes, as the
// library would give them, in hexadecimal by number, like stockObject.
type objectView map[string]string

// number spells an attribute's number as stock.py does.
func number(t p11.AttributeType) string { return fmt.Sprintf("0x%x", uint64(t)) }

// viewObjects reads every attribute file of every object that the terminal
// sees, by stored name. Secret values must not be among them.
func viewObjects(t testing.TB, term *terminal) map[string]objectView {
	t.Helper()
	views := map[string]objectView{}
	for _, name := range lines(term.ok("ls $T/by-uid")) {
		views[name] = objectView{}
	}
	if len(views) == 0 {
		return views
	}
	for _, line := range lines(term.ok("grep -r '' $T/by-uid/*/attr/")) {
		_, rest, _ := strings.Cut(line, "/by-uid/")
		name, rest, _ := strings.Cut(rest, "/attr/")
		file, text, _ := strings.Cut(rest, ":")
		at, err := p11.ParseAttributeType(file)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		// A value that its kind cannot have is shown as it is stored.
		raw, malformed := strings.CutPrefix(text, "invalid:0x")
		value, err := hex.DecodeString(raw)
		if !malformed {
			value, err = p11.ParseValue(at, text)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		views[name][number(at)] = hex.EncodeToString(value)
	}
	return views
}

// what names an object for a message.
func what(o map[string]string) string {
	label, _ := hex.DecodeString(o[number(p11.CKA_LABEL)])
	return "class " + o[number(p11.CKA_CLASS)] + " label " + string(label[:min(len(label), 40)]) + " id " + o[number(p11.CKA_ID)]
}

// sameObjects checks that stock and the mount show the same objects, with the
// same value of every attribute but secret ones, and those that are younger than
// stock, which p11fs makes where there are none.
func sameObjects(t testing.TB, views map[string]objectView, stock []stockObject) {
	t.Helper()
	younger := []string{number(p11.CKA_UNIQUE_ID), number(p11.CKA_ENCAPSULATE), number(p11.CKA_DECAPSULATE)}
	byWhat := map[string]stockObject{}
	for _, o := range stock {
		if _, ok := byWhat[what(o)]; ok {
			t.Errorf("stock lists %s twice", what(o))
		}
		byWhat[what(o)] = o
	}
	for _, name := range slices.Sorted(maps.Keys(views)) {
		v := views[name]
		o, ok := byWhat[what(v)]
		if !ok {
			t.Errorf("stock does not list %s, %s", name, what(v))
			continue
		}
		delete(byWhat, what(v))
		for at, value := range v {
			if known, ok := o[at]; known != value && (ok || !slices.Contains(younger, at)) {
				t.Errorf("%s, %s: attribute %s is %q to stock, %q over the mount", name, what(v), at, known, value)
			}
		}
		for at, value := range o {
			if _, ok := v[at]; !ok && value != "sensitive" && !keyMaterial(at) {
				t.Errorf("%s, %s: attribute %s is %q to stock, and is not shown over the mount", name, what(v), at, value)
			}
		}
		if len(v) < 5 {
			t.Errorf("the mount shows only %d attributes of %s", len(v), what(v))
		}
	}
	for w := range byWhat {
		t.Errorf("the mount does not show stock's %s", w)
	}
}

// keyMaterial says that an attribute is not read from files: a secret, or the
// value of a data object or certificate, which has a file of its own.
func keyMaterial(at string) bool {
	t, err := p11.ParseAttributeType(at)
	return err == nil && p11.SecretValue(t)
}
