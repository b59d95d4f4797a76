package icsf

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/p11/pkix"
	"p11fs/tokens"
	"p11fs/tokens/icsf/icsfconn"
	"p11fs/tokens/icsf/icsfwire"
)

// handleAttribute has an object's handle on the server. It is nobody's to see or to set.
const handleAttribute = p11.CKA_IBM_OPAQUE

// objects are those of the token on the server, as they were read last.
type objects struct {
	tokens.Lookup
	conn  *icsfconn.Conn
	uses  *uses
	name  string // of the token on the server
	lock  tokens.Place
	fresh time.Duration // how long a listing is taken for true
	keep  time.Duration // and the attributes of an object

	reading chan struct{} // has room for one: who brings in what others have changed

	mu     sync.Mutex // guards all below
	known  map[icsfwire.Handle]*known
	made   map[icsfwire.Handle]bool // by a call that is not yet at its end
	user   bool                     // is logged in
	listed time.Time
}

// known is what is known of an object.
type known struct {
	handle  p11.ObjectHandle // 0: a private one, and nobody is logged in
	private bool
	read    time.Time
}

// handleOf is the handle in the attributes of an object.
func handleOf(a p11.Attributes) (icsfwire.Handle, bool) {
	v, ok := a.Get(handleAttribute)
	return icsfwire.Handle(v), ok
}

// sequenceOf is the number of an object, in whose order they were made.
func sequenceOf(h icsfwire.Handle) uint64 {
	n, _ := strconv.ParseUint(string(h[icsfwire.TokenNameSize:min(len(h), icsfwire.TokenNameSize+8)]), 16, 32)
	return n
}

// shownName is the stored name of an object.
func shownName(h icsfwire.Handle) string {
	return h.Token() + "." + string(h[icsfwire.TokenNameSize:])
}

// room is how many bytes of attributes are asked for, and attributeHead what each has at least
// beside its value.
const room, attributeHead = 32767, 4

// get reads the attributes of an object: those that are kept here, with its handle.
func (s *objects) get(ctx context.Context, h icsfwire.Handle) (p11.Attributes, error) {
	var out icsfwire.AttributeList
	if _, err := s.conn.Call(ctx, &icsfwire.Request{Handle: h, Data: &icsfwire.GetAttributes{Room: room}}, &out); err != nil {
		return nil, err
	}
	size := 0
	for _, a := range out.Attributes {
		size += attributeHead + len(a.Value)
	}
	if size > room {
		out.Attributes.Wipe()
		return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server gives an object more attributes than it was asked for")
	}
	return here(out.Attributes, h), nil
}

// here are attributes as they are kept here: those of keys without secrets.
func here(a p11.Attributes, h icsfwire.Handle) p11.Attributes {
	class, _ := a.Class()
	if class == p11.CKO_PRIVATE_KEY || class == p11.CKO_SECRET_KEY {
		a = a.WipeSecrets()
	}
	if class == p11.CKO_PUBLIC_KEY || class == p11.CKO_CERTIFICATE {
		// Without the information, or the check value, other programs do as well.
		_ = pkix.Complete(&a)
	}
	a.Set(handleAttribute, []byte(h))
	return a
}

// page is how many handles are asked for at once.
const page = 256

// maxObjects bounds what is listed, and so, with room, the memory that a server can take.
const maxObjects = 1 << 16

// list returns the handles of the objects of the token itself. A server that lists one again
// has no others.
func (s *objects) list(ctx context.Context) (list []icsfwire.Handle, err error) {
	seen := make(map[icsfwire.Handle]bool)
	for last := icsfwire.TokenHandle(s.name); len(seen) < maxObjects; {
		var out icsfwire.ObjectList
		r := &icsfwire.Request{Handle: last, Rules: []string{"OBJECT"}, Data: &icsfwire.ListObjects{Room: page * icsfwire.HandleSize, Max: page}}
		if _, err := s.conn.Call(ctx, r, &out); err != nil {
			return nil, err
		}
		before := last
		for b := out.Handles; len(b) >= icsfwire.HandleSize; b = b[icsfwire.HandleSize:] {
			h, err := icsfwire.ParseHandle(b[:icsfwire.HandleSize])
			if err != nil || !h.IsObject() || h.Token() != s.name {
				return nil, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server lists what is no object of the token")
			}
			if seen[h] {
				return list, nil
			}
			seen[h] = true
			if last = h; !h.IsSession() {
				list = append(list, h)
			}
		}
		if last == before {
			return list, nil
		}
	}
	return list, nil
}

