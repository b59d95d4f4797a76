package fs

import (
	"context"
	"encoding/hex"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/p11"
)

// linkTo is a link of the directory dir to an object's directory.
func (o objects) linkTo(dir string, ref objectRef) *entry {
	target := func(ctx context.Context, c caller) (string, error) {
		a, err := o.viewer(c)
		if err != nil {
			return "", err
		}
		i, err := o.describe(ctx, c, ref)
		if err != nil {
			return "", err
		}
		return "../objects/" + o.nameOf(ctx, a, i), nil
	}
	return &entry{place: o.place, path: dir + ref.uid(), perm: 0o777, link: target}
}

// byIDDir links to objects by CKA_ID, in lower-case hexadecimal, with the suffix
// of their class. Where several have one, the oldest private one has the plain name, or else
// the oldest.
type byIDDir struct {
	fixedNames
	objects
}

func (d *byIDDir) list(ctx context.Context, c caller) (entries, error) {
	return d.long(ctx, c, idName, func(name string, i engine.ObjectInfo) fuse.DirEntry {
		return d.dirEntry(name, "by-id/"+refOf(i).uid(), syscall.S_IFLNK)
	})
}

// idName is the name by CKA_ID, for those that fit into one.
func idName(i engine.ObjectInfo) (n plainName, ok bool) {
	n = plainName{base: hex.EncodeToString(i.ID), suffix: suffix(i.Class), source: fromID, public: !i.Private}
	return n, n.base != "" && len(n.base) <= maxBase
}

func (d *byIDDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	a, err := d.viewer(c)
	if err != nil {
		return nil, err
	}
	base, suf, _ := splitName(name)
	i, err := engine.ObjectInfo{}, error(errNoObject)
	if _, uid, full := strings.Cut(base, "~"); full {
		i, err = d.byUID(ctx, a, uid)
		if n, ok := idName(i); err == nil && (!ok || n.full(refOf(i)) != name) {
			err = errNoObject
		}
	} else if id, ok := decodeID(base); ok {
		i, err = d.first(ctx, a, suf, p11.CKA_ID, id, func(i engine.ObjectInfo) bool { return suffix(i.Class) == suf })
	}
	if err != nil {
		return nil, err
	}
	return d.linkTo("by-id/", refOf(i)), nil
}

// byUIDDir links to token objects by their stored names, which no other object
// ever gets.
type byUIDDir struct {
	fixedNames
	objects
}

func (d *byUIDDir) list(ctx context.Context, c caller) (entries, error) {
	return d.long(ctx, c, uidName, func(name string, _ engine.ObjectInfo) fuse.DirEntry {
		return d.dirEntry(name, "by-uid/"+name, syscall.S_IFLNK)
	})
}

// uidName is the name of a token object by its uid.
func uidName(i engine.ObjectInfo) (plainName, bool) {
	return plainName{base: refOf(i).uid(), source: fromUID}, i.Token
}

func (d *byUIDDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	a, err := d.viewer(c)
	if err != nil {
		return nil, err
	}
	i, err := d.byUID(ctx, a, name)
	if err != nil {
		return nil, err
	}
	if !i.Token {
		return nil, errNoObject
	}
	return d.linkTo("by-uid/", refOf(i)), nil
}
