package fs

import (
	"context"
	"hash/maphash"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
)

// A nameList is the names of the objects that somebody saw at one moment. They are made when
// they are asked for: it holds of each object whether the plain name is its own, however many
// there are.
type nameList struct {
	found *engine.Listing
	// name is the plain name of an object; false for one that has none in this list.
	name func(engine.ObjectInfo) (plainName, bool)

	seed maphash.Seed
	own  []uint64 // by place, the plain name's hash; 0 of an object that has a full name
}

// A nameOwner is the object that has a plain name, of those seen so far.
type nameOwner struct {
	place int32
	name  plainName // without its text
}

// named returns the names of all objects that a may see, the oldest first.
func (o objects) named(ctx context.Context, a *engine.Application, name func(engine.ObjectInfo) (plainName, bool)) (*nameList, error) {
	found, err := a.List(ctx, o.slot, nil)
	if err != nil {
		return nil, err
	}
	l := &nameList{found: found, name: name, seed: maphash.MakeSeed(), own: make([]uint64, found.Len())}
	owners := make(map[uint64]nameOwner)
	err = found.Names(ctx, 0, func(place int, i engine.ObjectInfo) bool {
		n, ok := name(i)
		if !ok || n.cut {
			return true
		}
		hash := l.hash(n)
		owner, taken := owners[hash]
		if !taken || n.before(owner.name) {
			owners[hash] = nameOwner{int32(place), plainName{source: n.source, public: n.public}}
		}
		return true
	})
	for hash, owner := range owners {
		l.own[owner.place] = hash
	}
	return l, err
}

// hash stands for a plain name. Two names of one hash only have one of them be full, which
// leads to its object as well.
func (l *nameList) hash(n plainName) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	_, _ = h.WriteString(n.base)
	_, _ = h.WriteString(n.suffix)
	return max(1, h.Sum64())
}

// each calls f with the names from a place on until it returns false. An object that was
// renamed since has its new plain name, if that is not the name of another in the list.
func (l *nameList) each(ctx context.Context, from int, f func(place int, name string, i engine.ObjectInfo) bool) error {
	err := l.found.Names(ctx, from, func(place int, i engine.ObjectInfo) bool {
		n, ok := l.name(i)
		switch {
		case ctx.Err() != nil:
			return false
		case !ok:
			return true
		case n.cut || !l.owns(place, l.hash(n)):
			return f(place, n.full(refOf(i)), i)
		}
		return f(place, n.String(), i)
	})
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// owns reports whether the plain name of that hash is the one of the object at a place. One that
// was renamed takes a name that nobody had.
func (l *nameList) owns(place int, hash uint64) bool {
	switch was := l.own[place]; {
	case was == hash:
		return true
	case was == 0 || slices.Contains(l.own, hash):
		return false
	}
	l.own[place] = hash
	return true
}

// A longDir is the entries of a directory that has one for each object.
type longDir struct {
	*nameList
	entry func(name string, i engine.ObjectInfo) fuse.DirEntry
}

// long returns the entries of a directory of the objects that the caller may see.
func (o objects) long(ctx context.Context, c caller, name func(engine.ObjectInfo) (plainName, bool), entry func(string, engine.ObjectInfo) fuse.DirEntry) (entries, error) {
	a, err := o.viewer(c)
	if err != nil {
		return nil, err
	}
	names, err := o.named(ctx, a, name)
	if err != nil {
		return nil, err
	}
	return longDir{names, entry}, nil
}

// pieceLen is how many names of a long directory are made at once.
const pieceLen = 512

func (d longDir) len() int { return d.found.Len() }

func (d longDir) size(places int) int { return places * placeSize }

func (d longDir) from(ctx context.Context, place int) ([]fuse.DirEntry, error) {
	piece := make([]fuse.DirEntry, 0, min(pieceLen, d.len()-place))
	err := d.each(ctx, place, func(place int, name string, i engine.ObjectInfo) bool {
		e := d.entry(name, i)
		e.Off = uint64(place + 1)
		piece = append(piece, e)
		return len(piece) < pieceLen
	})
	return piece, err
}

// What a listing holds of each place, and of each name that it has made, in bytes. That of the
// first places counts for nothing in the first listings of a uid (freeDirs).
const (
	placeSize  = 16
	nameSize   = 128
	placesFree = 4096
)

// heldPlaces is how many places of a listing count.
func heldPlaces(n int) int { return max(0, n-placesFree) }
