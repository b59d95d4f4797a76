package icsf

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfwire"
)

// notSent are attributes that a template for the server does not have: the server knows them
// better, or not at all.
func notSent(t p11.AttributeType) bool {
	return slices.Contains([]p11.AttributeType{
		p11.CKA_LOCAL, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE, p11.CKA_KEY_GEN_MECHANISM, p11.CKA_UNIQUE_ID,
		p11.CKA_COPYABLE, p11.CKA_DESTROYABLE, p11.CKA_CHECK_VALUE, p11.CKA_PUBLIC_KEY_INFO, p11.CKA_ALLOWED_MECHANISMS,
		p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_TRUSTED, p11.CKA_PROFILE_ID, handleAttribute,
		p11.CKA_VALUE_BITS, p11.CKA_PRIME_BITS, p11.CKA_SUBPRIME_BITS, // numbers, for which the protocol has no form
	}, t)
}

// limits says whether an attribute that the server does not know keeps something from being done.
func limits(a p11.Attribute) bool {
	switch a.Type {
	case p11.CKA_ALWAYS_AUTHENTICATE, p11.CKA_WRAP_WITH_TRUSTED, p11.CKA_TRUSTED:
		return !bytes.Equal(a.Value, p11.Bool(false))
	case p11.CKA_COPYABLE, p11.CKA_DESTROYABLE:
		return bytes.Equal(a.Value, p11.Bool(false))
	}
	return a.Type == p11.CKA_ALLOWED_MECHANISMS && len(a.Value) > 0
}

// sent are the attributes of a template as they go to the server, for an object of the token
// where stored is set. They share their values.
func sent(attrs p11.Attributes, stored bool) (list p11.Attributes, err error) {
	for _, a := range attrs {
		if stored && limits(a) { // which would be forgotten with what is known here
			return nil, p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_VALUE_INVALID, "%s: ICSF keeps no such objects", a.Type.Short()), "leave it out, or make the object in another token")
		}
		if !notSent(a.Type) {
			list = append(list, a)
		}
	}
	return list, icsfwire.CheckAttributes(list)
}

// new makes an object on the server, and notes that it is about to be known.
func (s *objects) new(ctx context.Context, r *icsfwire.Request) (icsfwire.Handle, error) {
	h, err := s.conn.Call(ctx, r, nil)
	if err == nil && !h.IsObject() {
		err = p11.Errorf(p11.CKR_DEVICE_ERROR, "the server has made an object without a handle")
	}
	if err == nil {
		s.note(h)
	}
	return h, err
}

func (s *objects) note(h icsfwire.Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[h] = true
}

// isMade says whether an object was made here and is not at the end of being made.
func (s *objects) isMade(h icsfwire.Handle) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made[h]
}

// bringIn makes an object of attributes, which stay the caller's.
func (s *objects) bringIn(ctx context.Context, attrs p11.Attributes) (icsfwire.Handle, error) {
	list, err := sent(attrs, attrs.Bool(p11.CKA_TOKEN))
	if err != nil {
		return "", err
	}
	return s.new(ctx, &icsfwire.Request{Handle: icsfwire.TokenHandle(s.name), Rules: []string{"OBJECT"}, Data: &icsfwire.CreateObject{Attributes: list}})
}

// Create is tokens.Objects. An object that is on the server already was made there by a call
// before, or is one that is to be copied.
func (s *objects) Create(ctx context.Context, attrs p11.Attributes) (*tokens.Object, error) {
	defer attrs.Wipe()
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	s.mu.Lock()
	allowed := s.user || !attrs.Bool(p11.CKA_PRIVATE)
	s.mu.Unlock()
	if !allowed {
		return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "a private object needs a login of the user")
	}
	h, there := handleOf(attrs)
	var err error
	switch {
	case !there:
		h, err = s.bringIn(ctx, withPrivate(attrs))
	case h.IsSession() || !s.isMade(h):
		h, err = s.copy(ctx, h, attrs)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.made, h)
	}()
	got, err := s.get(context.WithoutCancel(ctx), h)
	if err != nil {
		return nil, err
	}
	if o := s.put(h, got); o != nil {
		return o, nil
	}
	return nil, p11.Errorf(p11.CKR_USER_NOT_LOGGED_IN, "the user has logged out meanwhile")
}

// withPrivate says that an object is public that does not say: the server's default is the
// other way round. It shares the values.
func withPrivate(attrs p11.Attributes) p11.Attributes {
	if attrs.Has(p11.CKA_PRIVATE) {
		return attrs
	}
	return append(slices.Clone(attrs), p11.Attribute{Type: p11.CKA_PRIVATE, Value: p11.Bool(false)})
}

