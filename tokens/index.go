package tokens

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/google/btree"

	"p11fs/p11"
)

// NewHandle returns an unpredictable object handle of 48 bits, never 0. The
// caller sees to it that no other object has it.
func NewHandle() p11.ObjectHandle {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:6]); err != nil {
			panic(fmt.Sprintf("tokens: no randomness: %v", err)) // crypto/rand never fails
		}
		if h := p11.ObjectHandle(binary.LittleEndian.Uint64(b[:])); h != 0 {
			return h
		}
	}
}

// An Index finds objects by handle, stored name, class, label and id, in the
// order in which they were made. It holds the newest version of each object and
// no copy of its attributes. All methods may be called at once.
type Index struct {
	seed maphash.Seed

	mu      sync.RWMutex // guards all below; Object.mu is locked under it
	next    uint64       // of the next object that Put orders
	private int          // private objects
	// The trees share their items, which never change once they are in.
	handles, names, order, classes, labels, ids *btree.BTreeG[*item]
}

// An item is one object in the trees. Labels and ids stand in it as hashes: what
// a tree finds by them is compared with the attributes.
type item struct {
	handle           p11.ObjectHandle
	name             string
	seq              uint64
	class, label, id uint64
	has              uint8 // hasClass | …
	obj              *Object
}

const (
	hasClass = 1 << iota
	hasLabel
	hasID
)

// degree is the order of the trees: nodes of up to 63 pointers.
const degree = 32

// NewIndex returns an index without objects.
func NewIndex() *Index {
	inOrder := func(a, b *item) bool {
		if a.seq != b.seq {
			return a.seq < b.seq
		}
		return a.handle < b.handle
	}
	by := func(key func(*item) uint64) *btree.BTreeG[*item] {
		return btree.NewG(degree, func(a, b *item) bool {
			if ka, kb := key(a), key(b); ka != kb {
				return ka < kb
			}
			return inOrder(a, b)
		})
	}
	return &Index{
		seed:    maphash.MakeSeed(),
		handles: btree.NewG(degree, func(a, b *item) bool { return a.handle < b.handle }),
		names:   btree.NewG(degree, func(a, b *item) bool { return a.name < b.name }),
		order:   btree.NewG(degree, inOrder),
		classes: by(func(i *item) uint64 { return i.class }),
		labels:  by(func(i *item) uint64 { return i.label }),
		ids:     by(func(i *item) uint64 { return i.id }),
	}
}

// Put adds o as the newest object, or as the newest version of the object with
// its handle, which keeps its place. It returns the version that o replaces, nil
// if there is none, for the caller to drop.
func (x *Index) Put(o *Object) (old *Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seq := x.next
	x.next++
	return x.putLocked(o, seq)
}

// PutAt is Put with a given place in the order, for a store that knows when its
// objects were made. Objects at one place are ordered by handle.
func (x *Index) PutAt(o *Object, place uint64) (old *Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next = max(x.next, place+1)
	return x.putLocked(o, place)
}

func (x *Index) putLocked(o *Object, seq uint64) (old *Object) {
	it := &item{handle: o.Handle, name: o.Name, seq: seq, obj: o}
	if attrs, err := o.Acquire(); err == nil {
		x.describe(it, attrs)
		o.Release()
	}
	if was, ok := x.handles.Get(it); ok {
		old, it.seq = was.obj, was.seq
		x.removeLocked(was)
	}
	if o.Private {
		x.private++
	}
	x.handles.ReplaceOrInsert(it)
	x.order.ReplaceOrInsert(it)
	if it.name != "" {
		x.names.ReplaceOrInsert(it)
	}
	if it.has&hasClass != 0 {
		x.classes.ReplaceOrInsert(it)
	}
	if it.has&hasLabel != 0 {
		x.labels.ReplaceOrInsert(it)
	}
	if it.has&hasID != 0 {
		x.ids.ReplaceOrInsert(it)
	}
	return old
}

// describe fills in what attrs, an object's or a template's, say of the keys.
func (x *Index) describe(it *item, attrs p11.Attributes) {
	if c, ok := attrs.Class(); ok {
		it.class = uint64(c)
		it.has |= hasClass
	}
	if v, ok := attrs.Get(p11.CKA_LABEL); ok {
		it.label = maphash.Bytes(x.seed, v)
		it.has |= hasLabel
	}
	if v, ok := attrs.Get(p11.CKA_ID); ok {
		it.id = maphash.Bytes(x.seed, v)
		it.has |= hasID
	}
}

