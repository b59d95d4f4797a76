package fs

import (
	"context"
	"encoding/hex"
	"strings"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
)

// objectLink is a link to an object's directory.
type objectLink struct {
	objects *objectsDir
	ref     objectRef
}

func (l objectLink) target(ctx context.Context, c caller) (string, error) {
	a, err := l.objects.fs.viewer(c, l.objects.p)
	if err != nil {
		return "", err
	}
	i, err := l.objects.get(ctx, c, l.ref)
	if err != nil {
		return "", err
	}
	return "../objects/" + l.objects.nameOf(ctx, a, i), nil
}

func (f *FS) linkEntry(p place, id string, ref objectRef) *entry {
	return &entry{id: id, place: p, perm: 0o777, moody: true, link: objectLink{f.objects(p), ref}}
}

// byIDDir links to objects by CKA_ID, in lower-case hexadecimal, with the suffix
// of their class. Where several have one, the oldest has the plain name.
type byIDDir struct {
	fs *FS
	p  place
}

func (d *byIDDir) id(ref objectRef) string { return d.p.id() + "by-id/" + ref.uid() }

func (d *byIDDir) list(ctx context.Context, c caller) ([]listed, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return nil, err
	}
	var list []listed
	taken := make(map[string]bool)
	err = a.EachObject(ctx, d.p.slot, nil, func(i engine.ObjectInfo) bool {
		base, ok := idName(i)
		if !ok {
			return true
		}
		name := base + suffix(i.Class)
		if taken[name] {
			name = base + "~" + refOf(i).uid() + suffix(i.Class)
		}
		taken[name] = true
		list = append(list, listed{name: name, id: d.id(refOf(i)), kind: syscall.S_IFLNK})
		return ctx.Err() == nil
	})
	return list, err
}

// idName is the identifier as a name, for those that fit into one.
func idName(i engine.ObjectInfo) (string, bool) {
	base := hex.EncodeToString(i.ID)
	return base, base != "" && len(base) <= maxBase
}

func (d *byIDDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return nil, err
	}
	base, suf, ok := splitName(name)
	if !ok {
		return nil, errNoObject
	}
	if id, uid, cut := strings.Cut(base, "~"); cut {
		i, err := d.fs.objects(d.p).byUID(ctx, a, uid)
		if err != nil {
			return nil, err
		}
		if own, ok := idName(i); !ok || own != id || suffix(i.Class) != suf {
			return nil, errNoObject
		}
		return d.fs.linkEntry(d.p, d.id(refOf(i)), refOf(i)), nil
	}
	id, err := hex.DecodeString(base)
	if err != nil || hex.EncodeToString(id) != base {
		return nil, errNoObject
	}
	template := p11.Attributes{{Type: p11.CKA_ID, Value: id}}
	if class, ok := classOf(suf); ok {
		template.Set(p11.CKA_CLASS, p11.Ulong(class))
	}
	found, err := a.Objects(ctx, d.p.slot, template)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if suffix(i.Class) == suf {
			return d.fs.linkEntry(d.p, d.id(refOf(i)), refOf(i)), nil
		}
	}
	return nil, errNoObject
}

// byUIDDir links to token objects by their stored names, which no other object
// ever gets.
type byUIDDir struct {
	fs *FS
	p  place
}

func (d *byUIDDir) id(ref objectRef) string { return d.p.id() + "by-uid/" + ref.uid() }

func (d *byUIDDir) list(ctx context.Context, c caller) ([]listed, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return nil, err
	}
	var list []listed
	err = a.EachObject(ctx, d.p.slot, nil, func(i engine.ObjectInfo) bool {
		if i.Token {
			list = append(list, listed{name: refOf(i).uid(), id: d.id(refOf(i)), kind: syscall.S_IFLNK})
		}
		return ctx.Err() == nil
	})
	return list, err
}

func (d *byUIDDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return nil, err
	}
	stored, ok := unescape(name)
	if !ok {
		return nil, errNoObject
	}
	i, err := a.ObjectNamed(ctx, d.p.slot, stored)
	if err != nil {
		return nil, err
	}
	return d.fs.linkEntry(d.p, d.id(refOf(i)), refOf(i)), nil
}