// copy copies an object on the server, with the attributes in which attrs differ from it.
func (s *objects) copy(ctx context.Context, from icsfwire.Handle, attrs p11.Attributes) (icsfwire.Handle, error) {
	was, err := s.get(ctx, from)
	if err != nil {
		return "", err
	}
	list, err := sent(changed(was, attrs), attrs.Bool(p11.CKA_TOKEN))
	if err != nil {
		return "", err
	}
	return s.new(ctx, &icsfwire.Request{Handle: from, Rules: []string{"OBJECT", "COPY"}, Data: &icsfwire.CreateObject{Attributes: list}})
}

// changed are the attributes of now that are not those of was.
func changed(was, now p11.Attributes) (list p11.Attributes) {
	for _, a := range now {
		if old, ok := was.Get(a.Type); !ok || !bytes.Equal(old, a.Value) {
			list = append(list, a)
		}
	}
	return list
}

// locked calls f with the newest attributes of an object while no other process of ours changes
// it, or returns tokens.ErrChanged where old is not that version.
func (s *objects) locked(ctx context.Context, old *tokens.Object, f func(ctx context.Context, h icsfwire.Handle, was p11.Attributes) error) error {
	attrs, err := old.Acquire()
	if err != nil {
		return tokens.ErrChanged
	}
	defer old.Release()
	h, _ := handleOf(attrs)
	unlock, err := s.lock.Lock.Lock(ctx)
	if err != nil {
		return interrupted(err)
	}
	defer func() { _ = unlock() }()
	was, err := s.get(ctx, h)
	if errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
		s.mu.Lock()
		s.forgetLocked(h)
		s.mu.Unlock()
	}
	if err != nil {
		return err
	}
	if o := s.put(h, was.Clone()); o != old {
		was.Wipe()
		return tokens.ErrChanged
	}
	defer was.Wipe()
	return f(ctx, h, was)
}

// Update is tokens.Objects.
func (s *objects) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, interrupted(err)
	}
	return s.Index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (o *tokens.Object, err error) {
		err = s.locked(ctx, old, func(ctx context.Context, h icsfwire.Handle, was p11.Attributes) error {
			list, err := sent(changed(was, attrs), attrs.Bool(p11.CKA_TOKEN))
			if err != nil {
				return err
			}
			if len(list) > 0 {
				if _, err := s.conn.Call(ctx, &icsfwire.Request{Handle: h, Data: &icsfwire.SetAttributes{Attributes: list}}, nil); err != nil {
					return err
				}
			}
			if o = s.put(h, here(attrs.Clone(), h)); o == nil {
				return p11.CKR_OBJECT_HANDLE_INVALID
			}
			return nil
		})
		if err == nil {
			attrs.Wipe()
		}
		return o, err
	})
}

// Destroy is tokens.Objects.
func (s *objects) Destroy(ctx context.Context, h p11.ObjectHandle, check func(p11.Attributes) error) error {
	if err := ctx.Err(); err != nil {
		return interrupted(err)
	}
	return s.Index.Destroy(h, check, func(old *tokens.Object) error {
		return s.locked(ctx, old, func(ctx context.Context, h icsfwire.Handle, _ p11.Attributes) error {
			if err := s.keepUsed(ctx, h); err != nil {
				return err
			}
			err := s.destroy(ctx, h)
			if err == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.forgetLocked(h)
			}
			return err
		})
	})
}

// keepUsed has a copy stand for a key that an operation may hold. A key that cannot be copied
// is gone for the operation too.
func (s *objects) keepUsed(ctx context.Context, h icsfwire.Handle) error {
	if !s.uses.isUsed(h) {
		return nil
	}
	r := &icsfwire.Request{Handle: h, Rules: []string{"OBJECT", "COPY"}, Data: &icsfwire.CreateObject{Attributes: p11.Attributes{{Type: p11.CKA_TOKEN, Value: p11.Bool(false)}}}}
	instead, err := s.conn.Call(ctx, r, nil)
	switch {
	case ctx.Err() != nil:
		return interrupted(ctx.Err())
	case err == nil && instead.IsSession():
		s.uses.stand(h, instead)
	}
	return nil
}

func (s *objects) destroy(ctx context.Context, h icsfwire.Handle) error {
	_, err := s.conn.Call(ctx, &icsfwire.Request{Handle: h, Rules: []string{"OBJECT"}, Data: &icsfwire.Destroy{}}, nil)
	return err
}

// destroyAll destroys all objects of the token itself.
func (s *objects) destroyAll(ctx context.Context) error {
	for more := true; more; {
		var list []icsfwire.Handle
		var err error
		if list, more, err = s.list(ctx, maxObjects); err != nil {
			return err
		}
		more = more && len(list) > 0 // or they are all of sessions
		for _, h := range list {
			if err := s.destroy(ctx, h); err != nil && !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
				return err
			}
			s.mu.Lock()
			s.forgetLocked(h)
			s.mu.Unlock()
		}
	}
	return nil
}
