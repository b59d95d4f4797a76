package memory

import (
	"context"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
)

// Find is tokens.Objects.
func (s *Store) Find(ctx context.Context, template p11.Attributes, private bool) ([]*tokens.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	found := s.index.Find(template)
	if !private {
		found = slices.DeleteFunc(found, func(o *tokens.Object) bool { return o.Private })
	}
	return found, nil
}

// ByHandle is tokens.Objects.
func (s *Store) ByHandle(h p11.ObjectHandle) (*tokens.Object, error) {
	return found(s.index.Get(h))
}

// ByName is tokens.Objects.
func (s *Store) ByName(name string) (*tokens.Object, error) {
	return found(s.index.ByName(name))
}

func found(o *tokens.Object) (*tokens.Object, error) {
	if o == nil {
		return nil, p11.CKR_OBJECT_HANDLE_INVALID
	}
	return o, nil
}

// Counts is tokens.Objects.
func (s *Store) Counts() (public, private int) { return s.index.Counts() }

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
	return s.keepLocked("", attrs), nil
}

// keepLocked keeps attrs as the newest version of the object with that name, or as
// a new one without.
func (s *Store) keepLocked(name string, attrs p11.Attributes) *tokens.Object {
	name, k := s.dir.putLocked(name, attrs)
	s.seen = s.dir.change
	return s.putLocked(name, k)
}

// Update is tokens.Objects. change is called without a lock, and again when another
// version came meanwhile.
func (s *Store) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	s.dir.mu.Unlock()
	return s.index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		if err := s.enterWith(ctx, old); err != nil {
			return nil, err
		}
		defer s.dir.mu.Unlock()
		return s.keepLocked(old.Name, attrs), nil
	})
}

// enterWith is enter for a change of the object of which old is to be the newest
// version.
func (s *Store) enterWith(ctx context.Context, old *tokens.Object) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if s.index.Get(old.Handle) != old {
		s.dir.mu.Unlock()
		return tokens.ErrChanged
	}
	return nil
}

// Destroy is tokens.Objects. check is called as change is in Update.
func (s *Store) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	s.dir.mu.Unlock()
	return s.index.Destroy(h, check, func(old *tokens.Object) error {
		if err := s.enterWith(ctx, old); err != nil {
			return err
		}
		defer s.dir.mu.Unlock()
		s.dir.objects[old.Name].attrs.Wipe()
		delete(s.dir.objects, old.Name)
		s.dir.change++
		s.seen = s.dir.change
		s.dropLocked(old.Name)
		return nil
	})
}
