package store

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

var _ tokens.BatchCreator = (*Store)(nil)

// A newObject is an object on its way to the disk.
type newObject struct {
	name    format.Name
	private bool
	attrs   p11.Attributes
	file    []byte
	stamp   stamp
}

// CreateAll is tokens.BatchCreator. The objects get marked lines in the index, as if
// they had been destroyed; then come their files, and an index with their own lines
// makes all of them objects at once. If the process is killed before, the marked
// lines say which files are to be removed.
func (s *Store) CreateAll(ctx context.Context, list []p11.Attributes) ([]*tokens.Object, error) {
	return s.create(ctx, list, func(list []*newObject) (err error) {
		var names []format.Name
		for _, o := range list {
			names = append(names, o.name)
		}
		if err := s.addLines(names, true); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				for _, o := range list {
					_ = s.objs.remove(o.name.String())
				}
				_ = s.objs.sync()
			}
		}()
		for _, o := range list {
			next, err := s.objs.prepare(o.name.String(), o.file)
			if err != nil {
				return err
			}
			o.stamp, err = next.rename()
			next.drop()
			if err != nil {
				return err
			}
		}
		if err := s.objs.sync(); err != nil {
			return err
		}
		return s.rewriteIndex(func(n format.Name, marked bool) format.LineEdit {
			if marked && slices.Contains(names, n) {
				return format.DropLine
			}
			return format.KeepLine
		}, names...)
	})
}

// create makes objects of list: it seals them, has write put them on the disk, all
// or none, and brings them into memory.
func (s *Store) create(ctx context.Context, list []p11.Attributes, write func([]*newObject) error) (_ []*tokens.Object, err error) {
	defer func() {
		if err != nil {
			for _, attrs := range list {
				attrs.Wipe()
			}
		}
	}()
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	s.keepNames()
	var objects []*newObject
	for _, attrs := range list {
		o := &newObject{attrs: attrs}
		if err := s.sealNew(o, objects); err != nil {
			for _, o := range slices.Backward(objects) {
				s.names.giveBack(o.name)
			}
			return nil, err
		}
		defer secret.Wipe(o.file)
		objects = append(objects, o)
	}
	if err := write(objects); err != nil {
		return nil, err
	}
	made := make([]*tokens.Object, 0, len(objects))
	for _, o := range objects {
		s.shareNew(o.name, o.private)
		made = append(made, s.publish(o.name, o.stamp, o.private, o.attrs))
	}
	return made, nil
}

// sealNew makes the file of a new object in memory, with a name for it, if there is room
// for it besides others that are to come. What cannot be stored costs no name. The token's
// lock is held.
func (s *Store) sealNew(o *newObject, others []*newObject) (err error) {
	if !o.attrs.Has(p11.CKA_PRIVATE) {
		o.attrs.SetBool(p11.CKA_PRIVATE, false)
	}
	o.private = o.attrs.Bool(p11.CKA_PRIVATE)
	var count [2]int
	var sizes []int64
	for _, other := range others {
		count[side(other.private)]++
		sizes = append(sizes, int64(len(other.file)))
	}
	count[side(o.private)]++
	if err := s.room(count); err != nil {
		return err
	}
	if o.name, err = s.newName(); err != nil {
		return err
	}
	if o.file, err = s.seal(o.name, o.attrs, nil); err == nil {
		if err = s.roomFor(nil, append(sizes, int64(len(o.file)))); err != nil {
			secret.Wipe(o.file)
		}
	}
	if err != nil {
		s.names.giveBack(o.name)
	}
	return err
}
