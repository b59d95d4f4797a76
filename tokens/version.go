package tokens

import (
	"context"
	"errors"

	"p11fs/p11"
)

// A Lookup is the part of Objects that only reads, over an index.
type Lookup struct{ Index *Index }

// Find is Objects.
func (l Lookup) Find(ctx context.Context, template p11.Attributes, private bool) ([]*Object, error) {
	return l.Index.Find(ctx, template, private)
}

// ByHandle is Objects.
func (l Lookup) ByHandle(h p11.ObjectHandle) (*Object, error) { return existing(l.Index.Get(h)) }

// ByName is Objects.
func (l Lookup) ByName(name string) (*Object, error) { return existing(l.Index.ByName(name)) }

// Counts is Objects.
func (l Lookup) Counts() (public, private int) { return l.Index.Counts() }

// PublicSize is Objects.
func (l Lookup) PublicSize() int { return l.Index.PublicSize() }

// Tell is Teller.
func (l Lookup) Tell(heard func(old, now *Object)) (stop func()) { return l.Index.Tell(heard) }

func existing(o *Object) (*Object, error) {
	if o == nil {
		return nil, p11.CKR_OBJECT_HANDLE_INVALID
	}
	return o, nil
}

// ErrChanged is returned by the functions that Index.Update and Index.Destroy are
// given, when the object has a newer version than theirs: all begins again with it.
var ErrChanged = errors.New("the object was changed meanwhile")

// Update makes a new version of an object: what Objects.Update is, wherever the
// versions are kept. keep keeps the new version, puts it into the index and drops
// the old one, which is held meanwhile. attrs are wiped when it fails.
func (x *Index) Update(h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error),
	keep func(old *Object, attrs p11.Attributes) (*Object, error)) (*Object, error) {
	for {
		o, err := x.update(h, change, keep)
		if !errors.Is(err, ErrChanged) {
			return o, err
		}
	}
}

func (x *Index) update(h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error),
	keep func(old *Object, attrs p11.Attributes) (*Object, error)) (*Object, error) {
	old, was, err := x.hold(h)
	if err != nil {
		return nil, err
	}
	defer old.Release()
	attrs, err := change(was)
	if err != nil {
		return nil, err
	}
	for _, t := range []p11.AttributeType{p11.CKA_PRIVATE, p11.CKA_TOKEN} {
		if attrs.Bool(t) != was.Bool(t) {
			attrs.Wipe()
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_READ_ONLY, "%s of an object stays as it is", t.Short())
		}
	}
	o, err := keep(old, attrs)
	if err != nil {
		attrs.Wipe()
	}
	return o, err
}

// Destroy removes an object: what Objects.Destroy is, wherever it is kept. remove
// takes it from there and out of the index, and drops it.
func (x *Index) Destroy(h p11.ObjectHandle, check func(p11.Attributes) error, remove func(old *Object) error) error {
	for {
		err := x.destroy(h, check, remove)
		if !errors.Is(err, ErrChanged) {
			return err
		}
	}
}

func (x *Index) destroy(h p11.ObjectHandle, check func(p11.Attributes) error, remove func(old *Object) error) error {
	old, err := x.Doomed(h, check)
	if err != nil {
		return err
	}
	defer old.Release()
	return remove(old)
}

// Doomed returns the newest version of an object that is to be destroyed, if check lets it
// be, held for the caller to release.
func (x *Index) Doomed(h p11.ObjectHandle, check func(p11.Attributes) error) (*Object, error) {
	old, attrs, err := x.hold(h)
	if err != nil {
		return nil, err
	}
	if err := check(attrs); err != nil {
		old.Release()
		return nil, err
	}
	return old, nil
}

// hold returns the newest version of an object, acquired, and its attributes.
func (x *Index) hold(h p11.ObjectHandle) (*Object, p11.Attributes, error) {
	for {
		o := x.Get(h)
		if o == nil {
			return nil, nil, p11.CKR_OBJECT_HANDLE_INVALID
		}
		attrs, err := o.Acquire()
		if err == nil || x.Get(h) == o {
			return o, attrs, err
		}
	}
}
