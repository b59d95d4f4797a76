package tokens

import (
	"errors"
	"testing"

	"p11fs/p11"
)

// stored returns an index with one object, whose handle is 1.
func stored(t *testing.T) (*Index, *Object) {
	t.Helper()
	x := NewIndex()
	o := NewObject(1, "n", template(t, "class=data label=old private=false token=true"))
	x.Put(o)
	return x, o
}

func relabel(to string) func(p11.Attributes) (p11.Attributes, error) {
	return func(a p11.Attributes) (p11.Attributes, error) { return a.With(p11.CKA_LABEL, []byte(to)), nil }
}

func keep(x *Index) func(*Object, p11.Attributes) (*Object, error) {
	return func(old *Object, a p11.Attributes) (*Object, error) {
		o := NewObject(old.Handle, old.Name, a)
		x.Put(o).Drop()
		return o, nil
	}
}

// Who finds that another was faster begins again with the other's version.
func TestUpdateBeginsAgain(t *testing.T) {
	x, _ := stored(t)
	calls := 0
	var tried []p11.Attributes
	o, err := x.Update(1, func(a p11.Attributes) (p11.Attributes, error) {
		calls++
		return a.With(p11.CKA_LABEL, []byte(a.Label()+"+mine")), nil
	}, func(old *Object, a p11.Attributes) (*Object, error) {
		tried = append(tried, a)
		if calls == 1 {
			if _, err := x.Update(1, relabel("theirs"), keep(x)); err != nil {
				t.Fatal(err)
			}
			return nil, ErrChanged
		}
		return keep(x)(old, a)
	})
	if err != nil || calls != 2 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	if a, _ := o.Acquire(); a.Label() != "theirs+mine" {
		t.Errorf("label %q", a.Label())
	}
	if tried[0].Label() == "old+mine" {
		t.Error("attributes that were not kept are not wiped")
	}
	calls = 0
	err = x.Destroy(1, func(a p11.Attributes) error {
		calls++
		if a.Label() == "last" {
			return p11.CKR_ACTION_PROHIBITED
		}
		return nil
	}, func(*Object) error {
		_, err := x.Update(1, relabel("last"), keep(x))
		return errors.Join(err, ErrChanged)
	})
	if !errors.Is(err, p11.CKR_ACTION_PROHIBITED) || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestUpdateRefuses(t *testing.T) {
	x, old := stored(t)
	for _, template := range []p11.Attributes{template(t, "private=true"), template(t, "token=false")} {
		var made p11.Attributes
		_, err := x.Update(1, func(a p11.Attributes) (p11.Attributes, error) {
			made = a.Merge(template)
			return made, nil
		}, keep(x))
		if !errors.Is(err, p11.CKR_ATTRIBUTE_READ_ONLY) || made.Label() == "old" {
			t.Errorf("%v: %v, label %q", template, err, made.Label())
		}
	}
	failed := errors.New("disk full")
	var made p11.Attributes
	_, err := x.Update(1, relabel("new"), func(_ *Object, a p11.Attributes) (*Object, error) {
		made = a
		return nil, failed
	})
	if !errors.Is(err, failed) || made.Label() == "new" {
		t.Errorf("%v, label %q", err, made.Label())
	}
	if x.Get(1) != old || old.users != 0 {
		t.Errorf("%v has %d holders", x.Get(1), old.users)
	}
	x.Remove(1)
	if _, err := x.Update(1, relabel("new"), keep(x)); !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
		t.Errorf("an object that is gone: %v", err)
	}
}
