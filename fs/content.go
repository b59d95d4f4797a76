package fs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"syscall"
	"time"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// The directories of files that are objects, as they begin names.
const dataDir, certsDir = "data/", "certs/"

// A contentDir shows the objects of one class as ordinary files, named by their
// labels.
type contentDir struct {
	fixedNames
	objects
	content
}

// content is how the objects of a class are files.
type content struct {
	dir    string // its name, with a slash
	class  p11.ObjectClass
	suffix string // of the names in objects
	ext    string // of the names of the files
	exts   []string
	// text is what is read of an object.
	text func(i engine.ObjectInfo) ([]byte, error)
	// raw is set if the text is the value as it is.
	raw bool
	// create makes the object of a new file. Without a handle it is to be made when
	// the content is stored, and value has no meaning.
	create func(ctx context.Context, s *session, label string, value []byte) (engine.ObjectInfo, error)
	// edit opens the object for writing.
	edit func(s *session, i engine.ObjectInfo, flags uint32) (*handle, error)
	// secret is set if new files are private. A write of who is logged in to the name
	// of a public one then makes a new file: what goes in there is not for everybody.
	secret bool
	// anySize is set if files can be cut to any length.
	anySize bool
}

// dataFiles are data objects. A new file is a private token object. It is made when
// it is opened, empty, so that a refusal is not lost with a close.
func dataFiles() content {
	return content{
		dir: dataDir, class: p11.CKO_DATA, suffix: suffix(p11.CKO_DATA), secret: true, anySize: true, raw: true,
		text: func(i engine.ObjectInfo) ([]byte, error) {
			v, _ := i.Attrs.Get(p11.CKA_VALUE)
			return v, nil
		},
		create: func(ctx context.Context, s *session, label string, value []byte) (engine.ObjectInfo, error) {
			template := ofClass(p11.CKO_DATA)
			template.SetBool(p11.CKA_TOKEN, true)
			template.SetBool(p11.CKA_PRIVATE, true)
			template.Set(p11.CKA_LABEL, []byte(label))
			template.Set(p11.CKA_VALUE, value)
			h, err := s.eng.CreateObject(ctx, template)
			if err != nil {
				return engine.ObjectInfo{}, err
			}
			return s.app.eng.Object(context.WithoutCancel(ctx), s.slot, h)
		},
		edit: func(s *session, i engine.ObjectInfo, flags uint32) (*handle, error) {
			if i.Attrs.Has(p11.CKA_MODIFIABLE) && !i.Attrs.Bool(p11.CKA_MODIFIABLE) {
				return nil, p11.Errorf(p11.CKR_ACTION_PROHIBITED, "the object has modifiable=false")
			}
			defer i.Wipe()
			b := &blob{s: s, ref: refOf(i), guarded: i.Private, dir: dataDir, label: i.Label}
			b.commit = func(ctx context.Context, data []byte) ([]p11.ObjectHandle, error) {
				list := []p11.ObjectHandle{i.Handle}
				if b.append && b.kept >= 0 {
					return list, s.eng.AppendValue(ctx, i.Handle, data[b.kept:], maxBlob)
				}
				return list, s.eng.SetAttributeValue(ctx, i.Handle, p11.Attributes{{Type: p11.CKA_VALUE, Value: data}})
			}
			if v, _ := i.Attrs.Get(p11.CKA_VALUE); flags&syscall.O_TRUNC == 0 {
				if err := b.load(v); err != nil {
					return nil, err
				}
			} else {
				b.emptied, b.kept = len(v) > 0, -1
			}
			return b.open(flags), nil
		},
	}
}

