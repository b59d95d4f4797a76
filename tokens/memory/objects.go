package memory

import (
	"context"
	"strconv"
	"strings"
	"time"

	"p11fs/p11"
	"p11fs/tokens"
)

// kept is one object.
type kept struct {
	number  uint64
	private bool
	attrs   p11.Attributes
	changed time.Time
	dated   time.Time
}

// Put stores an object as another program could, also a private one without a login
// here, under a stored name, which is any bytes, or one of its own without. It returns
// the name.
func (s *Store) Put(name string, attrs p11.Attributes) string {
	s.dir.mu.Lock()
	defer s.dir.mu.Unlock()
	return s.dir.putLocked(name, attrs)
}

// putLocked keeps attrs, which become its own, as the newest version of the object
// with that name. If there is none it is a new one, and without a name it gets one.
func (d *directory) putLocked(name string, attrs p11.Attributes) string {
	k := d.objects[name]
	if k == nil {
		d.number++
		if name == "" {
			// Stored names are opaque: these have any length, and nothing that others
			// expect of one.
			name = strings.Repeat("s/", int(d.number%32)) + strconv.FormatUint(d.number, 16)
		}
		k = &kept{number: d.number, private: attrs.Bool(p11.CKA_PRIVATE)}
		d.objects[name] = k
	}
	k.attrs.Wipe()
	now := time.Now()
	k.attrs, k.changed, k.dated = attrs, now, now
	for _, s := range d.stores {
		s.showLocked(name)
	}
	return name
}

// removeLocked removes an object.
func (d *directory) removeLocked(name string) {
	for _, s := range d.stores {
		s.hideLocked(name)
	}
	d.objects[name].attrs.Wipe()
	delete(d.objects, name)
}

// showLocked puts the newest version of an object into the index, if it can be seen.
func (s *Store) showLocked(name string) {
	k := s.dir.objects[name]
	if k.private && !s.logins.OpenLocked(p11.CKU_USER) {
		return
	}
	h := s.Index.NewHandle()
	if o := s.Index.ByName(name); o != nil {
		h = o.Handle
	}
	o := tokens.NewObject(h, name, k.attrs.Clone()).Pack()
	o.Changed, o.Dated = k.changed, k.dated
	if old := s.Index.PutAt(o, k.number); old != nil {
		old.Drop()
	}
}

// showAllLocked puts all objects into the index that can be seen and are not there.
func (s *Store) showAllLocked() {
	for name := range s.dir.objects {
		if s.Index.ByName(name) == nil {
			s.showLocked(name)
		}
	}
}

// hideLocked takes an object out of the index.
func (s *Store) hideLocked(name string) {
	if o := s.Index.ByName(name); o != nil {
		s.Index.Remove(o.Handle)
		o.Drop()
	}
}

// Create is tokens.Objects.
func (s *Store) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	if err := s.enter(ctx); err != nil {
		attrs.Wipe()
		return nil, err
	}
	defer s.dir.mu.Unlock()
	if attrs.Bool(p11.CKA_PRIVATE) && !s.logins.OpenLocked(p11.CKU_USER) {
		attrs.Wipe()
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a private object needs a login of the user")
	}
	if !attrs.Has(p11.CKA_PRIVATE) {
		attrs.SetBool(p11.CKA_PRIVATE, false)
	}
	return s.ByName(s.dir.putLocked("", attrs))
}

// Update is tokens.Objects. change is called without a lock, and again when another
// version came meanwhile.
func (s *Store) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	if err := s.Refresh(ctx); err != nil {
		return nil, err
	}
	return s.Index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		if err := s.enterWith(ctx, old); err != nil {
			return nil, err
		}
		defer s.dir.mu.Unlock()
		return s.ByName(s.dir.putLocked(old.Name, attrs))
	})
}

// Date is tokens.Dater.
func (s *Store) Date(ctx context.Context, h p11.ObjectHandle, at time.Time) error {
	if err := s.Refresh(ctx); err != nil {
		return err
	}
	_, err := s.Index.Update(h, unchanged, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		if err := s.enterWith(ctx, old); err != nil {
			return nil, err
		}
		defer s.dir.mu.Unlock()
		s.dir.putLocked(old.Name, attrs)
		s.dir.objects[old.Name].dated = at
		for _, store := range s.dir.stores {
			store.showLocked(old.Name)
		}
		return s.ByName(old.Name)
	})
	return err
}

func unchanged(attrs p11.Attributes) (p11.Attributes, error) { return attrs.Clone(), nil }

// enterWith is enter for a change of the object of which old is to be the newest
// version.
func (s *Store) enterWith(ctx context.Context, old *tokens.Object) error {
	err := s.enter(ctx)
	if err == nil && s.Index.Get(old.Handle) != old {
		s.dir.mu.Unlock()
		err = tokens.ErrChanged
	}
	return err
}

// Destroy is tokens.Objects. check is called as change is in Update.
func (s *Store) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	if err := s.Refresh(ctx); err != nil {
		return err
	}
	return s.Index.Destroy(h, check, func(old *tokens.Object) error {
		if err := s.enterWith(ctx, old); err != nil {
			return err
		}
		defer s.dir.mu.Unlock()
		s.dir.removeLocked(old.Name)
		return nil
	})
}
