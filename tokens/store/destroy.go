package store

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// A destruction is an object that a call of Destroy ends.
type destruction struct {
	handle p11.ObjectHandle
	check  func(p11.Attributes) error
	old    *tokens.Object // held while it is worked on
	name   format.Name
	done   bool
	err    error
}

// Destroy is tokens.Objects. The object is gone once the index does not list it,
// nor the segment; the file follows. If the process is killed before, or the power fails, the
// marked line in the index says that the file is still to be removed.
func (s *Store) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	d := &destruction{handle: h, check: check}
	if !s.destroyers.do(ctx, d, s.destroyWaiting) {
		return ioError("destroy an object in", s.cfg.Dir, ctx.Err())
	}
	return d.err
}

// destroyWaiting ends the objects of the leader, whose ctx it is, and of those that wait by
// the time that the token's lock is had.
func (s *Store) destroyWaiting(ctx context.Context, take func(most int) []*destruction) {
	end, err := s.begin(ctx)
	if err != nil {
		take(1)[0].err = err // another one's ctx may last longer
		return
	}
	defer end()
	batch := take(maxTogether)
	defer func() {
		for _, d := range batch {
			if d.old != nil {
				d.old.Release()
			}
			if !d.done && d.err == nil { // a panic
				d.err = p11.Errorf(p11.CKR_GENERAL_ERROR, "the object was not destroyed")
			}
		}
	}()
	s.destroyTogether(batch)
}

// destroyTogether ends objects, each for itself: their lines are marked with one sync.
func (s *Store) destroyTogether(batch []*destruction) {
	first := make(map[p11.ObjectHandle]*destruction)
	var doomed []*destruction
	for _, d := range batch {
		if first[d.handle] != nil {
			continue
		}
		if d.old, d.err = s.Index.Doomed(d.handle, d.check); d.err == nil {
			d.name, _ = format.ParseName(d.old.Stored)
			first[d.handle] = d
			doomed = append(doomed, d)
		}
	}
	s.unlist(doomed)
	for _, d := range doomed {
		if d.err == nil {
			s.shareGone(d.name, d.old.Private)
			if s.seg != nil {
				s.destroyed.add(d.name)
			}
			s.mu.Lock()
			s.forgetLocked(d.name)
			s.mu.Unlock()
			s.removeFile(d.name)
			d.done = true
		}
	}
	for _, d := range batch {
		if !d.done && d.err == nil { // the same object comes twice
			if d.err = first[d.handle].err; d.err == nil {
				d.err = p11.CKR_OBJECT_HANDLE_INVALID
			}
		}
	}
}

// unlist ends objects on disk: their lines are marked, and so they are none. On a full
// disk there may be no room for the next index, and who is told to destroy
// objects must be able to. Then a file goes first, which ends its object too,
// and makes the room. If it is too little, the line stays, and names nothing.
func (s *Store) unlist(list []*destruction) {
	for len(list) > 0 {
		var names []format.Name
		for _, d := range list {
			names = append(names, d.name)
		}
		err := s.markLines(names)
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			for _, d := range list {
				d.err = err
			}
			return
		}
		list[0].err = s.unlistAfterFile(names[0])
		list = list[1:]
	}
}

// unlistAfterFile removes the object's file, and then its line.
func (s *Store) unlistAfterFile(n format.Name) error {
	if err := s.objs.remove(n.String()); err != nil {
		return err
	}
	if err := s.objs.sync(); err != nil {
		return err
	}
	if err := s.markLines([]format.Name{n}); err != nil {
		s.cfg.Log.Warn("the line of a destroyed object stays", "dir", s.cfg.Dir, "name", n, "err", err)
	}
	return nil
}
