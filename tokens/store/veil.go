package store

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// A Veil is a store some of whose objects are the token's own: what reads shows the others.
// The Store in it has all.
type Veil struct {
	*Store
	// Own is what the objects match that are the token's own.
	Own p11.Attributes
}

// Hides says whether an object is the token's own.
func (v Veil) Hides(o *tokens.Object) bool {
	a, err := o.Acquire()
	if err != nil {
		return false
	}
	defer o.Release()
	return a.Match(v.Own)
}

// Find is tokens.Objects.
func (v Veil) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	found, err := v.Store.Find(ctx, template, private)
	if err != nil || len(found) == 0 {
		return found, err
	}
	own, err := v.Store.Find(ctx, v.Own, true)
	return slices.DeleteFunc(found, func(o *tokens.Object) bool {
		return slices.ContainsFunc(own, func(hidden *tokens.Object) bool { return hidden.Handle == o.Handle })
	}), err
}

// ByHandle is tokens.Objects.
func (v Veil) ByHandle(h p11.ObjectHandle) (*tokens.Object, error) {
	return v.shown(v.Store.ByHandle(h))
}

// ByName is tokens.Objects.
func (v Veil) ByName(name string) (*tokens.Object, error) { return v.shown(v.Store.ByName(name)) }

func (v Veil) shown(o *tokens.Object, err error) (*tokens.Object, error) {
	if err == nil && v.Hides(o) {
		return nil, p11.CKR_OBJECT_HANDLE_INVALID
	}
	return o, err
}

// Counts is tokens.Objects.
func (v Veil) Counts() (public, private int) {
	public, private = v.Store.Counts()
	own, _ := v.Store.Find(context.Background(), v.Own, true) // which fails with its context alone
	for _, o := range own {
		if o.Private {
			private--
		} else {
			public--
		}
	}
	return public, private
}
