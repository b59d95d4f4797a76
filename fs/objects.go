package fs

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"p11fs/engine"
	"p11fs/p11"
)

// objectsDir is the directory objects: one directory an object.
type objectsDir struct {
	fs *FS
	p  place
}

func (f *FS) objects(p place) *objectsDir { return &objectsDir{fs: f, p: p} }

// get returns the object, or an error when the caller may not see it.
func (d *objectsDir) get(ctx context.Context, c caller, ref objectRef) (engine.ObjectInfo, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	if own := d.fs.callers.find(c); own != nil {
		own.settle(ctx, d.p, ref)
	}
	return d.infoIn(ctx, a, ref)
}

// infoIn is get among what a may see.
func (d *objectsDir) infoIn(ctx context.Context, a *engine.Application, ref objectRef) (engine.ObjectInfo, error) {
	if ref.stored != "" {
		return a.ObjectNamed(ctx, d.p.slot, ref.stored)
	}
	return a.Object(ctx, d.p.slot, ref.handle)
}

// named is one object of a listing.
type named struct {
	name string
	ref  objectRef
}

// all returns the names of the objects that match, in the order in which they
// were made.
func (d *objectsDir) all(ctx context.Context, a *engine.Application, template p11.Attributes) ([]named, error) {
	// A template may leave out objects that a name is shared with: then each
	// name is looked up.
	if len(template) > 0 {
		var list []named
		err := a.EachObject(ctx, d.p.slot, template, func(i engine.ObjectInfo) bool {
			list = append(list, named{d.nameOf(ctx, a, i), refOf(i)})
			return ctx.Err() == nil
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		return list, nil
	}
	type candidate struct {
		base, suf string
		rank      rank
		cut       bool
		ref       objectRef
	}
	var list []candidate
	owners := make(map[string]int) // of plain names
	err := a.EachObject(ctx, d.p.slot, nil, func(i engine.ObjectInfo) bool {
		base, r, cut := plainName(i)
		n := candidate{base, suffix(i.Class), r, cut, refOf(i)}
		if o, taken := owners[n.base+n.suf]; !cut && (!taken || r < list[o].rank) {
			owners[n.base+n.suf] = len(list)
		}
		list = append(list, n)
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	names := make([]named, len(list))
	for i, n := range list {
		names[i] = named{n.base + n.suf, n.ref}
		if n.cut || owners[names[i].name] != i {
			names[i].name = n.base + "~" + n.ref.uid() + n.suf
		}
	}
	return names, nil
}

// nameOf is the object's name among those that a may see.
func (d *objectsDir) nameOf(ctx context.Context, a *engine.Application, i engine.ObjectInfo) string {
	base, _, cut := plainName(i)
	if cut {
		return fullName(i)
	}
	suf := suffix(i.Class)
	if owner, err := d.owner(ctx, a, base, suf); err == nil && refOf(owner) != refOf(i) {
		return fullName(i)
	}
	return base + suf
}

// owner returns the object that has the plain name. It searches by index, and
// never through all objects.
func (d *objectsDir) owner(ctx context.Context, a *engine.Application, base, suf string) (engine.ObjectInfo, error) {
	first := func(t p11.AttributeType, value []byte, want rank) (engine.ObjectInfo, error) {
		var template p11.Attributes
		if class, ok := classOf(suf); ok {
			template.Set(p11.CKA_CLASS, p11.Ulong(class))
		}
		template.Set(t, value)
		found, err := a.Objects(ctx, d.p.slot, template)
		if err != nil {
			return engine.ObjectInfo{}, err
		}
		for _, i := range found {
			if b, r, cut := plainName(i); b == base && r == want && !cut && suffix(i.Class) == suf {
				return i, nil
			}
		}
		return engine.ObjectInfo{}, errNoObject
	}
	if label, ok := unescape(base); ok {
		if i, err := first(p11.CKA_LABEL, []byte(label), byLabel); !errors.Is(err, errNoObject) {
			return i, err
		}
	}
	if id, err := hex.DecodeString(base); err == nil && len(id) > 0 && hex.EncodeToString(id) == base {
		if i, err := first(p11.CKA_ID, id, byID); !errors.Is(err, errNoObject) {
			return i, err
		}
	}
	if i, err := d.byUID(ctx, a, base); err == nil {
		if b, r, cut := plainName(i); b == base && r == byUID && !cut && suffix(i.Class) == suf {
			return i, nil
		}
	}
	return engine.ObjectInfo{}, errNoObject
}

func (d *objectsDir) byUID(ctx context.Context, a *engine.Application, uid string) (engine.ObjectInfo, error) {
	switch ref := parseUID(uid); {
	case ref.stored != "":
		return a.ObjectNamed(ctx, d.p.slot, ref.stored)
	case ref.handle != 0:
		i, err := a.Object(ctx, d.p.slot, ref.handle)
		if err == nil && i.Name != "" { // a token object's handle is no name
			err = errNoObject
		}
		return i, err
	}
	return engine.ObjectInfo{}, errNoObject
}

// find returns the object that the caller sees under that name.
func (d *objectsDir) find(ctx context.Context, c caller, name string) (engine.ObjectInfo, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	return d.findIn(ctx, a, name)
}

// findIn is find among what a may see.
func (d *objectsDir) findIn(ctx context.Context, a *engine.Application, name string) (engine.ObjectInfo, error) {
	base, suf, ok := splitName(name)
	if !ok {
		return engine.ObjectInfo{}, errNoObject
	}
	if i := strings.LastIndexByte(base, '~'); i >= 0 {
		info, err := d.byUID(ctx, a, base[i+1:])
		if err != nil {
			return engine.ObjectInfo{}, err
		}
		if fullName(info) != name {
			return engine.ObjectInfo{}, errNoObject
		}
		return info, nil
	}
	return d.owner(ctx, a, base, suf)
}

func (d *objectsDir) list(ctx context.Context, c caller) ([]listed, error) {
	a, err := d.fs.viewer(c, d.p)
	if err != nil {
		return nil, err
	}
	names, err := d.all(ctx, a, nil)
	if err != nil {
		return nil, err
	}
	list := make([]listed, len(names))
	for i, n := range names {
		list[i] = listed{name: n.name, id: d.objectID(n.ref), kind: syscall.S_IFDIR}
	}
	return list, nil
}

func (d *objectsDir) objectID(ref objectRef) string { return d.p.id() + "objects/" + ref.uid() }

func (d *objectsDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	i, err := d.find(ctx, c, name)
	if err != nil {
		return nil, err
	}
	ref := refOf(i)
	return &entry{id: d.objectID(ref), place: d.p, perm: 0o770, dir: &objectDir{objects: d, ref: ref}}, nil
}

// rmdir destroys an object. Below a session directory it destroys session
// objects only: rm -r of the session's directory, which closes the session, must
// not empty the token.
func (d *objectsDir) rmdir(ctx context.Context, c caller, name string) error {
	i, err := d.find(ctx, c, name)
	if err != nil {
		return err
	}
	if i.Token && !d.p.ref.self() {
		return errBelowSession
	}
	return d.destroy(ctx, c, i)
}

func (d *objectsDir) destroy(ctx context.Context, c caller, i engine.ObjectInfo) error {
	s, err := d.fs.session(ctx, c, d.p)
	if err != nil {
		return err
	}
	return s.eng.DestroyObject(ctx, i.Handle)
}

// unlink refuses: objects are directories.
func (d *objectsDir) unlink(context.Context, caller, string) error { return errDir }

// rename sets the label.
func (d *objectsDir) rename(ctx context.Context, c caller, name, newName string, _ uint32) error {
	i, err := d.find(ctx, c, name)
	if err != nil {
		return err
	}
	base, suf, ok := splitName(newName)
	label, valid := unescape(base)
	if !ok || suf != suffix(i.Class) || !valid {
		// Not EINVAL: mv would take it for a move into a subdirectory of itself.
		return refuse(syscall.EPERM, p11.CKR_ARGUMENTS_BAD,
			"mv sets the label, and the suffix stays: the new name must end with "+suffix(i.Class)+" and hold no ~ before it")
	}
	if len(base) > maxBase {
		return errLongName
	}
	if other, err := d.find(ctx, c, newName); err == nil {
		if refOf(other) == refOf(i) {
			return nil
		}
		return errExists
	}
	return d.relabel(ctx, c, i, label)
}

func (d *objectsDir) relabel(ctx context.Context, c caller, i engine.ObjectInfo, label string) error {
	s, err := d.fs.session(ctx, c, d.p)
	if err != nil {
		return err
	}
	return s.eng.SetAttributeValue(ctx, i.Handle, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}})
}

// namesOf are the names of objects just made, one a line.
func (d *objectsDir) namesOf(ctx context.Context, a *engine.Application, handles ...p11.ObjectHandle) ([]byte, error) {
	var b []byte
	for _, h := range handles {
		i, err := a.Object(ctx, d.p.slot, h)
		if err != nil {
			return nil, err
		}
		b = append(append(b, d.nameOf(ctx, a, i)...), '\n')
	}
	return b, nil
}

// noReplace says whether rename(2) must not replace.
func noReplace(flags uint32) bool { return flags&unix.RENAME_NOREPLACE != 0 }
