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

// A creation is an object that a call of Create makes. Who waits for another's call to end
// is told by one of the two channels.
type creation struct {
	newObject
	next *prepared
	made *tokens.Object
	err  error
	lead chan struct{} // closed: it is to write what waits, with its own
	done chan struct{} // closed: there is made, or err
}

// creators are the calls of Create that go on. One of them, the leader, writes; those that
// come meanwhile wait, and the next leader writes all of them together: for the disk that
// takes hardly longer than one.
type creators struct {
	mu      sync.Mutex
	waiting []*creation // the leader first, until it takes them
	leads   bool        // there is a leader
}

// maxTogether bounds what is written at once, and maxWriters the files that are at a time.
const (
	maxTogether = 256
	maxWriters  = 16
)

// join has c wait, and reports whether it is the leader.
func (l *creators) join(c *creation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, c)
	if l.leads {
		return false
	}
	l.leads = true
	close(c.lead)
	return true
}

// leave takes c back, unless it is a leader or already written.
func (l *creators) leave(c *creation) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(l.waiting, c)
	select {
	case <-c.lead:
		return false
	default:
	}
	if at < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, at, at+1)
	return true
}

// take returns those that the leader writes: of those that wait, the first.
func (l *creators) take(most int) []*creation {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), most)
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	return batch
}

// handOver has the first that waits be the leader.
func (l *creators) handOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leads = len(l.waiting) > 0; l.leads {
		close(l.waiting[0].lead)
	}
}

// Create is tokens.Objects. The name is reserved first; then come the file under
// its temporary name, the line in the index, and the file's own name, which makes
// it an object. If the process is killed in between, no file stays.
func (s *Store) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	c := &creation{newObject: newObject{attrs: attrs}, lead: make(chan struct{}), done: make(chan struct{})}
	if !s.creators.join(c) {
		select {
		case <-c.lead:
		case <-c.done:
			return c.made, c.err
		case <-ctx.Done():
			if s.creators.leave(c) {
				attrs.Wipe()
				return nil, ioError("create an object in", s.cfg.Dir, ctx.Err())
			}
			select { // what is begun is finished
			case <-c.lead:
			case <-c.done:
				return c.made, c.err
			}
		}
	}
	s.createWaiting(ctx)
	return c.made, c.err
}

// createWaiting makes the objects of the leader, whose ctx it is, and of those that wait by
// the time that the token's lock is had.
func (s *Store) createWaiting(ctx context.Context) {
	defer s.creators.handOver()
	end, err := s.begin(ctx)
	most := maxTogether
	if err != nil {
		most = 1 // another one's ctx may last longer
	}
	batch := s.creators.take(most)
	defer func() {
		for _, c := range batch {
			if c.made == nil && c.err == nil { // a panic
				c.err = p11.Errorf(p11.CKR_GENERAL_ERROR, "the object was not made")
			}
			if c.err != nil {
				c.attrs.Wipe()
			}
			secret.Wipe(c.file)
			close(c.done)
		}
	}()
	if err != nil {
		batch[0].err = err
		return
	}
	defer end()
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
