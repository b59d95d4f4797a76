package fs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// objectDir is the directory of one object. Its files are views: unlinking one
// does nothing, so that rm -r comes to the rmdir that destroys the object.
type objectDir struct {
	objects *objectsDir
	ref     objectRef
}

func (d *objectDir) fs() *FS { return d.objects.fs }

func (d *objectDir) id(name string) string { return d.objects.objectID(d.ref) + "/" + name }

// info is the object as the caller sees it now.
func (d *objectDir) info(ctx context.Context, c caller) (engine.ObjectInfo, error) {
	return d.objects.get(ctx, c, d.ref)
}

// aView is a text that an object's directory shows, if there is one.
type aView struct {
	name string
	text func(ctx context.Context, c caller, d *objectDir, i engine.ObjectInfo) ([]byte, error)
}

func views() []aView {
	return []aView{
		{"info", objectInfoText},
		{"uri", objectURI},
		{"mechanisms", objectMechanisms},
		{"public.pem", objectPublicPEM},
		{"public.ssh", objectPublicSSH},
		{"cert.pem", objectCertPEM},
		{"value", objectValue},
	}
}

// errNoView says that the object has no such file.
var errNoView = refuse(syscall.ENOENT, p11.CKR_ATTRIBUTE_TYPE_INVALID, "this object has no such file")

func (d *objectDir) list(ctx context.Context, c caller) ([]listed, error) {
	i, err := d.info(ctx, c)
	if err != nil {
		return nil, err
	}
	list := []listed{{name: "attr", id: d.id("attr"), kind: syscall.S_IFDIR}}
	for _, v := range views() {
		if d.has(ctx, c, v, i) {
			list = append(list, listed{name: v.name, id: d.id(v.name), kind: syscall.S_IFREG})
		}
	}
	for _, o := range d.fs().ops {
		if _, ok, _ := o.byDefault(d.objects.p.slot, i); ok && i.Attrs.Bool(o.usage) && o.served(i.Class) {
			list = append(list, listed{name: o.name, id: d.id(o.name), kind: syscall.S_IFREG})
		}
	}
	return list, nil
}

func (d *objectDir) has(ctx context.Context, c caller, v aView, i engine.ObjectInfo) bool {
	_, err := v.text(ctx, c, d, i)
	return err == nil || errors.Is(err, errStays)
}

func (d *objectDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	i, err := d.info(ctx, c)
	if err != nil {
		return nil, err
	}
	if name == "attr" {
		return &entry{id: d.id("attr"), place: d.objects.p, perm: 0o770, dir: &attrDir{d}}, nil
	}
	for _, v := range views() {
		if v.name == name {
			if !d.has(ctx, c, v, i) {
				return nil, errNoView
			}
			return &entry{id: d.id(name), place: d.objects.p, perm: 0o440, moody: true, file: textFile{func(ctx context.Context, c caller) ([]byte, error) {
				i, err := d.info(ctx, c)
				if err != nil {
					return nil, err
				}
				return v.text(ctx, c, d, i)
			}}}, nil
		}
	}
	return d.operation(i, name)
}

// unlink takes no notice: the file is a view of the object.
func (d *objectDir) unlink(ctx context.Context, c caller, name string) error {
	e, err := d.lookup(ctx, c, name)
	if err != nil {
		return err
	}
	if e.dir != nil {
		return errDir
	}
	return nil
}

// rmdir takes no notice of the folder attr.
func (d *objectDir) rmdir(ctx context.Context, c caller, name string) error {
	e, err := d.lookup(ctx, c, name)
	if err != nil {
		return err
	}
	if e.dir == nil {
		return errNotDir
	}
	return nil
}

// objectInfoText is the attributes that may be seen, one a line.
func objectInfoText(_ context.Context, _ caller, _ *objectDir, i engine.ObjectInfo) ([]byte, error) {
	var b strings.Builder
	for _, a := range i.Attrs {
		if !i.Attrs.Secret(a.Type) {
			fmt.Fprintf(&b, "%s=%s\n", a.Type.Short(), i.Attrs.FormatValue(a.Type))
		}
	}
	return []byte(b.String()), nil
}

func objectURI(ctx context.Context, _ caller, d *objectDir, i engine.ObjectInfo) ([]byte, error) {
	t, err := d.objects.p.slot.TokenInfo(ctx)
	if err != nil {
		return nil, err
	}
	return []byte(pkix.URI(t, i.Attrs) + "\n"), nil
}

