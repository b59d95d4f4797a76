package fs

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/p11"
)

// objects finds objects by their names. A directory of objects embeds it.
type objects struct{ place }

// get returns the object, or an error if the caller may not see it.
func (o objects) get(ctx context.Context, c caller, ref objectRef) (engine.ObjectInfo, error) {
	a, err := o.viewer(c)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	i, err := o.info(ctx, a, ref)
	if err == nil && o.emptied(c, ref) {
		i.Wipe()
		i.Attrs = slices.Clone(i.Attrs)
		i.Attrs.Set(p11.CKA_VALUE, []byte{})
		i.Length = 0
	}
	return i, err
}

// describe is get without secret values, for what needs none: a stat copies no value
// to know its length.
func (o objects) describe(ctx context.Context, c caller, ref objectRef) (engine.ObjectInfo, error) {
	a, err := o.viewer(c)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	i, err := o.outline(ctx, a, ref)
	if err == nil && o.emptied(c, ref) {
		i.Length = 0
	}
	return i, err
}

// emptied reports whether the caller has taken the content of the object: see blob.
func (o objects) emptied(c caller, ref objectRef) bool {
	own := o.fs.callers.find(c)
	return own != nil && own.hasEmptied(o.slot, ref)
}

// times returns those of the object (see entry).
func (o objects) times(ref objectRef) func(ctx context.Context, c caller) (times, error) {
	return func(ctx context.Context, c caller) (times, error) {
		i, err := o.describe(ctx, c, ref)
		return times{i.Changed, i.Dated}, err
	}
}

// info is get among what a may see.
func (o objects) info(ctx context.Context, a *engine.Application, ref objectRef) (engine.ObjectInfo, error) {
	if ref.stored != "" {
		return a.ObjectNamed(ctx, o.slot, ref.stored)
	}
	return a.Object(ctx, o.slot, ref.handle)
}

// outline is describe among what a may see.
func (o objects) outline(ctx context.Context, a *engine.Application, ref objectRef) (engine.ObjectInfo, error) {
	if ref.stored != "" {
		return a.DescribeObjectNamed(ctx, o.slot, ref.stored)
	}
	return a.DescribeObject(ctx, o.slot, ref.handle)
}

// exists reports whether a sees the object.
func (o objects) exists(ctx context.Context, a *engine.Application, h p11.ObjectHandle) bool {
	_, err := a.DescribeObject(ctx, o.slot, h)
	return err == nil
}

