package store

import (
	"context"
	"slices"
	"sync"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// A creation is an object that a call of Create makes.
type creation struct {
	newObject
	next *prepared
	made *tokens.Object
	err  error
}

// maxWriters bounds the files that are written at a time.
const maxWriters = 16

// Create is tokens.Objects. The name is reserved first; then come the file under
// its temporary name, the line in the index, and the file's own name, which makes
// it an object. If the process is killed in between, no file stays.
func (s *Store) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	c := &creation{newObject: newObject{attrs: attrs}}
	if !s.creators.do(ctx, c, s.createWaiting) {
		attrs.Wipe()
		return nil, ioError("create an object in", s.cfg.Dir, ctx.Err())
	}
	return c.made, c.err
}

// createWaiting makes the objects of the leader, whose ctx it is, and of those that wait by
// the time that the token's lock is had.
func (s *Store) createWaiting(ctx context.Context, take func(most int) []*creation) {
	end, err := s.begin(ctx)
	if err != nil {
		c := take(1)[0] // another one's ctx may last longer
		c.err = err
		c.attrs.Wipe()
		return
	}
	defer end()
	batch := take(maxTogether)
	defer func() {
		for _, c := range batch {
			if c.made == nil && c.err == nil { // a panic
				c.err = p11.Errorf(p11.CKR_GENERAL_ERROR, "the object was not made")
			}
			if c.err != nil {
				c.attrs.Wipe()
			}
			secret.Wipe(c.file)
		}
	}()
	s.keepNames()
	s.writeTogether(s.sealTogether(batch))
}

// sealTogether seals the objects, and returns those that can be written.
func (s *Store) sealTogether(batch []*creation) (sealed []*creation) {
	var others []*newObject
	for _, c := range batch {
		if c.err = s.sealNew(&c.newObject, others); c.err == nil {
			others = append(others, &c.newObject)
			sealed = append(sealed, c)
		}
	}
	return sealed
}

// writeTogether makes objects of what was sealed, each for itself. Several files are synced
// at a time, which a disk does in one, and then their lines and names, once for all.
func (s *Store) writeTogether(sealed []*creation) {
	var wg sync.WaitGroup
	writers := make(chan struct{}, maxWriters)
	for _, c := range sealed {
		writers <- struct{}{}
		wg.Go(func() {
			c.next, c.err = s.objs.prepare(c.name.String(), c.file)
			<-writers
		})
	}
	wg.Wait()
	left := func() []*creation {
		return slices.DeleteFunc(sealed, func(c *creation) bool { return c.err != nil })
	}
	sealed = left()
	if len(sealed) == 0 {
		return
	}
	var names []format.Name
	for _, c := range sealed {
		defer c.next.drop()
		names = append(names, c.name)
	}
	err := s.addLines(names, false)
	if err == nil {
		for _, c := range sealed {
			c.stamp, c.err = c.next.rename()
		}
		err = s.objs.sync()
	}
	for _, c := range sealed {
		if c.err == nil {
			c.err = err
		}
		if c.err != nil {
			// A line without a file names no object.
			_ = s.objs.remove(c.name.String())
		}
	}
	for _, c := range left() {
		s.shareNew(c.name, c.private)
		c.made = s.publish(c.name, c.stamp, c.private, c.attrs)
	}
}
