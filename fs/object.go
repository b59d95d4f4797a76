package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// objectDir is the directory of one object. Its files are views: unlinking one
// does nothing, so that rm -r comes to the rmdir that destroys the object.
type objectDir struct {
	fixedNames
	objects
	ref objectRef
}

func (d *objectDir) path(name string) string { return d.ref.path() + "/" + name }

// object is the object as the caller sees it now.
func (d *objectDir) object(ctx context.Context, c caller) (engine.ObjectInfo, error) {
	return d.get(ctx, c, d.ref)
}

// A view is a text that an object's directory shows. Its error is errNoView if the
// object has none.
type view struct {
	name string
	text func(d *objectDir, ctx context.Context, c caller, i engine.ObjectInfo) ([]byte, error)
	// length is how long the text is, or why there is none. It is nil where a text has no
	// secret value, and is made of what describe returns.
	length func(i engine.ObjectInfo) (int, error)
}

func views() []view {
	return []view{
		{name: "info", text: (*objectDir).infoText},
		{name: "uri", text: (*objectDir).uri},
		{name: "mechanisms", text: (*objectDir).mechanisms},
		{name: "public.pem", text: (*objectDir).publicPEM},
		{name: "public.ssh", text: (*objectDir).publicSSH},
		{name: "cert.pem", text: (*objectDir).certPEM},
		{"value", (*objectDir).value, valueLength},
	}
}

var errNoView = refuse(syscall.ENOENT, p11.CKR_ATTRIBUTE_TYPE_INVALID, "this object has no such file: ls shows those that it has")

func (d *objectDir) list(ctx context.Context, c caller) (entries, error) {
	i, err := d.describe(ctx, c, d.ref)
	if err != nil {
		return nil, err
	}
	list := few{d.dirEntry("attr", d.path("attr"), syscall.S_IFDIR)}
	for _, v := range views() {
		if d.has(ctx, c, v, i) {
			list = append(list, d.dirEntry(v.name, d.path(v.name), syscall.S_IFREG))
		}
	}
	for _, o := range d.fs.ops {
		if _, err := o.byDefault(d.slot, i); err == nil && o.allowed(i) {
			list = append(list, d.dirEntry(o.name, d.path(o.name), syscall.S_IFREG))
		}
	}
	if mayRequest(i) {
		list = append(list, d.dirEntry(csrName, d.path(csrName), syscall.S_IFREG))
	}
	return list, nil
}

func (d *objectDir) has(ctx context.Context, c caller, v view, i engine.ObjectInfo) bool {
	var err error
	if v.length != nil {
		_, err = v.length(i)
	} else {
		_, err = v.text(d, ctx, c, i)
	}
	return err == nil || errors.Is(err, errNoCopy)
}

func (d *objectDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	i, err := d.describe(ctx, c, d.ref)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "copy":
		return &entry{place: d.place, path: d.path(name), perm: 0o660, file: d.copyFile(), times: d.times(d.ref)}, nil
	case name == csrName && mayRequest(i):
		return &entry{place: d.place, path: d.path(name), perm: 0o660, file: d.csrFile(), times: d.times(d.ref)}, nil
	case name == "attr":
		return &entry{place: d.place, path: d.path("attr"), perm: 0o770, dir: &attrDir{object: d}, times: d.times(d.ref)}, nil
	}
	for _, v := range views() {
		if v.name != name {
			continue
		}
		if !d.has(ctx, c, v, i) {
			return nil, errNoView
		}
		text := func(ctx context.Context, c caller) ([]byte, error) {
			i, err := d.object(ctx, c)
			if err != nil {
				return nil, err
			}
			defer i.Wipe()
			return v.text(d, ctx, c, i)
		}
		return &entry{place: d.place, path: d.path(name), perm: 0o440, file: &file{text: text, length: d.length(v)}, times: d.times(d.ref)}, nil
	}
	return d.operation(i, name)
}

// length is file.length of a view.
func (d *objectDir) length(v view) func(ctx context.Context, c caller) (int, error) {
	if v.length == nil {
		return nil
	}
	return func(ctx context.Context, c caller) (int, error) {
		i, err := d.describe(ctx, c, d.ref)
		if err != nil {
			return 0, err
		}
		return v.length(i)
	}
}