// each calls f with the names of the objects that a may see and that match (EachName), the
// oldest first, until f returns false.
func (o objects) each(ctx context.Context, a *engine.Application, template p11.Attributes, f func(engine.ObjectInfo) bool) error {
	err := a.EachName(ctx, o.slot, template, func(i engine.ObjectInfo) bool { return ctx.Err() == nil && f(i) })
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// An objectName is one object of a listing.
type objectName struct {
	name string
	ref  objectRef
}

// all returns the names of the objects that match, the oldest first.
func (o objects) all(ctx context.Context, a *engine.Application, template p11.Attributes) ([]objectName, error) {
	var list []objectName
	if len(template) > 0 {
		// The template may leave out the object whose name another would have: so
		// each name is looked up.
		err := o.each(ctx, a, template, func(i engine.ObjectInfo) bool {
			list = append(list, objectName{o.nameOf(ctx, a, i), refOf(i)})
			return true
		})
		return list, err
	}
	names, err := o.named(ctx, a, ownName)
	if err != nil {
		return nil, err
	}
	err = names.each(ctx, 0, func(_ int, name string, i engine.ObjectInfo) bool {
		list = append(list, objectName{name, refOf(i)})
		return true
	})
	return list, err
}

// ownName is plainNameOf: every object has a name.
func ownName(i engine.ObjectInfo) (plainName, bool) { return plainNameOf(i), true }

// nameOf is the object's name among those that a may see.
func (o objects) nameOf(ctx context.Context, a *engine.Application, i engine.ObjectInfo) string {
	n := plainNameOf(i)
	if owner, err := o.owner(ctx, a, n.base, n.suffix); n.cut || err == nil && refOf(owner) != refOf(i) {
		return n.full(refOf(i))
	}
	return n.String()
}

// owner returns the object that has the plain name. It searches by index, and
// never through all objects.
func (o objects) owner(ctx context.Context, a *engine.Application, base, suf string) (engine.ObjectInfo, error) {
	var public engine.ObjectInfo
	none := error(errNoObject)
	for _, source := range []nameSource{fromLabel, fromID, fromUID} {
		i, err := o.ownerBy(ctx, a, base, suf, source)
		switch {
		case errors.Is(err, errNoObject):
		case err != nil || i.Private:
			return i, err
		case none != nil:
			public, none = i, nil
		}
	}
	return public, none
}

// ownerBy is owner among the objects that have their names from source.
func (o objects) ownerBy(ctx context.Context, a *engine.Application, base, suf string, source nameSource) (engine.ObjectInfo, error) {
	is := func(i engine.ObjectInfo) bool {
		n := plainNameOf(i)
		return n.source == source && n.base == base && n.suffix == suf && !n.cut
	}
	switch source {
	case fromLabel:
		if label, ok := unescape(base); ok {
			return o.first(ctx, a, suf, p11.CKA_LABEL, []byte(label), is)
		}
	case fromID:
		if id, ok := decodeID(base); ok {
			return o.first(ctx, a, suf, p11.CKA_ID, id, is)
		}
	case fromUID:
		if i, err := o.byUID(ctx, a, base); err == nil && is(i) {
			return i, nil
		}
	}
	return engine.ObjectInfo{}, errNoObject
}

// first returns the oldest object with that attribute, whose name ends in suf, of
// those that fit: of the private ones, if there are any.
func (o objects) first(ctx context.Context, a *engine.Application, suf string, t p11.AttributeType, value []byte, fits func(engine.ObjectInfo) bool) (engine.ObjectInfo, error) {
	var template p11.Attributes
	if class, ok := classOf(suf); ok {
		template = ofClass(class)
	}
	template.Set(t, value)
	found, err := a.Objects(ctx, o.slot, template)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	n := slices.IndexFunc(found, func(i engine.ObjectInfo) bool { return i.Private && fits(i) })
	if n < 0 {
		n = slices.IndexFunc(found, fits)
	}
	if n < 0 {
		return engine.ObjectInfo{}, errNoObject
	}
	return found[n], nil
}

func ofClass(class p11.ObjectClass) p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(class)}}
}

// decodeID is the CKA_ID that has that name.
func decodeID(name string) ([]byte, bool) {
	id, err := hex.DecodeString(name)
	return id, err == nil && len(id) > 0 && hex.EncodeToString(id) == name
}

// byUID returns the object with that uid, as a search does: without secret values.
func (o objects) byUID(ctx context.Context, a *engine.Application, uid string) (engine.ObjectInfo, error) {
	var i engine.ObjectInfo
	err := error(errNoObject)
	switch {
	case uid == "":
	case uid[0] == handleMark:
		if h, notHex := strconv.ParseUint(uid[1:], 16, 64); notHex == nil {
			i, err = a.DescribeObject(ctx, o.slot, p11.ObjectHandle(h))
		}
	case uid[0] == hashMark:
		err = o.each(ctx, a, nil, func(next engine.ObjectInfo) bool {
			i = next
			return refOf(i).uid() != uid
		})
		if err == nil && refOf(i).uid() == uid {
			i, err = o.outline(ctx, a, refOf(i))
		}
	default:
		if stored, ok := decode(uid); ok {
			i, err = a.DescribeObjectNamed(ctx, o.slot, stored)
		}
	}
	if err == nil && refOf(i).uid() != uid {
		err = errNoObject
	}
	return i, err
}

// find returns the object that the caller sees under that name.
func (o objects) find(ctx context.Context, c caller, name string) (engine.ObjectInfo, error) {
	a, err := o.viewer(c)
	if err != nil {
		return engine.ObjectInfo{}, err
	}
	return o.findIn(ctx, a, name)
}