// certFiles are certificates as PEM files. The names without an extension, and with
// others, find them too. What is copied in, PEM or DER, becomes a certificate object
// whose label is the name without the extension: cp chain.pem certs/web.pem goes
// with the key web.key.
func certFiles() content {
	return content{
		dir: certsDir, class: p11.CKO_CERTIFICATE, suffix: suffix(p11.CKO_CERTIFICATE),
		ext: ".pem", exts: []string{".pem", ".crt", ".cer", ".der"},
		text: func(i engine.ObjectInfo) ([]byte, error) { return pkix.CertificatePEM(i.Attrs) },
		create: func(_ context.Context, s *session, label string, _ []byte) (engine.ObjectInfo, error) {
			return engine.ObjectInfo{Label: label}, s.eng.MayChangeToken()
		},
		// A certificate cannot be changed: the new one is made, and then the old one
		// goes.
		edit: func(s *session, i engine.ObjectInfo, flags uint32) (*handle, error) {
			var old []p11.ObjectHandle
			if i.Handle != 0 {
				old = append(old, i.Handle)
			}
			b := &blob{s: s, filled: true, dir: certsDir, label: i.Label}
			b.commit = func(ctx context.Context, data []byte) ([]p11.ObjectHandle, error) {
				if !s.fs.renewing.lock(ctx) {
					return nil, context.Canceled
				}
				defer s.fs.renewing.unlock()
				certs, err := pkix.Parse(pkix.Certificate, data, pkix.Options{})
				if err != nil {
					return nil, badFile(err)
				}
				here := objects{place{fs: s.fs, slot: s.slot}}
				if len(old) == 0 || !here.exists(ctx, s.app.eng, old[0]) {
					// Somebody else has made the file meanwhile, or made it anew.
					if now, err := here.owner(ctx, s.app.eng, escape(i.Label), suffix(p11.CKO_CERTIFICATE)); err == nil {
						old = []p11.ObjectHandle{now.Handle}
					}
				}
				list, err := placeAll(ctx, s, newFileObjects(s, certs, p11.Attributes{{Type: p11.CKA_LABEL, Value: []byte(i.Label)}}, false), certs)
				if err != nil {
					return nil, err
				}
				gone := old
				old = nil
				for _, o := range list {
					old = append(old, o.handle)
				}
				for _, h := range gone {
					if slices.Contains(old, h) {
						continue // it is what it was
					}
					if err := s.eng.DestroyObject(context.WithoutCancel(ctx), h); err != nil {
						return nil, err
					}
				}
				return old, nil
			}
			return b.open(flags), nil
		},
	}
}

// label is a file's name without its extension.
func (t content) label(name string) string {
	for _, ext := range t.exts {
		if base, ok := strings.CutSuffix(name, ext); ok && base != "" {
			return base
		}
	}
	return name
}

func (d *contentDir) list(ctx context.Context, c caller) (entries, error) {
	a, err := d.viewer(c)
	if err != nil {
		return nil, err
	}
	names, err := d.all(ctx, a, ofClass(d.class))
	var list few
	for _, n := range names {
		list = append(list, d.dirEntry(strings.TrimSuffix(n.name, d.suffix)+d.ext, d.path(n.ref, strings.Contains(n.name, "~")), syscall.S_IFREG))
	}
	for name, t := range d.temporaries(c) {
		list = append(list, d.dirEntry(name, t.path, syscall.S_IFREG))
	}
	return list, err
}

// object returns the object of a file.
func (d *contentDir) object(ctx context.Context, c caller, name string) (engine.ObjectInfo, error) {
	name = ordinary(name)
	label := d.label(name)
	i, err := d.find(ctx, c, label+d.suffix)
	if err != nil && label != name {
		return d.find(ctx, c, name+d.suffix)
	}
	return i, err
}

func (d *contentDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	if t := d.temporaries(c)[name]; t != nil {
		return t.entry(), nil
	}
	i, err := d.object(ctx, c, name)
	if err != nil {
		return nil, err
	}
	return d.entry(refOf(i), strings.Contains(name, "~")), nil
}

// entry is the file of an object. In full the name has the uid: that names a public
// object also for a write.
func (d *contentDir) entry(ref objectRef, full bool) *entry {
	object := func(ctx context.Context, c caller) (engine.ObjectInfo, error) { return d.get(ctx, c, ref) }
	described := object
	if d.raw {
		described = func(ctx context.Context, c caller) (engine.ObjectInfo, error) { return d.describe(ctx, c, ref) }
	}
	return &entry{place: d.place, path: d.path(ref, full), perm: 0o660, file: d.file(object, described, full), times: d.times(ref), date: d.date("", described)}
}

// path is different for both names of an object: they are not the same file.
func (d *contentDir) path(ref objectRef, full bool) string {
	if full {
		return d.dir + "~" + ref.uid()
	}
	return d.dir + ref.uid()
}

func (*contentDir) mkdir(context.Context, caller, string) (*entry, error) { return nil, errNoFolder }

