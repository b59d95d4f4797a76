package icsf

import (
	"context"
	"errors"
	"fmt"
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
	many   bool                     // the server has more objects than are listed
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
	if class == p11.CKO_PRIVATE_KEY && !a.Has(p11.CKA_ALWAYS_AUTHENTICATE) {
		a.SetBool(p11.CKA_ALWAYS_AUTHENTICATE, false) // for which ICSF has no word, and programs ask
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

// list returns the handles of the objects of the token itself, up to most, and whether there
// may be more. A server that lists one again has no others.
func (s *objects) list(ctx context.Context, most int) (list []icsfwire.Handle, more bool, err error) {
	seen := make(map[icsfwire.Handle]bool)
	for last := icsfwire.TokenHandle(s.name); ; {
		var out icsfwire.ObjectList
		r := &icsfwire.Request{Handle: last, Rules: []string{"OBJECT"}, Data: &icsfwire.ListObjects{Room: page * icsfwire.HandleSize, Max: page}}
		if _, err := s.conn.Call(ctx, r, &out); err != nil {
			return nil, false, err
		}
		before := last
		for b := out.Handles; len(b) >= icsfwire.HandleSize; b = b[icsfwire.HandleSize:] {
			h, err := icsfwire.ParseHandle(b[:icsfwire.HandleSize])
			if err != nil || !h.IsObject() || h.Token() != s.name {
				return nil, false, p11.Errorf(p11.CKR_DEVICE_ERROR, "the server lists what is no object of the token")
			}
			if seen[h] {
				return list, false, nil
			}
			if len(seen) == most {
				return list, true, nil
			}
			seen[h] = true
			if last = h; !h.IsSession() {
				list = append(list, h)
			}
		}
		if last == before {
			return list, false, nil
		}
	}
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
	list, many, err := s.list(ctx, maxObjects)
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
	s.listed, s.many = time.Now(), many
	s.mu.Unlock()
	return s.readAll(ctx, stale)
}

// Damaged is tokens.Inspector: objects that are not seen are told.
func (s *objects) Damaged() []tokens.Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.many {
		return nil
	}
	return []tokens.Damage{{File: "on the server", Why: fmt.Sprintf("there are more than %d objects, and the others are not seen: %s", maxObjects, tokens.ManyAdvice)}}
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

// close wipes all that is known.
func (s *objects) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.known {
		s.forgetLocked(h)
	}
}
