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

// Create is tokens.Objects. The name is reserved first; then come the file under
// its temporary name, the line in the index, and the file's own name, which makes
// it an object. If the process is killed in between, no file stays.
func (s *Store) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	made, err := s.create(ctx, []p11.Attributes{attrs}, func(list []*newObject) error {
		o := list[0]
		next, err := s.objs.prepare(o.name.String(), o.file)
		if err != nil {
			return err
		}
		defer next.drop()
		if err = s.addLines([]format.Name{o.name}, false); err == nil {
			o.stamp, err = next.commit()
		}
		if err != nil {
			// A line without a file names no object.
			_ = s.objs.remove(o.name.String())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return made[0], nil
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
	var objects []*newObject
	var count [2]int
	var sizes []int64
	for _, attrs := range list {
		if !attrs.Has(p11.CKA_PRIVATE) {
			attrs.SetBool(p11.CKA_PRIVATE, false)
		}
		o := &newObject{attrs: attrs, private: attrs.Bool(p11.CKA_PRIVATE)}
		objects = append(objects, o)
		count[side(o.private)]++
	}
	if err := s.room(count); err != nil {
		return nil, err
	}
	s.keepNames()
	for i, o := range objects {
		if o.name, err = s.newName(); err != nil {
			return nil, err
		}
		if o.file, err = s.seal(o.name, o.attrs, nil); err != nil {
			for _, o := range slices.Backward(objects[:i+1]) {
				s.names.giveBack(o.name) // what cannot be stored costs no name
			}
			return nil, err
		}
		defer secret.Wipe(o.file)
		sizes = append(sizes, int64(len(o.file)))
	}
	if err := s.roomFor(nil, sizes); err != nil {
		for _, o := range slices.Backward(objects) {
			s.names.giveBack(o.name)
		}
		return nil, err
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
