package fs

import (
	"context"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"p11fs/engine"
	"p11fs/p11"
)

// dataDir shows data objects as ordinary files, named by their labels. A new
// file is a private token object; it is made when it is opened, empty, so that
// a refusal is not lost with a close, and its content is stored as a whole when
// it is closed: until then the old content stands.
type dataDir struct {
	fs *FS
	p  place
}

const dataSuffix = ".dat"

func (d *dataDir) objects() *objectsDir { return d.fs.objects(d.p) }

func (d *dataDir) id(ref objectRef) string { return d.p.id() + "data/" + ref.uid() }

func dataTemplate() p11.Attributes {
	return p11.Attributes{{Type: p11.CKA_CLASS, Value: p11.Ulong(p11.ObjectClass(p11.CKO_DATA))}}
}

func (d *dataDir) list(ctx context.Context, c caller) ([]listed, error) {
	return listByClass(ctx, d.fs, c, d.p, dataTemplate(), func(n named) listed {
		return listed{name: strings.TrimSuffix(n.name, dataSuffix), id: d.id(n.ref), kind: syscall.S_IFREG}
	})
}

// listByClass lists the objects of one class as ordinary files.
func listByClass(ctx context.Context, f *FS, c caller, p place, template p11.Attributes, line func(named) listed) ([]listed, error) {
	a, err := f.viewer(c, p)
	if err != nil {
		return nil, err
	}
	names, err := f.objects(p).all(ctx, a, template)
	if err != nil {
		return nil, err
	}
	list := make([]listed, len(names))
	for i, n := range names {
		list[i] = line(n)
	}
	return list, nil
}

func (*dataDir) mkdir(context.Context, caller, string) (*entry, error) { return nil, errNoFolder }

func (d *dataDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	i, err := d.objects().find(ctx, c, name+dataSuffix)
	if err != nil {
		return nil, err
	}
	return d.entry(refOf(i)), nil
}

func (d *dataDir) entry(ref objectRef) *entry {
	return &entry{id: d.id(ref), place: d.p, perm: 0o660, moody: true, file: &dataFile{dir: d, ref: ref}}
}

// create makes an empty data object and opens it.
func (d *dataDir) create(ctx context.Context, c caller, name string, flags uint32) (*entry, gofs.FileHandle, error) {
	label, err := newLabel(name)
	if err != nil {
		return nil, nil, err
	}
	s, err := d.fs.session(ctx, c, d.p)
	if err != nil {
		return nil, nil, err
	}
	template := dataTemplate()
	template.SetBool(p11.CKA_TOKEN, true)
	template.SetBool(p11.CKA_PRIVATE, true)
	template.Set(p11.CKA_LABEL, []byte(label))
	template.Set(p11.CKA_VALUE, []byte{})
	h, err := s.eng.CreateObject(ctx, template)
	if err != nil {
		return nil, nil, err
	}
	i, err := s.app.eng.Object(context.WithoutCancel(ctx), d.p.slot, h)
	if err != nil {
		return nil, nil, err
	}
	f := &dataFile{dir: d, ref: refOf(i)}
	return d.entry(f.ref), f.handle(s, i, flags), nil
}

// unlink destroys the object. Below a session directory it destroys session
// objects only, as rmdir in objects does.
func (d *dataDir) unlink(ctx context.Context, c caller, name string) error {
	return d.objects().rmdir(ctx, c, name+dataSuffix)
}

// rename sets the label. An object that has it already goes, as files do.
func (d *dataDir) rename(ctx context.Context, c caller, name, newName string, flags uint32) error {
	label, err := newLabel(newName)
	if err != nil {
		return err
	}
	return d.objects().replace(ctx, c, name+dataSuffix, newName+dataSuffix, label, flags)
}

// replace gives an object a new label, and then destroys the one that had the
// name.
func (d *objectsDir) replace(ctx context.Context, c caller, name, newName, label string, flags uint32) error {
	i, err := d.find(ctx, c, name)
	if err != nil {
		return err
	}
	old, err := d.find(ctx, c, newName)
	switch {
	case err == nil && refOf(old) == refOf(i):
		return nil
	case err == nil && noReplace(flags):
		return errExists
	case err == nil && old.Token && !d.p.ref.self():
		return errBelowSession
	}
	replaced := err == nil
	if err := d.relabel(ctx, c, i, label); err != nil || !replaced {
		return err
	}
	err = d.destroy(context.WithoutCancel(ctx), c, old)
	if err != nil { // as it was
		if back := d.relabel(context.WithoutCancel(ctx), c, i, i.Label); back != nil {
			d.fs.log.Error("a renamed object keeps its new label", "token", d.p.slot.Name(), "err", back)
		}
	}
	return err
}

// dataFile is one data object as a file.
type dataFile struct {
	dir *dataDir
	ref objectRef
}

func (f *dataFile) info(ctx context.Context, c caller) (engine.ObjectInfo, error) {
	return f.dir.objects().get(ctx, c, f.ref)
}

func (f *dataFile) value(ctx context.Context, c caller) ([]byte, error) {
	i, err := f.info(ctx, c)
	if err != nil {
		return nil, err
	}
	v, _ := i.Attrs.Get(p11.CKA_VALUE)
	return v, nil
}

func (f *dataFile) size(ctx context.Context, c caller) uint64 { return textSize(ctx, c, f.value) }

func (f *dataFile) open(ctx context.Context, c caller, flags uint32) (gofs.FileHandle, uint32, error) {
	i, err := f.info(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	if _, write := wants(flags); !write {
		v, _ := i.Attrs.Get(p11.CKA_VALUE)
		return f.dir.fs.guardedText(c, f.dir.p, v, i.Private), fuse.FOPEN_NOFLUSH, nil
	}
	if i.Attrs.Has(p11.CKA_MODIFIABLE) && !i.Attrs.Bool(p11.CKA_MODIFIABLE) {
		return nil, 0, p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object has modifiable=false")
	}
	s, err := f.dir.fs.session(ctx, c, f.dir.p)
	if err != nil {
		return nil, 0, err
	}
	return f.handle(s, i, flags), 0, nil
}

// handle opens the object for writing.
func (f *dataFile) handle(s *session, i engine.ObjectInfo, flags uint32) *blobHandle {
	h := &blobHandle{fs: f.dir.fs, p: f.dir.p, s: s, ref: f.ref, append: flags&syscall.O_APPEND != 0, guard: i.Private, login: s.loginGeneration(), gate: newGate()}
	h.commit = func(ctx context.Context, data []byte) error {
		return s.eng.SetAttributeValue(ctx, i.Handle, p11.Attributes{{Type: p11.CKA_VALUE, Value: data}})
	}
	if v, ok := i.Attrs.Get(p11.CKA_VALUE); ok && flags&syscall.O_TRUNC == 0 {
		h.data = append([]byte(nil), v...)
	} else {
		h.emptied = len(v) > 0
	}
	f.dir.fs.handles.Add(1)
	return h
}

// truncate sets the length, at the next close of h or, without one, at once.
func (f *dataFile) truncate(ctx context.Context, c caller, h gofs.FileHandle, size uint64) error {
	if h, ok := h.(*blobHandle); ok {
		return h.truncate(ctx, size)
	}
	opened, _, err := f.open(ctx, c, syscall.O_WRONLY)
	if err != nil {
		return err
	}
	b := opened.(*blobHandle)
	defer func() { _ = b.Release(ctx) }()
	if err := b.truncate(ctx, size); err != nil {
		return err
	}
	return b.commit(ctx, b.data)
}