func (d *contentDir) create(ctx context.Context, c caller, name string, flags uint32) (*entry, *handle, error) {
	if isTemporary(name) {
		return d.newTemporary(c, name, flags)
	}
	return d.newObject(ctx, c, name, []byte{}, flags)
}

// newObject makes the object of a new file, and opens it.
func (d *contentDir) newObject(ctx context.Context, c caller, name string, value []byte, flags uint32) (*entry, *handle, error) {
	label, err := newLabel(d.label(name))
	if err != nil {
		return nil, nil, err
	}
	s, err := d.session(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	i, err := d.makeOnce(ctx, c, s, name, label, value, flags)
	if err != nil {
		return nil, nil, err
	}
	h, err := d.edit(s, i, flags)
	if err != nil || i.Handle != 0 {
		return d.entry(refOf(i), false), h, err
	}
	object := func(ctx context.Context, c caller) (engine.ObjectInfo, error) { return d.object(ctx, c, name) }
	at := func(ctx context.Context, c caller) (times, error) {
		i, err := object(ctx, c)
		i.Wipe()
		return times{i.Changed, i.Dated}, err
	}
	return &entry{place: d.place, path: d.dir + "+" + name, perm: 0o660, file: d.file(object, object, false), times: at, date: d.date(label, object)}, h, nil
}

// makeOnce makes the object of a new file, unless somebody has made it meanwhile below
// another session's directory. A public object that just came is not what a secret goes into.
func (d *contentDir) makeOnce(ctx context.Context, c caller, s *session, name, label string, value []byte, flags uint32) (engine.ObjectInfo, error) {
	if !d.fs.renewing.lock(ctx) {
		return engine.ObjectInfo{}, context.Canceled
	}
	defer d.fs.renewing.unlock()
	if i, err := d.object(ctx, c, name); err == nil && len(value) == 0 && (i.Private || !d.secret) {
		if flags&syscall.O_EXCL != 0 {
			return i, errExists
		}
		return i, nil
	}
	return d.content.create(ctx, s, label, value)
}

// unlink destroys the object.
func (d *contentDir) unlink(ctx context.Context, c caller, name string) error {
	if t := d.temporaries(c)[name]; t != nil {
		t.app.temporaries.remove(d.key(name), t)
		return nil
	}
	i, err := d.object(ctx, c, name)
	if err != nil {
		return err
	}
	return d.remove(ctx, c, i)
}

// rename gives an object a new label, and then destroys the one that had the name,
// as files do. A public one that had it stays: it is not what a private one replaces.
// A temporary name becomes the label too: an editor that makes a backup so loses
// nothing if it dies before it has written the new file.
func (d *contentDir) rename(ctx context.Context, c caller, name, newName string, replace bool) error {
	mine := d.temporaries(c)
	switch t := mine[name]; {
	case t != nil && isTemporary(newName):
		return t.app.temporaries.rename(d.key(name), d.key(newName), t, replace)
	case t != nil:
		return d.store(ctx, c, t, name, newName, replace)
	case mine[newName] != nil && !replace:
		return errExists
	}
	err := d.relabelFile(ctx, c, name, ordinary(newName), replace)
	if t := mine[newName]; err == nil && t != nil {
		t.app.temporaries.remove(d.key(newName), t)
	}
	return err
}

// relabelFile is rename of what is an object.
func (d *contentDir) relabelFile(ctx context.Context, c caller, name, newName string, replace bool) error {
	i, err := d.object(ctx, c, name)
	if err != nil {
		return err
	}
	label, err := newLabel(d.label(newName))
	if err != nil {
		return err
	}
	old, notFound := d.find(ctx, c, d.label(newName)+d.suffix)
	switch {
	case notFound != nil:
		return d.relabel(ctx, c, i, label)
	case refOf(old) == refOf(i):
		return nil
	case !replace:
		return errExists
	case givesWay(old, i):
		return d.relabel(ctx, c, i, label)
	case old.Token && !d.ref.isDefault():
		return errBelowSession
	}
	if err := d.relabel(ctx, c, i, label); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err = d.remove(ctx, c, old); err != nil { // as it was
		if back := d.relabel(ctx, c, i, i.Label); back != nil {
			d.fs.config.Log.Error("a renamed object keeps its new label", "token", d.slot.Name(), "err", back)
		}
	}
	return err
}

// makePrivate makes a private object of the plain name that a public one has now, for
// a write of somebody who is logged in. It begins as a copy, or empty. The kernel is
// to look for the name again, and finds the new one.
func (d *contentDir) makePrivate(ctx context.Context, s *session, i engine.ObjectInfo, flags uint32) error {
	if !d.fs.renewing.lock(ctx) {
		return context.Canceled
	}
	defer d.fs.renewing.unlock()
	n := plainNameOf(i)
	owner, err := d.owner(ctx, s.app.eng, n.base, n.suffix)
	if err != nil || refOf(owner) != refOf(i) {
		return errNameMoved
	}
	label, err := newLabel(n.base)
	if err != nil {
		return err
	}
	value, _ := i.Attrs.Get(p11.CKA_VALUE)
	if flags&syscall.O_TRUNC != 0 {
		value = []byte{}
	}
	if _, err := d.content.create(ctx, s, label, value); err != nil {
		return err
	}
	return errNameMoved
}

// date sets the time of a file of that label, or that of the object. Where the caller has it
// open and has written what is still to be stored, that will have it.
func (d *contentDir) date(label string, object find) func(ctx context.Context, c caller, at time.Time) error {
	return func(ctx context.Context, c caller, at time.Time) error {
		s, err := d.session(ctx, c)
		if err != nil {
			return err
		}
		i, err := object(ctx, c)
		i.Wipe()
		switch open := s.app.date(d.dir, cmp.Or(label, i.Label), at); {
		case err != nil && open: // a certificate that is not there yet
			return nil
		case err != nil:
			return err
		}
		return s.eng.DateObject(ctx, i.Handle, at)
	}
}

// find is how the file of an object finds it.
type find func(ctx context.Context, c caller) (engine.ObjectInfo, error)

// file is the file of an object. What described returns may lack its value, if that is
// the text. If full is set it is named with its uid.
func (d *contentDir) file(object, described find, full bool) *file {
	f := &file{anySize: d.anySize}
	f.text = func(ctx context.Context, c caller) ([]byte, error) {
		i, err := object(ctx, c)
		if err != nil {
			return nil, err
		}
		return d.text(i)
	}
	if d.raw {
		f.length = func(ctx context.Context, c caller) (int, error) {
			i, err := described(ctx, c)
			return max(i.Length, 0), err
		}
	}
	f.open = func(ctx context.Context, c caller, flags uint32) (*handle, error) {
		if _, write := wants(flags); !write {
			return d.openObject(ctx, c, f.length, object)
		}
		i, err := described(ctx, c)
		if err != nil {
			return nil, err
		}
		s, err := d.session(ctx, c)
		if err != nil {
			return nil, err
		}
		if user, in := s.app.eng.LoggedIn(d.slot); d.secret && !full && in && user == p11.CKU_USER && i.Token && !i.Private {
			if i, err = object(ctx, c); err != nil {
				return nil, err
			}
			return nil, d.makePrivate(ctx, s, i, flags)
		}
		if i.Token {
			if err := s.eng.MayChangeToken(); err != nil {
				return nil, err
			}
		}
		if i, err = object(ctx, c); err != nil {
			return nil, err
		}
		return d.edit(s, i, flags)
	}
	f.truncate = func(ctx context.Context, c caller, size uint64) error {
		if !d.anySize {
			return errTruncate
		}
		h, err := f.open(ctx, c, syscall.O_WRONLY)
		if err != nil {
			return err
		}
		defer h.release(ctx)
		if err := h.truncate(ctx, size); err != nil {
			return err
		}
		return h.flush(ctx)
	}
	return f
}

// openObject opens an object for reading.
func (d *contentDir) openObject(ctx context.Context, c caller, length func(context.Context, caller) (int, error), object find) (*handle, error) {
	private := false
	h, err := d.openText(ctx, c, &file{length: length, text: func(ctx context.Context, c caller) ([]byte, error) {
		i, err := object(ctx, c)
		if err != nil {
			return nil, err
		}
		private = i.Private
		return d.text(i)
	}})
	if err != nil {
		return nil, err
	}
	if h.app = d.fs.callers.find(c); private && h.app != nil {
		h.endWithLogin()
	}
	return h, nil
}