// create says why a key has no file of that name.
func (d *objectDir) create(ctx context.Context, c caller, name string, _ uint32) (*entry, *handle, error) {
	i, err := d.object(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	defer i.Wipe()
	n := slices.IndexFunc(d.fs.ops, func(o operation) bool { return o.name == name })
	if n < 0 || !isKey(i.Class) {
		return nil, nil, errFixed
	}
	return nil, nil, p11.Errorf(p11.CKR_FUNCTION_REJECTED, "%w", d.fs.ops[n].refusal(d.slot, i))
}

func (d *objectDir) unlink(ctx context.Context, c caller, name string) error {
	e, err := d.lookup(ctx, c, name)
	if err == nil && e.dir != nil {
		err = errDir
	}
	return err
}

// rmdir does nothing to the folder attr.
func (d *objectDir) rmdir(ctx context.Context, c caller, name string) error {
	e, err := d.lookup(ctx, c, name)
	if err == nil && e.dir == nil {
		err = errNotDir
	}
	return err
}

// infoText is the attributes that may be seen, one a line.
func (d *objectDir) infoText(_ context.Context, _ caller, i engine.ObjectInfo) ([]byte, error) {
	var b bytes.Buffer
	for _, a := range i.Attrs {
		if !i.Attrs.Secret(a.Type) {
			fmt.Fprintf(&b, "%s=%s\n", a.Type.Short(), i.Attrs.FormatValue(a.Type))
		}
	}
	return b.Bytes(), nil
}

func (d *objectDir) uri(ctx context.Context, _ caller, i engine.ObjectInfo) ([]byte, error) {
	t, err := d.slot.TokenInfo(ctx)
	if err != nil {
		return nil, err
	}
	return []byte(pkix.URI(t, i.Attrs) + "\n"), nil
}

// mechanisms is what the key can be used for: an operation, a mechanism, and the
// word default if the operation's name alone stands for it.
func (d *objectDir) mechanisms(_ context.Context, _ caller, i engine.ObjectInfo) ([]byte, error) {
	if !isKey(i.Class) {
		return nil, errNoView
	}
	only, restricted := i.Attrs.Mechanisms()
	var b bytes.Buffer
	for _, o := range d.fs.ops {
		if !o.allowed(i) {
			continue
		}
		byDefault, _ := o.byDefault(d.slot, i)
		for _, m := range d.slot.Mechanisms() {
			facts, known := p11.MechanismFacts(m.Type)
			if m.Flags&o.function == 0 || known && !slices.Contains(facts.KeyTypes, i.KeyType) || restricted && !slices.Contains(only, m.Type) {
				continue
			}
			fmt.Fprintf(&b, "%s %s", o.name, m.Type.Short())
			if m.Type == byDefault.Type {
				b.WriteString(" default")
			}
			b.WriteByte('\n')
		}
	}
	return b.Bytes(), nil
}

func isKey(class p11.ObjectClass) bool {
	return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_PUBLIC_KEY || class == p11.CKO_SECRET_KEY
}

// publicAttrs are attributes that hold the public key: the object's own, or those
// of the public key object with the same CKA_ID.
func (d *objectDir) publicAttrs(ctx context.Context, c caller, i engine.ObjectInfo) (p11.Attributes, error) {
	if i.Class != p11.CKO_PUBLIC_KEY && i.Class != p11.CKO_PRIVATE_KEY {
		return nil, errNoView
	}
	if _, err := pkix.PublicPEM(i.Attrs); err == nil || i.Class == p11.CKO_PUBLIC_KEY {
		return i.Attrs, nil
	}
	a, err := d.viewer(c)
	if err != nil {
		return nil, err
	}
	return d.otherHalf(ctx, a, i)
}

// otherHalf are the attributes of the public key that belongs to a private one, among those
// that a sees.
func (d *objectDir) otherHalf(ctx context.Context, a *engine.Application, i engine.ObjectInfo) (p11.Attributes, error) {
	if len(i.ID) == 0 {
		return nil, errNoView
	}
	template := ofClass(p11.CKO_PUBLIC_KEY)
	template.Set(p11.CKA_ID, i.ID)
	template.Set(p11.CKA_KEY_TYPE, p11.Ulong(i.KeyType))
	found, err := a.Objects(ctx, d.slot, template)
	if err != nil || len(found) == 0 {
		return nil, errNoView
	}
	return found[0].Attrs, nil
}

func (d *objectDir) publicPEM(ctx context.Context, c caller, i engine.ObjectInfo) ([]byte, error) {
	attrs, err := d.publicAttrs(ctx, c, i)
	if err != nil {
		return nil, err
	}
	return pkix.PublicPEM(attrs)
}

func (d *objectDir) publicSSH(ctx context.Context, c caller, i engine.ObjectInfo) ([]byte, error) {
	attrs, err := d.publicAttrs(ctx, c, i)
	if err != nil {
		return nil, err
	}
	return pkix.PublicSSH(attrs, clean(i.Label))
}

func (d *objectDir) certPEM(_ context.Context, _ caller, i engine.ObjectInfo) ([]byte, error) {
	if i.Class != p11.CKO_CERTIFICATE {
		return nil, errNoView
	}
	return pkix.CertificatePEM(i.Attrs)
}

// errNoCopy is what the file value of a key gives whose bytes may not be seen. The
// file is listed all the same: whoever copies such a key, as mv out of the tree does
// before it removes it, has to learn that there is no copy.
var errNoCopy = refuse(syscall.EPERM, p11.CKR_ATTRIBUTE_SENSITIVE, "the key does not leave the token: the files beside this one use it where it is")

// value is the bytes of CKA_VALUE where they may be seen.
func (d *objectDir) value(_ context.Context, _ caller, i engine.ObjectInfo) ([]byte, error) {
	if _, err := valueLength(i); err != nil {
		return nil, err
	}
	v, _ := i.Attrs.Get(p11.CKA_VALUE)
	return bytes.Clone(v), nil
}

// valueLength is how long the file value is.
func valueLength(i engine.ObjectInfo) (int, error) {
	switch i.Class {
	case p11.CKO_PRIVATE_KEY:
		return 0, errNoCopy
	case p11.CKO_SECRET_KEY:
		if i.Length < 0 {
			return 0, errNoCopy
		}
		return i.Length, nil
	case p11.CKO_DATA, p11.CKO_CERTIFICATE:
		if i.Length >= 0 {
			return i.Length, nil
		}
	}
	return 0, errNoView
}
