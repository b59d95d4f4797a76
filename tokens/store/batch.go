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

// CreateAll is tokens.BatchCreator. The names come into the index first, on marked
// lines, like those of objects that were destroyed: should the process be killed
// now, the files are removed that are there by then. Then come the files. One
// change of the index at the end makes objects of all of them.
func (s *Store) CreateAll(ctx context.Context, list []p11.Attributes) (_ []*tokens.Object, err error) {
	var names []format.Name
	var files [][]byte
	defer func() {
		for _, b := range files {
			secret.Wipe(b)
		}
		if err != nil {
			for _, attrs := range list {
				attrs.Wipe()
			}
		}
	}()
	for i := range list {
		if !list[i].Has(p11.CKA_PRIVATE) {
			list[i].SetBool(p11.CKA_PRIVATE, false)
		}
	}
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := s.roomFor(list); err != nil {
		return nil, err
	}
	for _, attrs := range list {
		n, err := s.newName()
		if err != nil {
			return nil, err
		}
		names = append(names, n)
		b, err := s.seal(n, attrs, nil)
		if err != nil {
			for _, n := range slices.Backward(names) {
				s.names.giveBack(n)
			}
			return nil, err
		}
		files = append(files, b)
	}
	stamps, err := s.writeAll(names, files)
	if err != nil {
		return nil, err
	}
	objects := make([]*tokens.Object, len(list))
	for i, attrs := range list {
		private := attrs.Bool(p11.CKA_PRIVATE)
		s.shareNew(names[i], private)
		objects[i] = s.publish(names[i], stamps[i], private, attrs)
	}
	return objects, nil
}

// writeAll makes files objects of these names, durably: all of them or none. The
// token's lock is held.
func (s *Store) writeAll(names []format.Name, files [][]byte) (stamps []stamp, err error) {
	if err := s.addMarked(names); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		for _, n := range names { // also a line without a mark names no object then
			_ = s.objs.remove(n.String())
		}
	}()
	for i, n := range names {
		st, err := s.objs.write(n.String(), objectTemp, files[i])
		if err != nil {
			return nil, err
		}
		stamps = append(stamps, st)
	}
	return stamps, s.unmark(names)
}

// roomFor refuses more objects than the segment has room for.
func (s *Store) roomFor(list []p11.Attributes) error {
	var count [2]int
	for _, attrs := range list {
		private := attrs.Bool(p11.CKA_PRIVATE)
		if err := s.room(private, count[side(private)]); err != nil {
			return err
		}
		count[side(private)]++
	}
	return nil
}
