package tokens

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
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

	mu   sync.RWMutex // guards all below; Object.mu is locked under it
	next uint64       // of the next object that Put orders
	// The trees share their items, which never change once they are in.
	handles         *btree.BTreeG[byHandle]
	names           *btree.BTreeG[*item]
	public, private trees
	publicSize      int // the sizes of public objects together
	heard           map[*func(old, now *Object)]struct{}
}

// Tell has heard called after each change from now on, until stop: old is the version that is
// no more, nil of a new object, and now the newest one, nil of one that is gone. heard only
// takes note: the index is locked meanwhile, and so may be whoever changes it.
func (x *Index) Tell(heard func(old, now *Object)) (stop func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.heard == nil {
		x.heard = make(map[*func(old, now *Object)]struct{})
	}
	x.heard[&heard] = struct{}{}
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.heard, &heard)
	}
}

func (x *Index) tellLocked(old, now *Object) {
	for heard := range x.heard {
		(*heard)(old, now)
	}
}

// trees are those that are searched. Private objects have their own: a search that
// may not find them would take the longer the more there are.
type trees [keys]*btree.BTreeG[*item]

// What objects are found by besides. Every item has the last, of one value. Labels and ids stand in an item as hashes: what
// a tree finds by them is compared with the attributes.
const (
	byID = iota
	byLabel
	byClass
	byOrder
	keys
)

// An item is one object in the trees.
type item struct {
	handle p11.ObjectHandle
	name   string
	seq    uint64
	key    [keys]uint64
	has    [keys]bool
	size   int // see SizeOf
	obj    *Object
}

// byHandle is an item in the tree that every use of an object looks into: what it is
// looked for by takes no memory.
type byHandle struct {
	handle p11.ObjectHandle
	*item
}

// degree is the order of the trees: nodes of up to 63 items.
const degree = 32

// NewIndex returns an index without objects.
func NewIndex() *Index {
	return &Index{
		seed:    maphash.MakeSeed(),
		handles: btree.NewG(degree, func(a, b byHandle) bool { return a.handle < b.handle }),
		names:   btree.NewG(degree, func(a, b *item) bool { return a.name < b.name }),
		public:  newTrees(),
		private: newTrees(),
	}
}

func newTrees() (ts trees) {
	for k := range ts {
		compare := byKey(k)
		ts[k] = btree.NewG(degree, func(a, b *item) bool { return compare(a, b) < 0 })
	}
	return ts
}

// byKey compares items as the tree of that key has them.
func byKey(k int) func(a, b *item) int {
	return func(a, b *item) int {
		if a.key[k] != b.key[k] {
			return cmp.Compare(a.key[k], b.key[k])
		}
		return inOrder(a, b)
	}
}

func inOrder(a, b *item) int {
	if a.seq != b.seq {
		return cmp.Compare(a.seq, b.seq)
	}
	return cmp.Compare(a.handle, b.handle)
}

// of returns the trees of the item.
func (x *Index) of(it *item) *trees {
	if it.obj.Private {
		return &x.private
	}
	return &x.public
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
	it := x.itemOf(o, seq)
	if was, ok := x.handles.Get(byHandle{handle: it.handle}); ok {
		old, it.seq = was.obj, was.seq
		x.removeLocked(was.item)
	}
	x.handles.ReplaceOrInsert(byHandle{it.handle, it})
	if it.name != "" {
		x.names.ReplaceOrInsert(it)
	}
	if !o.Private {
		x.publicSize += it.size
	}
	for k, tree := range x.of(it) {
		if it.has[k] {
			tree.ReplaceOrInsert(it)
		}
	}
	x.tellLocked(old, o)
	return old
}

// itemOf returns what stands in the trees for an object.
func (x *Index) itemOf(o *Object, seq uint64) *item {
	it := &item{handle: o.Handle, name: o.Name, seq: seq, has: [keys]bool{byOrder: true}, obj: o}
	o.Look(func(attrs iter.Seq[p11.Attribute]) {
		x.describe(it, attrs)
		it.size = sizeOf(attrs)
	})
	return it
}

