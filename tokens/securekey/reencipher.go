package securekey

import (
	"bytes"
	"context"
	"errors"

	"p11fs/p11"
	"p11fs/tokens"
)

// errMeanwhile says that a key became another one while the card was asked.
var errMeanwhile = p11.Errorf(p11.CKR_FUNCTION_FAILED, "the key was changed meanwhile")

// A step changes one object: it returns what is to be set and what is to go, or nothing.
// attrs are not its to change.
type step func(ctx context.Context, attrs p11.Attributes) (set p11.Attributes, gone []p11.AttributeType, err error)

// each has do see to every object with a blob, one after the other. It returns how many
// objects it changed.
func each(ctx context.Context, s tokens.Objects, progress func(done, total int), do step) (changed int, err error) {
	list, err := s.Find(ctx, nil, true)
	if err != nil {
		return 0, err
	}
	for i, o := range list {
		if progress != nil {
			progress(i, len(list))
		}
		did, err := one(ctx, s, o.Handle, do)
		if p11.RVOf(err) == p11.CKR_OBJECT_HANDLE_INVALID {
			continue // destroyed meanwhile
		}
		if err != nil {
			return changed, err
		}
		if did {
			changed++
		}
	}
	if progress != nil {
		progress(len(list), len(list))
	}
	return changed, nil
}

// one changes one object. A key that another process has changed meanwhile is looked at
// anew, once.
func one(ctx context.Context, s tokens.Objects, h p11.ObjectHandle, do step) (changed bool, err error) {
	for range 2 {
		changed, err = try(ctx, s, h, do)
		if err != errMeanwhile { //nolint:errorlint // it is this package's own, and nobody wraps it
			break
		}
	}
	return changed, err
}

func try(ctx context.Context, s tokens.Objects, h p11.ObjectHandle, do step) (bool, error) {
	o, err := s.ByHandle(h)
	if err != nil {
		return false, err
	}
	attrs, err := o.Acquire()
	if err != nil {
		return false, err
	}
	defer o.Release()
	if _, ok := Blob(attrs); !ok {
		return false, nil
	}
	set, gone, err := do(ctx, attrs)
	if err != nil || len(set) == 0 && len(gone) == 0 {
		return false, err
	}
	_, err = s.Update(ctx, h, func(a p11.Attributes) (p11.Attributes, error) {
		for _, t := range Blobs() {
			was, _ := attrs.Get(t)
			if is, _ := a.Get(t); !bytes.Equal(is, was) {
				return nil, errMeanwhile
			}
		}
		changed := a.Merge(set)
		for _, t := range gone {
			changed.Delete(t)
		}
		return changed, nil
	})
	return err == nil, err
}

// Reencipher puts beside each blob what it is under the master key that comes next, in
// CKA_IBM_OPAQUE_REENC. renew asks the card; it returns nothing for a blob that needs none.
// current says of a blob that is there already whether it is good.
func Reencipher(ctx context.Context, s tokens.Objects, progress func(done, total int), current func(next []byte) bool, renew func(ctx context.Context, blob []byte) ([]byte, error)) (int, error) {
	return each(ctx, s, progress, func(ctx context.Context, a p11.Attributes) (p11.Attributes, []p11.AttributeType, error) {
		if next, _ := a.Get(p11.CKA_IBM_OPAQUE_REENC); len(next) > 0 && current(next) {
			return nil, nil, nil
		}
		blob, _ := Blob(a)
		next, err := renew(ctx, blob)
		if err != nil || len(next) == 0 {
			return nil, nil, err
		}
		if len(next) > MaxBlob {
			return nil, nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the card made a key of %d bytes", len(next))
		}
		return p11.Attributes{{Type: p11.CKA_IBM_OPAQUE_REENC, Value: next}}, nil, nil
	})
}

// ErrLost is of a blob that is under no master key of a card.
var ErrLost = errors.New("the key is under no master key of the card")

// Finalize has each blob under the next master key take the place of the one before, which
// stays in CKA_IBM_OPAQUE_OLD. active says whether its master key is the card's now. Of a blob
// that has nothing beside it, rescue makes what it is under the card's master key, and nothing
// of one that is good. Where that is ErrLost all others are seen to before it is told.
func Finalize(ctx context.Context, s tokens.Objects, progress func(done, total int), active func(next []byte) error, rescue func(ctx context.Context, blob []byte) ([]byte, error)) (int, error) {
	lost := 0
	n, err := each(ctx, s, progress, func(ctx context.Context, a p11.Attributes) (p11.Attributes, []p11.AttributeType, error) {
		blob, _ := Blob(a)
		next, _ := a.Get(p11.CKA_IBM_OPAQUE_REENC)
		var err error
		if len(next) > 0 {
			err = active(next)
		} else if next, err = rescue(ctx, blob); errors.Is(err, ErrLost) {
			lost++
			return nil, nil, nil
		}
		if err != nil || len(next) == 0 {
			return nil, nil, err
		}
		return p11.Attributes{{Type: p11.CKA_IBM_OPAQUE, Value: next}, {Type: p11.CKA_IBM_OPAQUE_OLD, Value: blob}}, []p11.AttributeType{p11.CKA_IBM_OPAQUE_REENC}, nil
	})
	if err == nil && lost > 0 {
		err = p11.Advise(p11.Errorf(p11.CKR_FUNCTION_FAILED, "%d keys are under the new master key, and %d under none of the card, so that they cannot be used: reencipher was not run for them before activate", n, lost),
			"have the card's administrators set the master key before, or bring these keys again from where else they are")
	}
	return n, err
}

// Cancel removes each blob under the next master key.
func Cancel(ctx context.Context, s tokens.Objects, progress func(done, total int)) (int, error) {
	return each(ctx, s, progress, func(_ context.Context, a p11.Attributes) (p11.Attributes, []p11.AttributeType, error) {
		if !a.Has(p11.CKA_IBM_OPAQUE_REENC) {
			return nil, nil, nil
		}
		return nil, []p11.AttributeType{p11.CKA_IBM_OPAQUE_REENC}, nil
	})
}
