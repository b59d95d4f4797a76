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