// describe fills in what attrs, an object's or a template's, say of the keys.
func (x *Index) describe(it *item, attrs iter.Seq[p11.Attribute]) {
	for a := range attrs {
		switch a.Type {
		case p11.CKA_CLASS:
			if c, err := p11.ToUlong(a.Value); err == nil {
				it.key[byClass], it.has[byClass] = c, true
			}
		case p11.CKA_ID:
			it.key[byID], it.has[byID] = maphash.Bytes(x.seed, a.Value), true
		case p11.CKA_LABEL:
			it.key[byLabel], it.has[byLabel] = maphash.Bytes(x.seed, a.Value), true
		}
	}
}

// Remove takes the object out and returns it, nil if there is none, for the
// caller to drop.
func (x *Index) Remove(h p11.ObjectHandle) *Object {
	x.mu.Lock()
	defer x.mu.Unlock()
	it, ok := x.handles.Get(byHandle{handle: h})
	if !ok {
		return nil
	}
	x.removeLocked(it.item)
	x.tellLocked(it.obj, nil)
	return it.obj
}

func (x *Index) removeLocked(it *item) {
	x.handles.Delete(byHandle{handle: it.handle})
	if it.name != "" {
		x.names.Delete(it)
	}
	if !it.obj.Private {
		x.publicSize -= it.size
	}
	for k, tree := range x.of(it) {
		if it.has[k] {
			tree.Delete(it)
		}
	}
}

// Get returns the newest version of the object, or nil.
func (x *Index) Get(h p11.ObjectHandle) *Object {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if it, ok := x.handles.Get(byHandle{handle: h}); ok {
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
	return x.public[byOrder].Len(), x.private[byOrder].Len()
}

// PublicSize is the size of all public objects together.
func (x *Index) PublicSize() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.publicSize
}

// NewHandle is a new handle that no object of the index has.
func (x *Index) NewHandle() p11.ObjectHandle {
	for {
		if h := NewHandle(); x.Get(h) == nil {
			return h
		}
	}
}

// Find returns the objects that match every attribute of template, in the order
// in which they were made, private ones only if they are wanted. It looks through the
// objects that share the template's class, label or id, whichever are fewest, and never
// at a private one that is not wanted. When ctx ends it gives up.
func (x *Index) Find(ctx context.Context, template p11.Attributes, private bool) ([]*Object, error) {
	want := &item{has: [keys]bool{byOrder: true}}
	x.describe(want, slices.Values(template))
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []*item
	looked := 0
	look := func(it *item) bool {
		if looked++; looked%findCheck == 0 && ctx.Err() != nil {
			return false
		}
		if it.obj.matches(template) {
			found = append(found, it)
		}
		return true
	}
	x.public.narrowest(want)(look)
	public := found
	if found = nil; private {
		x.private.narrowest(want)(look)
	}
	if err := ctx.Err(); err != nil {
		return nil, p11.Errorf(p11.CKR_FUNCTION_CANCELED, "interrupted: %w", err)
	}
	return inOneOrder(public, found), nil
}

// inOneOrder returns the objects of two lists, each of which is in order.
func inOneOrder(a, b []*item) []*Object {
	objects := make([]*Object, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		next := &a
		if len(a) == 0 || len(b) > 0 && inOrder(b[0], a[0]) < 0 {
			next = &b
		}
		objects = append(objects, (*next)[0].obj)
		*next = (*next)[1:]
	}
	return objects
}

// findCheck is how many objects a search looks at between two looks at its context.
const findCheck = 256

// A walk calls f for some items in order until f returns false.
type walk func(f func(*item) bool)

// narrowest returns the walk over the fewest items that takes in all that
// can match. The trees do not count a range, so the ranges are counted up to a
// limit that doubles until one of them stays below it.
func (ts *trees) narrowest(want *item) walk {
	var walks []walk
	for k, tree := range ts {
		if want.has[k] {
			walks = append(walks, func(f func(*item) bool) {
				tree.AscendGreaterOrEqual(&item{key: want.key}, func(it *item) bool {
					return it.key[k] == want.key[k] && f(it)
				})
			})
		}
	}
	if len(walks) == 1 {
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
