package fleet

import (
	"context"
	"errors"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store"
	"p11fs/tokens/store/format"
)

// nameSize is what counts for an object beside its value.
const nameSize = 256

// codecLocked reads and writes objects' files, private ones only while the user is logged in.
func (s *Store) codecLocked() (format.Objects, error) {
	return s.cfg.Format.Objects(s.logins.KeyLocked(p11.CKU_USER))
}

func (s *Store) codec() (format.Objects, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.codecLocked()
}

// shownName is what everybody but the storage calls an object.
func shownName(r *record, n format.Name) string { return store.ShownName(r.NameKey, n.String()) }

// takeLocked makes o, with attrs that become the index's, the newest version of an object.
// attrs are nil of a private object that nobody may see now.
func (s *Store) takeLocked(n format.Name, o *object, st stored, attrs p11.Attributes) {
	if old := s.objects[n]; old != nil {
		o.handle = old.handle
	}
	s.setLocked(n, o)
	if o.private {
		o.stored = st
	}
	if attrs != nil && o.private && !s.logins.OpenLocked(p11.CKU_USER) {
		attrs.Wipe()
		attrs = nil
	}
	if attrs == nil {
		s.dropLocked(o)
		return
	}
	s.showLocked(n, o, st, attrs)
}

// showLocked puts the newest version of an object into the index.
func (s *Store) showLocked(n format.Name, o *object, st stored, attrs p11.Attributes) {
	if o.handle == 0 {
		o.handle = s.Index.NewHandle()
	}
	next := tokens.NewObject(o.handle, shownName(s.record, n), attrs)
	next.Stored, next.Changed, next.Dated = n.String(), st.changed, st.dated
	if old := s.Index.PutAt(next, s.cfg.Format.Place(n)); old != nil {
		old.Drop()
	}
}

// dropLocked takes an object out of the index.
func (s *Store) dropLocked(o *object) {
	if old := s.Index.Remove(o.handle); old != nil {
		old.Drop()
	}
	o.handle = 0
}

// forgetLocked drops all that is known of an object.
func (s *Store) forgetLocked(n format.Name) {
	if o := s.objects[n]; o != nil {
		s.dropLocked(o)
		s.setLocked(n, nil)
	}
}

// setLocked puts o, which is nil for none, in the place of what is known of an object.
func (s *Store) setLocked(n format.Name, o *object) {
	if old := s.objects[n]; old != nil {
		s.size -= old.size
		xor(&s.sum, old.tag)
		delete(s.objects, n)
	}
	if o != nil {
		s.size += o.size
		xor(&s.sum, o.tag)
		s.objects[n] = o
	}
}

func (s *Store) removeAllLocked() {
	for n := range s.objects {
		s.forgetLocked(n)
	}
}

// known is what is known of an object, of which old is to be the newest version.
func (s *Store) known(old *tokens.Object) (format.Name, *object, error) {
	n, _ := format.ParseName(old.Stored)
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[n]
	if o == nil || s.Index.Get(old.Handle) != old {
		return n, nil, tokens.ErrChanged
	}
	return n, o, nil
}

// Create is tokens.Objects.
func (s *Store) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	made, err := s.CreateAll(ctx, []p11.Attributes{attrs})
	if err != nil {
		return nil, err
	}
	return made[0], nil
}

// CreateAll is tokens.BatchCreator: one transaction makes all of them.
func (s *Store) CreateAll(ctx context.Context, list []p11.Attributes) (_ []*tokens.Object, err error) {
	defer func() {
		if err != nil {
			for _, attrs := range list {
				attrs.Wipe()
			}
		}
	}()
	if len(list) > maxTogether {
		return nil, p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "%d objects at once are more than the %d that a change of the fleet has", len(list), maxTogether), "make them in smaller parts")
	}
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
	var names []format.Name
	if _, err := s.change(ctx, func(e *edit) (err error) {
		names, err = s.putNew(e, list)
		return err
	}); err != nil {
		return nil, err
	}
	made := make([]*tokens.Object, 0, len(list))
	for i, n := range names {
		o := s.Index.ByName(shownName(s.newest(), n))
		if o == nil { // destroyed since, or the user logged out
			o = tokens.NewObject(tokens.NewHandle(), n.String(), list[i])
			o.Drop()
		}
		made = append(made, o)
	}
	return made, nil
}

// newest is the record as it is now.
func (s *Store) newest() *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// putNew has new objects be written.
func (s *Store) putNew(e *edit, list []p11.Attributes) ([]format.Name, error) {
	codec, err := s.codec()
	if err != nil {
		return nil, err
	}
	names, data, err := s.cfg.Format.NewNames(e.record.Data, len(list), s.taken)
	if err != nil {
		return nil, err
	}
	e.record.Data = data
	now := s.cfg.Now()
	for i, attrs := range list {
		file, err := codec.Seal(names[i], attrs, nil)
		if err != nil {
			return nil, err
		}
		if err := e.put(names[i], nil, stored{now, now, file}, attrs); err != nil {
			return nil, err
		}
	}
	return names, s.roomFor(e, 0)
}