// objectMechanisms is what the key can be used for: an operation, a mechanism,
// and default for the one that the file without a mechanism stands for.
func objectMechanisms(_ context.Context, _ caller, d *objectDir, i engine.ObjectInfo) ([]byte, error) {
	if !isKey(i.Class) {
		return nil, errNoView
	}
	allowed, restricted := i.Attrs.Mechanisms()
	var b strings.Builder
	for _, o := range d.fs().ops {
		if !i.Attrs.Bool(o.usage) || !o.served(i.Class) {
			continue
		}
		standard, _, _ := o.byDefault(d.objects.p.slot, i)
		for _, m := range d.objects.p.slot.Mechanisms() {
			facts, known := p11.MechanismFacts(m.Type)
			if m.Flags&o.function == 0 || known && !contains(facts.KeyTypes, i.KeyType) || restricted && !contains(allowed, m.Type) {
				continue
			}
			fmt.Fprintf(&b, "%s %s", o.name, m.Type.Short())
			if m.Type == standard.Type {
				b.WriteString(" default")
			}
			b.WriteByte('\n')
		}
	}
	return []byte(b.String()), nil
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func isKey(class p11.ObjectClass) bool {
	return class == p11.CKO_PRIVATE_KEY || class == p11.CKO_PUBLIC_KEY || class == p11.CKO_SECRET_KEY
}

// publicAttrs are attributes that hold the public key: the object's own, or
// those of the public key object with the same CKA_ID.
func publicAttrs(ctx context.Context, c caller, d *objectDir, i engine.ObjectInfo) (p11.Attributes, error) {
	switch i.Class {
	case p11.CKO_PUBLIC_KEY:
		return i.Attrs, nil
	case p11.CKO_PRIVATE_KEY:
	default:
		return nil, errNoView
	}
	if _, err := pkix.PublicPEM(i.Attrs); err == nil {
		return i.Attrs, nil
	}
	if len(i.ID) == 0 {
		return nil, errNoView
	}
	a, err := d.fs().viewer(c, d.objects.p)
	if err != nil {
		return nil, err
	}
	template := p11.Attributes{{Type: p11.CKA_ID, Value: i.ID}}
	template.Set(p11.CKA_CLASS, p11.Ulong(p11.CKO_PUBLIC_KEY))
	template.Set(p11.CKA_KEY_TYPE, p11.Ulong(i.KeyType))
	found, err := a.Objects(ctx, d.objects.p.slot, template)
	if err != nil || len(found) == 0 {
		return nil, errNoView
	}
	return found[0].Attrs, nil
}

func objectPublicPEM(ctx context.Context, c caller, d *objectDir, i engine.ObjectInfo) ([]byte, error) {
	attrs, err := publicAttrs(ctx, c, d, i)
	if err != nil {
		return nil, err
	}
	return pkix.PublicPEM(attrs)
}

func objectPublicSSH(ctx context.Context, c caller, d *objectDir, i engine.ObjectInfo) ([]byte, error) {
	attrs, err := publicAttrs(ctx, c, d, i)
	if err != nil {
		return nil, err
	}
	return pkix.PublicSSH(attrs, clean(i.Label))
}

func objectCertPEM(_ context.Context, _ caller, _ *objectDir, i engine.ObjectInfo) ([]byte, error) {
	if i.Class != p11.CKO_CERTIFICATE {
		return nil, errNoView
	}
	return pkix.CertificatePEM(i.Attrs)
}

// errStays is what the file value of a key says whose bytes may not be seen. The
// file is listed all the same: whoever copies such a key, as mv out of the tree
// does before it removes it, has to learn that there is no copy.
var errStays = refuse(syscall.EPERM, p11.CKR_ATTRIBUTE_SENSITIVE, "the key does not leave the token: the files beside this one use it where it is")

// objectValue is the bytes of CKA_VALUE where they may be seen.
func objectValue(_ context.Context, _ caller, _ *objectDir, i engine.ObjectInfo) ([]byte, error) {
	v, ok := i.Attrs.Get(p11.CKA_VALUE)
	switch i.Class {
	case p11.CKO_DATA, p11.CKO_CERTIFICATE:
	case p11.CKO_SECRET_KEY:
		if !ok {
			return nil, errStays
		}
	case p11.CKO_PRIVATE_KEY:
		return nil, errStays
	default:
		ok = false
	}
	if !ok {
		return nil, errNoView
	}
	return v, nil
}