// Remove takes the object out and returns it, nil if there is none, for the
// caller to drop.
func (x *Index) Remove(h p11.ObjectHandle) *Object {
	x.mu.Lock()
	defer x.mu.Unlock()
	it, ok := x.handles.Get(&item{handle: h})
	if !ok {
		return nil
	}
	x.removeLocked(it)
	return it.obj
}

func (x *Index) removeLocked(it *item) {
	if it.obj.Private {
		x.private--
	}
	x.handles.Delete(it)
	x.order.Delete(it)
	if it.name != "" {
		x.names.Delete(it)
	}
	if it.has&hasClass != 0 {
		x.classes.Delete(it)
	}
	if it.has&hasLabel != 0 {
		x.labels.Delete(it)
	}
	if it.has&hasID != 0 {
		x.ids.Delete(it)
	}
}

// Get returns the newest version of the object, or nil.
func (x *Index) Get(h p11.ObjectHandle) *Object {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if it, ok := x.handles.Get(&item{handle: h}); ok {
		return it.obj
	}
	return nil
}

// ByName returns the object with that stored name, or nil.
func (x *Index) ByName(name string) *Object {
	if name == "" {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if it, ok := x.names.Get(&item{name: name}); ok {
		return it.obj
	}
	return nil
}

// Counts is the number of public and of private objects.
func (x *Index) Counts() (public, private int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.handles.Len() - x.private, x.private
}

// NewHandle is a new handle that no object of the index has.
func (x *Index) NewHandle() p11.ObjectHandle {
	for {
		if h := NewHandle(); x.Get(h) == nil {
			return h
		}
	}
}

// Ascend calls f for each object that is there now, in the order in which they
// were made, until f returns false. f may use the index.
func (x *Index) Ascend(f func(*Object) bool) {
	x.mu.Lock() // Clone marks the nodes as shared
	order := x.order.Clone()
	x.mu.Unlock()
	order.Ascend(func(it *item) bool { return f(it.obj) })
}

// Find returns the objects that match every attribute of template, in the order
// in which they were made. It looks through the objects that share the
// template's class, label or id, whichever are fewest. When ctx ends it gives up.
func (x *Index) Find(ctx context.Context, template p11.Attributes) ([]*Object, error) {
	want := &item{}
	x.describe(want, template)
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []*Object
	looked := 0
	x.narrowestLocked(want)(func(it *item) bool {
		if looked++; looked%findCheck == 0 && ctx.Err() != nil {
			return false
		}
		attrs, err := it.obj.Acquire()
		if err != nil {
			return true // dropped while we look
		}
		if attrs.Match(template) {
			found = append(found, it.obj)
		}
		it.obj.Release()
		return true
	})
	if err := ctx.Err(); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	return found, nil
}

// findCheck is how many objects a search looks at between two looks at its context.
const findCheck = 256

// A walk calls f for some items in order until f returns false.
type walk func(f func(*item) bool)

// narrowestLocked returns the walk over the fewest items that takes in all that
// can match. The trees do not count a range, so the ranges are counted up to a
// limit that doubles until one of them stays below it.
func (x *Index) narrowestLocked(want *item) walk {
	var walks []walk
	add := func(tree *btree.BTreeG[*item], key func(*item) uint64, from *item) {
		walks = append(walks, func(f func(*item) bool) {
			tree.AscendGreaterOrEqual(from, func(it *item) bool {
				return key(it) == key(from) && f(it)
			})
		})
	}
	if want.has&hasID != 0 {
		add(x.ids, func(i *item) uint64 { return i.id }, &item{id: want.id})
	}
	if want.has&hasLabel != 0 {
		add(x.labels, func(i *item) uint64 { return i.label }, &item{label: want.label})
	}
	if want.has&hasClass != 0 {
		add(x.classes, func(i *item) uint64 { return i.class }, &item{class: want.class})
	}
	switch len(walks) {
	case 0:
		return func(f func(*item) bool) { x.order.Ascend(f) }
	case 1:
		return walks[0]
	}
	for limit := 8; ; limit *= 2 {
		for _, w := range walks {
			n := 0
			w(func(*item) bool { n++; return n < limit })
			if n < limit {
				return w
			}
		}
	}
}
