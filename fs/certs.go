package fs

import (
	"context"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"p11fs/p11"
	"p11fs/p11/pkix"
)

// certsDir shows certificates as PEM files, named by their labels with .pem;
// .crt, .cer, .der and no extension find them too. What is copied in, PEM or
// DER, becomes a certificate object whose label is the name without the
// extension: cp chain.pem certs/web.pem goes with the key web.key.
type certsDir struct {
	fs *FS
	p  place
}

func (d *certsDir) objects() *objectsDir { return d.fs.objects(d.p) }

func certTemplate() p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.ObjectClass(p11.CKO_CERTIFICATE))}}
}

func (d *certsDir) id(ref objectRef) string { return d.p.id() + "certs/" + ref.uid() }

func (d *certsDir) list(ctx context.Context, c caller) ([]listed, error) {
	return listByClass(ctx, d.fs, c, d.p, certTemplate(), func(n named) listed {
		return listed{name: strings.TrimSuffix(n.name, certSuffix) + ".pem", id: d.id(n.ref), kind: syscall.S_IFREG}
	})
}

const certSuffix = ".crt"

// certLabel is a file's name without the extension of a certificate.
func certLabel(name string) string {
	for _, ext := range []string{".pem", ".crt", ".cer", ".der"} {
		if base, ok := strings.CutSuffix(name, ext); ok && base != "" {
			return base
		}
	}
	return name
}

// objectName is the name in objects of the certificate that a file's name
// means.
func (d *certsDir) objectName(ctx context.Context, c caller, name string) (string, objectRef, error) {
	base := certLabel(name)
	i, err := d.objects().find(ctx, c, base+certSuffix)
	if err != nil && base != name {
		base = name
		i, err = d.objects().find(ctx, c, base+certSuffix)
	}
	if err != nil {
		return "", objectRef{}, err
	}
	return base + certSuffix, refOf(i), nil
}

func (*certsDir) mkdir(context.Context, caller, string) (*entry, error) { return nil, errNoFolder }

func (d *certsDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	_, ref, err := d.objectName(ctx, c, name)
	if err != nil {
		return nil, err
	}
	return &entry{id: d.id(ref), place: d.p, perm: 0o660, moody: true, file: &certFile{dir: d, ref: ref}}, nil
}

// create opens a certificate that is yet to be made: nothing can be made of
// nothing.
func (d *certsDir) create(ctx context.Context, c caller, name string, flags uint32) (*entry, gofs.FileHandle, error) {
	label, err := newLabel(certLabel(name))
	if err != nil {
		return nil, nil, err
	}
	s, err := d.fs.session(ctx, c, d.p)
	if err != nil {
		return nil, nil, err
	}
	f := &certFile{dir: d, name: name}
	e := &entry{id: d.p.id() + "certs/+" + name, place: d.p, perm: 0o660, moody: true, file: f}
	return e, f.handle(s, label, nil, flags), nil
}

// unlink destroys the certificate.
func (d *certsDir) unlink(ctx context.Context, c caller, name string) error {
	object, _, err := d.objectName(ctx, c, name)
	if err != nil {
		return err
	}
	return d.objects().rmdir(ctx, c, object)
}

// rename sets the label.
func (d *certsDir) rename(ctx context.Context, c caller, name, newName string, flags uint32) error {
	object, _, err := d.objectName(ctx, c, name)
	if err != nil {
		return err
	}
	label, err := newLabel(certLabel(newName))
	if err != nil {
		return err
	}
	return d.objects().replace(ctx, c, object, certLabel(newName)+certSuffix, label, flags)
}

// certFile is one certificate as a file, or one that is being copied in.
type certFile struct {
	dir  *certsDir
	ref  objectRef
	name string // of one that is being copied in
}

func (f *certFile) pem(ctx context.Context, c caller) ([]byte, error) {
	ref := f.ref
	if f.name != "" {
		var err error
		if _, ref, err = f.dir.objectName(ctx, c, f.name); err != nil {
			return nil, err
		}
	}
	i, err := f.dir.objects().get(ctx, c, ref)
	if err != nil {
		return nil, err
	}
	return pkix.CertificatePEM(i.Attrs)
}

func (f *certFile) size(ctx context.Context, c caller) uint64 { return textSize(ctx, c, f.pem) }

func (f *certFile) open(ctx context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	if _, write := wants(flags); !write {
		return openText(ctx, c, f.pem)
	}
	ref := f.ref
	if f.name != "" {
		var err error
		if _, ref, err = f.dir.objectName(ctx, c, f.name); err != nil {
			return nil, 0, err
		}
	}
	i, err := f.dir.objects().get(ctx, c, ref)
	if err != nil {
		return nil, 0, err
	}
	s, err := f.dir.fs.session(ctx, c, f.dir.p)
	if err != nil {
		return nil, 0, err
	}
	return f.handle(s, i.Label, []p11.ObjectHandle{i.Handle}, flags), 0, nil
}

// handle opens a certificate for writing. A certificate cannot be changed: the
// new one is made, and then the old one goes.
func (f *certFile) handle(s *session, label string, old []p11.ObjectHandle, flags uint32) *blobHandle {
	h := &blobHandle{fs: f.dir.fs, p: f.dir.p, s: s, append: flags&syscall.O_APPEND != 0, login: s.loginGeneration(), gate: newGate()}
	h.commit = func(ctx context.Context, data []byte) error {
		objects, err := pkix.Parse(pkix.Certificate, data, pkix.Options{})
		if err != nil {
			return badFile(err)
		}
		made, err := createAll(ctx, s, objects, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(label)}})
		if err != nil {
			return err
		}
		gone := old
		old = made
		for _, h := range gone {
			if err := s.eng.DestroyObject(context.WithoutCancel(ctx), h); err != nil {
				return err
			}
		}
		return nil
	}
	f.dir.fs.handles.Add(1)
	return h
}

// truncate to 0 begins a new certificate; nothing is stored before the close.
func (f *certFile) truncate(ctx context.Context, _ caller, h gofs.FileHandle, size uint64) error {
	b, ok := h.(*blobHandle)
	if size != 0 || !ok {
		return errTruncate
	}
	if err := b.truncate(ctx, 0); err != nil {
		return err
	}
	b.dirty = false // an empty certificate is none
	return nil
}