// atOnce is how many objects are read at once.
const atOnce = 8

// sync brings in what others have changed, unless that was done a moment ago. force has it done
// anyway.
func (s *objects) sync(ctx context.Context, force bool) error {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return interrupted(ctx.Err())
	}
	if !force && s.recent() {
		return nil
	}
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	there := make(map[icsfwire.Handle]bool, len(list))
	var stale []icsfwire.Handle
	s.mu.Lock()
	for _, h := range list {
		there[h] = true
		k := s.known[h]
		switch {
		case s.made[h]: // whoever made it will say so
		case k == nil, s.user && k.handle == 0, k.handle != 0 && time.Since(k.read) >= s.keep:
			stale = append(stale, h)
		}
	}
	for h := range s.known {
		if !there[h] {
			s.forgetLocked(h)
		}
	}
	s.listed = time.Now()
	s.mu.Unlock()
	return s.readAll(ctx, stale)
}

// recent says whether what is known was listed a moment ago.
func (s *objects) recent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh > 0 && time.Since(s.listed) < s.fresh
}

func interrupted(err error) error {
	return p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
}

// readAll reads objects.
func (s *objects) readAll(ctx context.Context, list []icsfwire.Handle) error {
	var wg sync.WaitGroup
	seats := make(chan struct{}, atOnce)
	errs := make([]error, len(list))
	for i, h := range list {
		seats <- struct{}{}
		wg.Go(func() {
			defer func() { <-seats }()
			a, err := s.get(ctx, h)
			switch {
			case err == nil:
				s.put(h, a)
			case errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID): // gone meanwhile
				s.mu.Lock()
				s.forgetLocked(h)
				s.mu.Unlock()
			default:
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// put puts the newest version of an object into the index, if it may be seen and is another
// one than is there, and returns it; attrs become the index's.
func (s *objects) put(h icsfwire.Handle, attrs p11.Attributes) *tokens.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[h]
	if k == nil {
		k = &known{}
		s.known[h] = k
	}
	k.private, k.read = attrs.Bool(p11.CKA_PRIVATE), time.Now()
	if k.private && !s.user {
		s.hideLocked(k)
		attrs.Wipe()
		return nil
	}
	if k.handle == 0 {
		k.handle = s.Index.NewHandle()
	} else if o := s.Index.Get(k.handle); o != nil && same(o, attrs) {
		attrs.Wipe()
		return o
	}
	s.uses.hold(h)
	o := tokens.NewSessionObject(k.handle, attrs, s.uses.release)
	o.Name = shownName(h)
	if old := s.Index.PutAt(o, sequenceOf(h)); old != nil {
		old.Drop()
	}
	return o
}

// same says whether an object has these attributes.
func same(o *tokens.Object, attrs p11.Attributes) bool {
	a, err := o.Acquire()
	if err != nil {
		return false
	}
	defer o.Release()
	return len(a) == len(attrs) && a.Match(attrs)
}

// hideLocked takes an object out of the index.
func (s *objects) hideLocked(k *known) {
	if k.handle == 0 {
		return
	}
	if o := s.Index.Remove(k.handle); o != nil {
		o.Drop()
	}
	k.handle = 0
}

func (s *objects) forgetLocked(h icsfwire.Handle) {
	if k := s.known[h]; k != nil {
		s.hideLocked(k)
		delete(s.known, h)
	}
}

// in and out say that the user has logged in, and out.
func (s *objects) in() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = true
}

func (s *objects) out() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = false
	for _, k := range s.known {
		if k.private {
			s.hideLocked(k)
		}
	}
}

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

// sent are the attributes of a template as they go to the server. They share their values.
func sent(attrs p11.Attributes) (list p11.Attributes, err error) {
	for _, a := range attrs {
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
	list, err := sent(attrs)
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
	list, err := sent(changed(was, attrs))
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
			list, err := sent(changed(was, attrs))
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
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	for _, h := range list {
		if err := s.destroy(ctx, h); err != nil && !errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID) {
			return err
		}
		s.mu.Lock()
		s.forgetLocked(h)
		s.mu.Unlock()
	}
	return nil
}

// close wipes all that is known.
func (s *objects) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.known {
		s.forgetLocked(h)
	}
}