// taken reports whether there is an object of that name, which the record says nothing of.
func (s *Store) taken(n format.Name) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[n] != nil, nil
}

// roomFor returns an error if there is no room for what an edit puts in place of objects of
// was bytes.
func (s *Store) roomFor(e *edit, was int64) error {
	more := -was
	for _, p := range e.puts {
		more += p.object.size
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if more > 0 && !s.fitsLocked(more) {
		return p11.Advise(p11.Errorf(p11.CKR_DEVICE_MEMORY, "the objects of the token have all the room that there is for them, %d MiB", s.cfg.Room>>20),
			"destroy some, or start p11fs mount with a larger --token-size")
	}
	return nil
}

func (s *Store) fitsLocked(more int64) bool { return s.cfg.Room < 0 || s.size+more <= s.cfg.Room }

// Update is tokens.Objects.
func (s *Store) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	return s.update(ctx, h, change, func() stored {
		now := s.cfg.Now()
		return stored{changed: now, dated: now}
	})
}

// Date is tokens.Dater.
func (s *Store) Date(ctx context.Context, h p11.ObjectHandle, at time.Time) error {
	same := func(attrs p11.Attributes) (p11.Attributes, error) { return attrs.Clone(), nil }
	_, err := s.update(ctx, h, same, func() stored { return stored{changed: s.cfg.Now(), dated: at} })
	return err
}

// update is Update with the times of the new version, and returns once all machines have it.
func (s *Store) update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error), times func() stored) (*tokens.Object, error) {
	o, rev, err := s.updateHere(ctx, h, change, times)
	if err != nil {
		return nil, err
	}
	return o, s.settle(ctx, rev)
}

func (s *Store) updateHere(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error), times func() stored) (o *tokens.Object, rev int64, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	o, err = s.Index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		rev, err = s.attempt(ctx, func(e *edit) error {
			n, was, err := s.known(old)
			if err != nil {
				return err
			}
			codec, err := s.codec()
			if err != nil {
				return err
			}
			next := times()
			if next.file, err = codec.Seal(n, attrs, nil); err != nil {
				return err
			}
			if err := e.put(n, was, next, attrs); err != nil {
				return err
			}
			return s.roomFor(e, was.size)
		})
		if err != nil {
			return nil, againIfLost(err)
		}
		return s.newestOf(old, attrs), nil
	})
	return o, rev, err
}

// newestOf is the version of an object that has come of old, or, if it is gone already, one
// that is dropped.
func (s *Store) newestOf(old *tokens.Object, attrs p11.Attributes) *tokens.Object {
	if o := s.Index.Get(old.Handle); o != nil {
		return o
	}
	o := tokens.NewObject(old.Handle, old.Name, attrs)
	o.Drop()
	return o
}

func againIfLost(err error) error {
	if errors.Is(err, errLost) {
		return tokens.ErrChanged
	}
	return err
}

// Destroy is tokens.Objects.
func (s *Store) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	rev, err := s.destroyHere(ctx, h, check)
	if err != nil {
		return err
	}
	return s.settle(ctx, rev)
}

func (s *Store) destroyHere(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) (rev int64, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	err = s.Index.Destroy(h, check, func(old *tokens.Object) error {
		rev, err = s.attempt(ctx, func(e *edit) error {
			n, was, err := s.known(old)
			if err == nil {
				e.remove(n, was)
			}
			return err
		})
		return againIfLost(err)
	})
	return rev, err
}

// settle waits until what was taken away at a revision is taken away on all machines. It is
// done here, and so whoever waits does not give up.
func (s *Store) settle(ctx context.Context, rev int64) error {
	return s.cfg.Contact.Settle(context.WithoutCancel(ctx), rev)
}

// endedLocked takes private objects out of the index when the user's last login has ended.
func (s *Store) endedLocked(u p11.UserType) {
	if u != p11.CKU_USER {
		return
	}
	for _, o := range s.objects {
		if o.private {
			s.dropLocked(o)
		}
	}
}

// showPrivate shows the private objects after the user's first login. Those that change
// meanwhile come with their change.
func (s *Store) showPrivate() error {
	s.mu.Lock()
	codec, err := s.codecLocked()
	type hidden struct {
		n format.Name
		o *object
	}
	var list []hidden
	for n, o := range s.objects {
		if o.private && o.handle == 0 && o.bad == nil {
			list = append(list, hidden{n, o})
		}
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, x := range list {
		_, attrs, err := codec.Open(x.n, x.o.stored.file)
		s.mu.Lock()
		switch {
		case s.objects[x.n] != x.o || x.o.handle != 0 || !s.logins.OpenLocked(p11.CKU_USER):
			attrs.Wipe()
		case err != nil:
			s.spoilLocked(x.n, x.o, err)
		case attrs != nil:
			s.showLocked(x.n, x.o, x.o.stored, attrs)
		}
		s.mu.Unlock()
	}
	return nil
}
