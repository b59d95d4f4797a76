package tokens

import (
	"cmp"
	"runtime"
	"slices"
	"sync"

	"p11fs/p11"
)

// A Placed is an object and its place in the order (Index.PutAt).
type Placed struct {
	Object *Object
	Place  uint64
}

// bulk is from how many on objects are many.
const bulk = 64

// PutAllAt is PutAt of many objects in a part of the time: each tree gets them in its own
// order, and all trees do at once. An object with handle 0 is a new one, and gets a handle.
func (x *Index) PutAllAt(list []Placed) (old []*Object) {
	var items []*item
	many := len(list) >= bulk
	if many {
		items = x.itemsOf(list)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var fresh []*item
	var sides [2][]*item
	taken := make(map[p11.ObjectHandle]bool, len(items))
	for i, p := range list {
		x.next = max(x.next, p.Place+1)
		isNew := p.Object.Handle == 0
		for p.Object.Handle == 0 {
			if h := NewHandle(); !taken[h] && !x.handles.Has(byHandle{handle: h}) {
				p.Object.Handle, taken[h] = h, true
			}
		}
		if !isNew || !many {
			if o := x.putLocked(p.Object, p.Place); o != nil {
				old = append(old, o)
			}
			continue
		}
		it := items[i]
		it.handle = it.obj.Handle
		fresh = append(fresh, it)
		if it.obj.Private {
			sides[1] = append(sides[1], it)
		} else {
			sides[0] = append(sides[0], it)
			x.publicSize += it.size
		}
	}
	x.fillLocked(fresh, sides)
	for _, it := range fresh {
		x.tellLocked(nil, it.obj)
	}
	return old
}

// itemsOf returns the items of the new objects of list, at their places there.
func (x *Index) itemsOf(list []Placed) []*item {
	items := make([]*item, len(list))
	part := (len(list) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for from := 0; from < len(list); from += part {
		wg.Go(func() {
			for i := from; i < min(from+part, len(list)); i++ {
				if p := list[i]; p.Object.Handle == 0 {
					items[i] = x.itemOf(p.Object, p.Place)
				}
			}
		})
	}
	wg.Wait()
	return items
}

// fillLocked puts new items into the trees, of which each is one goroutine's.
func (x *Index) fillLocked(fresh []*item, sides [2][]*item) {
	var wg sync.WaitGroup
	fill := func(items []*item, in func(*item) bool, order func(a, b *item) int, insert func(*item)) {
		wg.Go(func() {
			sorted := slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return !in(it) })
			slices.SortFunc(sorted, order)
			for _, it := range sorted {
				insert(it)
			}
		})
	}
	fill(fresh, func(*item) bool { return true },
		func(a, b *item) int { return cmp.Compare(a.handle, b.handle) },
		func(it *item) { x.handles.ReplaceOrInsert(byHandle{it.handle, it}) })
	fill(fresh, func(it *item) bool { return it.name != "" },
		func(a, b *item) int { return cmp.Compare(a.name, b.name) },
		func(it *item) { x.names.ReplaceOrInsert(it) })
	for i, ts := range []*trees{&x.public, &x.private} {
		for k, tree := range ts {
			fill(sides[i], func(it *item) bool { return it.has[k] }, byKey(k), func(it *item) { tree.ReplaceOrInsert(it) })
		}
	}
	wg.Wait()
}

// RemoveAll takes out all private objects, and the public ones too if they are to go, and
// returns them for the caller to drop.
func (x *Index) RemoveAll(public bool) (gone []*Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var items []*item
	take := func(it *item) bool { items = append(items, it); return true }
	x.private[byOrder].Ascend(take)
	x.private = newTrees()
	if public {
		x.public[byOrder].Ascend(take)
		x.public, x.publicSize = newTrees(), 0
		x.handles.Clear(false)
		x.names.Clear(false)
	} else {
		for _, it := range items {
			x.handles.Delete(byHandle{handle: it.handle})
			if it.name != "" {
				x.names.Delete(it)
			}
		}
	}
	for _, it := range items {
		x.tellLocked(it.obj, nil)
		gone = append(gone, it.obj)
	}
	return gone
}
