package engine

import (
	"context"

	"p11fs/p11"
)

// EachObject calls f with each object that Objects would return, one after the
// other, until f returns false. However many there are, one description is in
// memory at a time.
func (a *Application) EachObject(ctx context.Context, slot *Slot, template p11.Attributes, f func(ObjectInfo) bool) error {
	return a.each(ctx, slot, template, func(e *entry) ObjectInfo { return e.info(false) }, f)
}

// EachName is EachObject of what objects are called alone: without Attrs, KeyType and
// Length.
func (a *Application) EachName(ctx context.Context, slot *Slot, template p11.Attributes, f func(ObjectInfo) bool) error {
	return a.each(ctx, slot, template, (*entry).names, f)
}

func (a *Application) each(ctx context.Context, slot *Slot, template p11.Attributes, describe func(*entry) ObjectInfo, f func(ObjectInfo) bool) error {
	if slot.token == nil {
		return slot.absent()
	}
	if err := slot.token.Refresh(ctx); err != nil {
		return err
	}
	v := a.view(slot)
	found, err := v.search(ctx, template, true)
	if err != nil {
		return err
	}
	for _, o := range found {
		if err := interrupted(ctx); err != nil {
			return err
		}
		e, err := v.holdFound(o, template)
		if err != nil {
			continue // destroyed meanwhile
		}
		info := describe(e)
		e.release()
		if info.Private && !v.holds() {
			continue
		}
		if !f(info) {
			return nil
		}
	}
	return nil
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
