package engine

import (
	"context"

	"p11fs/p11"
	"p11fs/tokens"
)

// search is what C_FindObjectsInit found and C_FindObjects has not yet given.
type search struct {
	handles []p11.ObjectHandle
	login   *login // under which it was found
	size    int    // in the account of the uid
}

// search returns the objects that match template and that may be seen. A
// listing wants all of them, C_FindObjects not those that its template must ask
// for by class.
func (v view) search(ctx context.Context, template p11.Attributes, all bool) ([]*tokens.Object, error) {
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	if err := template.Validate(); err != nil {
		return nil, err
	}
	found, err := v.slot.token.Find(ctx, template, v.login != nil)
	if err != nil {
		return nil, err
	}
	granted, err := v.searchGranted(ctx, template)
	if err != nil {
		return nil, err
	}
	// Those first: without a login anybody makes public keys, also of the name of one that is
	// granted, and a program takes the first that it finds.
	found = append(granted, found...)
	if v.appSlot != nil {
		own, err := v.appSlot.objects.index.Find(ctx, template, v.login != nil)
		if err != nil {
			return nil, err
		}
		found = append(found, own...)
	}
	if o := v.byStoredName(template); o != nil {
		found = append(found, o)
	}
	if !all {
		found = append(found, v.slot.findBuiltins(template)...)
	}
	return v.filter(ctx, found, template, all)
}

// byStoredName finds an object whose CKA_UNIQUE_ID is its stored name, because
// it was stored without one.
func (v view) byStoredName(template p11.Attributes) *tokens.Object {
	id := uniqueID(template)
	if len(id) == 0 {
		return nil
	}
	o, err := v.slot.token.ByName(string(id))
	if err != nil || (o.Private && v.login == nil && v.granting == nil) {
		return nil
	}
	e, err := v.hold(o)
	if err != nil {
		return nil
	}
	defer e.release()
	if !matchesStoredName(e.object, e.attrs, template) {
		return nil
	}
	return e.object
}

// matchesStoredName says whether an object that was stored without a
// CKA_UNIQUE_ID matches template with its stored name for one.
func matchesStoredName(o *tokens.Object, attrs, template p11.Attributes) bool {
	if id := uniqueID(template); len(id) == 0 || string(id) != o.Name || len(uniqueID(attrs)) > 0 {
		return false
	}
	rest := template.Clone()
	rest.Delete(p11.CKA_UNIQUE_ID)
	return attrs.Match(rest)
}

// filter takes out what matches but is not to be found: objects with unreadable
// attributes that the template asks about, since an answer would reveal them; and
// hardware features and mechanisms unless all are wanted or their class is asked
// for (PKCS#11 v3.1 §4.3, §4.12). It reuses the slice.
func (v view) filter(ctx context.Context, found []*tokens.Object, template p11.Attributes, all bool) ([]*tokens.Object, error) {
	_, hides := v.slot.token.(tokens.Hider)
	var asked []p11.AttributeType
	for _, a := range template {
		if hides || p11.SecretValue(a.Type) {
			asked = append(asked, a.Type)
		}
	}
	all = all || template.Has(p11.CKA_CLASS)
	if all && asked == nil {
		return found, nil
	}
	kept := found[:0]
	for _, o := range found {
		if err := interrupted(ctx); err != nil {
			return nil, err
		}
		e, err := v.holdFound(o, template)
		if err != nil {
			continue // destroyed meanwhile
		}
		if e.mayBeFound(asked, all) {
			kept = append(kept, e.object)
		}
		e.release()
	}
	return kept, nil
}

func (e *entry) mayBeFound(asked []p11.AttributeType, all bool) bool {
	if !all {
		switch class, _ := e.attrs.Class(); class {
		case p11.CKO_HW_FEATURE, p11.CKO_MECHANISM:
			return false
		}
	}
	for _, t := range asked {
		if e.visibility(t) != tokens.Readable {
			return false
		}
	}
	return true
}

// Find returns the handles of all objects that match template and that the
// session may see: those that are granted, token objects, then session objects, each in the
// order in which they were made. An empty template matches all (PKCS#11 v3.1 §5.7.7).
func (s *Session) Find(ctx context.Context, template p11.Attributes) ([]p11.ObjectHandle, error) {
	handles, _, err := s.find(ctx, template)
	return handles, err
}

func (s *Session) find(ctx context.Context, template p11.Attributes) ([]p11.ObjectHandle, *login, error) {
	if s.closed() {
		return nil, nil, s.gone()
	}
	if err := s.appSlot.slot.token.Refresh(ctx); err != nil {
		return nil, nil, err
	}
	v := s.view()
	found, err := v.search(ctx, template, false)
	if err != nil {
		return nil, nil, err
	}
	handles := make([]p11.ObjectHandle, 0, len(found))
	stands := v.holds()
	for _, o := range found {
		if !o.Private || stands {
			handles = append(handles, v.handle(o))
		}
	}
	return handles, v.login, nil
}

// FindObjectsInit is C_FindObjectsInit (PKCS#11 v3.1 §5.7.7).
func (s *Session) FindObjectsInit(ctx context.Context, template p11.Attributes) error {
	if s.searching() {
		return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a search is active")
	}
	handles, l, err := s.find(ctx, template)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed() {
		return s.gone()
	}
	if s.search != nil {
		return p11.Errorf(p11.CKR_OPERATION_ACTIVE, "a search is active")
	}
	size := handleSize * len(handles)
	if err := s.appSlot.app.account.Take(size); err != nil {
		return err
	}
	s.search = &search{handles, l, size}
	return nil
}

// handleSize is the size of a handle in bytes.
const handleSize = 8

// endSearchLocked drops what a search found, if there is one.
func (s *Session) endSearchLocked() {
	if s.search != nil {
		s.appSlot.app.account.Give(s.search.size)
		s.search = nil
	}
}

func (s *Session) searching() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.search != nil
}

// FindObjects is C_FindObjects (PKCS#11 v3.1 §5.7.8): the next handles, at most
// limit; none when all were given. A login or logout ends the search's results,
// not the search.
func (s *Session) FindObjects(ctx context.Context, limit int) ([]p11.ObjectHandle, error) {
	if s.closed() {
		return nil, s.gone()
	}
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	if limit < 0 {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "a number of objects cannot be negative")
	}
	now := s.appSlot.user()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.search == nil {
		return nil, notActive("search")
	}
	if s.search.login != nil && s.search.login != now {
		s.search.handles = nil
	}
	n := min(limit, len(s.search.handles))
	next := s.search.handles[:n:n]
	s.search.handles = s.search.handles[n:]
	return next, nil
}

// FindObjectsFinal is C_FindObjectsFinal (PKCS#11 v3.1 §5.7.9).
func (s *Session) FindObjectsFinal(context.Context) error {
	if s.closed() {
		return s.gone()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.search == nil {
		return notActive("search")
	}
	s.endSearchLocked()
	return nil
}

func notActive(what string) error {
	return p11.Errorf(p11.CKR_OPERATION_NOT_INITIALIZED, "no %s is active in this session", what)
}
