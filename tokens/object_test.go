package tokens

import (
	"testing"

	"p11fs/p11"
)

// Who holds a version may acquire it again after it was dropped; its memory stays
// until the last of them lets go.
func TestAcquireWhileHeld(t *testing.T) {
	o := NewObject(1, "n", p11.Attributes{{Type: p11.CKA_VALUE, Value: []byte("secret")}})
	held, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	value, _ := held.Get(p11.CKA_VALUE)
	o.Drop()
	again, err := o.Acquire()
	if err != nil {
		t.Fatalf("acquired again by who holds it: %v", err)
	}
	if v, _ := again.Get(p11.CKA_VALUE); string(v) != "secret" {
		t.Errorf("value %q", v)
	}
	o.Release()
	if string(value) != "secret" {
		t.Error("wiped while it is held")
	}
	o.Release()
	if string(value) == "secret" {
		t.Error("not wiped when nobody holds it")
	}
	if _, err := o.Acquire(); p11.RVOf(err) != p11.CKR_OBJECT_HANDLE_INVALID {
		t.Errorf("acquired when it was gone: %v", err)
	}
}

// TestPackedObject: one that is packed stands in the index as it would with its attributes
// unpacked, and its memory is wiped when nobody holds it any more, and not before.
func TestPackedObject(t *testing.T) {
	x := NewIndex()
	attrs := append(attributes(p11.CKO_SECRET_KEY, "web", 1, 2), p11.Attribute{Type: p11.CKA_VALUE, Value: []byte("secret")})
	plain := x.itemOf(NewObject(1, "n", attrs.Clone()), 7)
	o := NewObject(1, "n", attrs.Clone()).Pack()
	packed := x.itemOf(o, 7)
	if plain.obj, packed.obj = nil, nil; *packed != *plain || packed.size != SizeOf(attrs) {
		t.Errorf("in the index it is %+v, not %+v", packed, plain)
	}
	inside := o.packed
	held, err := o.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	value, _ := held.Get(p11.CKA_VALUE)
	o.Drop()
	if string(value) != "secret" {
		t.Error("wiped while it is held")
	}
	o.Release()
	for _, b := range inside {
		if b != 0 {
			t.Fatal("not wiped when nobody holds it")
		}
	}
	if gone := x.itemOf(o, 7); gone.has[byLabel] || gone.size != 0 {
		t.Error("one that is gone has a label")
	}
}