// findIn is find among what a may see.
func (o objects) findIn(ctx context.Context, a *engine.Application, name string) (engine.ObjectInfo, error) {
	base, suf, ok := splitName(name)
	if !ok {
		return engine.ObjectInfo{}, errNoObject
	}
	n := strings.LastIndexByte(base, '~')
	if n < 0 {
		return o.owner(ctx, a, base, suf)
	}
	i, err := o.byUID(ctx, a, base[n+1:])
	if err == nil && plainNameOf(i).full(refOf(i)) != name {
		err = errNoObject
	}
	return i, err
}

// remove destroys an object. Below a session directory it destroys session objects
// only: rm -r of the session's directory, which closes the session, must not empty
// the token.
func (o objects) remove(ctx context.Context, c caller, i engine.ObjectInfo) error {
	if i.Token && !o.ref.isDefault() {
		return errBelowSession
	}
	s, err := o.session(ctx, c)
	if err != nil {
		return err
	}
	return s.eng.DestroyObject(ctx, i.Handle)
}

// givesWay says whether the plain name goes from old to i, where i gets the label
// that old has.
func givesWay(old, i engine.ObjectInfo) bool {
	return i.Private && !old.Private && refOf(old) != refOf(i)
}

func (o objects) relabel(ctx context.Context, c caller, i engine.ObjectInfo, label string) error {
	s, err := o.session(ctx, c)
	if err != nil {
		return err
	}
	return s.eng.SetAttributeValue(ctx, i.Handle, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}})
}

// namesOf are the names of objects just made, one a line. No interrupt takes them
// away: what is made is made.
func (o objects) namesOf(ctx context.Context, a *engine.Application, handles ...p11.ObjectHandle) ([]byte, error) {
	ctx = context.WithoutCancel(ctx)
	var b bytes.Buffer
	for _, h := range handles {
		i, err := a.DescribeObject(ctx, o.slot, h)
		if err != nil {
			return nil, err
		}
		b.WriteString(o.nameOf(ctx, a, i) + "\n")
	}
	return b.Bytes(), nil
}

// objectsDir is the directory objects, which has one directory an object.
type objectsDir struct {
	fixedNames
	objects
}

func (d *objectsDir) list(ctx context.Context, c caller) (entries, error) {
	return d.long(ctx, c, ownName, func(name string, i engine.ObjectInfo) fuse.DirEntry {
		return d.dirEntry(name, refOf(i).path(), syscall.S_IFDIR)
	})
}

// path is the path of the object's directory below a place.
func (r objectRef) path() string { return "objects/" + r.uid() }

func (d *objectsDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	i, err := d.find(ctx, c, name)
	if label, public := strings.CutSuffix(name, ".pub"); public && errors.Is(err, errNoObject) {
		if _, err := d.find(ctx, c, label+".key"); err == nil {
			return nil, errHalf
		}
	}
	if err != nil {
		return nil, err
	}
	ref := refOf(i)
	return &entry{place: d.place, path: ref.path(), perm: 0o770, dir: &objectDir{objects: d.objects, ref: ref}, times: d.times(ref)}, nil
}

// rmdir destroys an object.
func (d *objectsDir) rmdir(ctx context.Context, c caller, name string) error {
	i, err := d.find(ctx, c, name)
	if err != nil {
		return err
	}
	return d.remove(ctx, c, i)
}

// mkdir refuses: it would make an object of nothing, and cp -r one that is not what it
// copies.
func (*objectsDir) mkdir(context.Context, caller, string) (*entry, error) {
	return nil, errObjectFolder
}

// unlink refuses: objects are directories.
func (d *objectsDir) unlink(context.Context, caller, string) error { return errDir }

// rename sets the label. It never replaces: the objects are directories that are
// not empty.
func (d *objectsDir) rename(ctx context.Context, c caller, name, newName string, _ bool) error {
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
	if other, err := d.find(ctx, c, newName); err == nil && !givesWay(other, i) {
		if refOf(other) == refOf(i) {
			return nil
		}
		return errExists
	}
	return d.relabel(ctx, c, i, label)
}
