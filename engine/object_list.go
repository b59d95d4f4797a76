package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// A Listing is the objects that an application saw at one moment, for who goes through them
// in pieces: however many there are, it holds no description of them. It is used by one
// goroutine at a time.
type Listing struct {
	view     view
	template p11.Attributes
	found    []*tokens.Object
}

// List returns the objects that Objects would return.
func (a *Application) List(ctx context.Context, slot *Slot, template p11.Attributes) (*Listing, error) {
	if slot.token == nil {
		return nil, slot.absent()
	}
	if err := slot.token.Refresh(ctx); err != nil {
		return nil, err
	}
	v := a.view(slot)
	found, err := v.search(ctx, template, true)
	if err != nil {
		return nil, err
	}
	return &Listing{v, template, found}, nil
}

// Len is how many objects there were.
func (l *Listing) Len() int { return len(l.found) }

// Names calls f with what those objects are called, from a place in the listing on, until f
// returns false: without Attrs, KeyType and Length. Those that have gone meanwhile are left
// out, and so are private ones once the login has ended under which they were found.
func (l *Listing) Names(ctx context.Context, from int, f func(place int, i ObjectInfo) bool) error {
	_, hides := l.view.slot.token.(tokens.Hider)
	return l.each(ctx, from, func(o *tokens.Object) (ObjectInfo, bool) {
		// What a grant or the token lets be seen depends on other attributes.
		if !hides && (l.view.login != nil || !o.Private) {
			if i, ok := l.view.peek(o); ok {
				return i, true
			}
		}
		return l.look(o, (*entry).names)
	}, f)
}

// look describes an object that was found, or what it has become; false if it has gone.
func (l *Listing) look(o *tokens.Object, describe func(*entry) ObjectInfo) (ObjectInfo, bool) {
	e, err := l.view.holdFound(o, l.template)
	if err != nil {
		return ObjectInfo{}, false
	}
	defer e.release()
	return describe(e), true
}

func (l *Listing) each(ctx context.Context, from int, describe func(*tokens.Object) (ObjectInfo, bool), f func(place int, i ObjectInfo) bool) error {
	for place := from; place < len(l.found); place++ {
		if err := interrupted(ctx); err != nil {
			return err
		}
		info, there := describe(l.found[place])
		if !there || info.Private && !l.view.holds() {
			continue
		}
		if !f(place, info) {
			return nil
		}
	}
	return nil
}

// EachObject calls f with each object that Objects would return, one after the
// other, until f returns false. However many there are, one description is in
// memory at a time.
func (a *Application) EachObject(ctx context.Context, slot *Slot, template p11.Attributes, f func(ObjectInfo) bool) error {
	l, err := a.List(ctx, slot, template)
	if err != nil {
		return err
	}
	describe := func(o *tokens.Object) (ObjectInfo, bool) {
		return l.look(o, func(e *entry) ObjectInfo { return e.info(false) })
	}
	return l.each(ctx, 0, describe, func(_ int, i ObjectInfo) bool { return f(i) })
}

// EachName is EachObject of what objects are called alone (Listing.Names).
func (a *Application) EachName(ctx context.Context, slot *Slot, template p11.Attributes, f func(ObjectInfo) bool) error {
	l, err := a.List(ctx, slot, template)
	if err != nil {
		return err
	}
	return l.Names(ctx, 0, func(_ int, i ObjectInfo) bool { return f(i) })
}

// ObjectNamed returns what the application may know of the token object with
// that stored name, or CKR_OBJECT_HANDLE_INVALID when it may not see it or there
// is none.
func (a *Application) ObjectNamed(ctx context.Context, slot *Slot, name string) (ObjectInfo, error) {
	return a.objectNamed(ctx, slot, name, true)
}

// DescribeObjectNamed is ObjectNamed without secret values.
func (a *Application) DescribeObjectNamed(ctx context.Context, slot *Slot, name string) (ObjectInfo, error) {
	return a.objectNamed(ctx, slot, name, false)
}

func (a *Application) objectNamed(ctx context.Context, slot *Slot, name string, whole bool) (ObjectInfo, error) {
	none := p11.Errorf(p11.CKR_OBJECT_HANDLE_INVALID, "there is no object %q", name)
	if slot.token == nil {
		return ObjectInfo{}, slot.absent()
	}
	if name == "" {
		return ObjectInfo{}, none
	}
	if err := slot.token.Refresh(ctx); err != nil {
		return ObjectInfo{}, err
	}
	v := a.view(slot)
	o, err := slot.token.ByName(name)
	if err != nil || o.Private && v.login == nil && v.granting == nil {
		return ObjectInfo{}, none
	}
	e, err := v.hold(o)
	if err != nil {
		return ObjectInfo{}, none
	}
	defer e.release()
	info := e.info(whole)
	if info.Private && !v.holds() {
		info.Wipe()
		return ObjectInfo{}, none
	}
	return info, nil
}
