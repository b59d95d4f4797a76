package fs

import (
	"context"
	"syscall"

	"p11fs/p11"
	"p11fs/secret"
)

// attrDir is the folder attr of an object: one attribute a file. Attributes
// that the object may have and has not are found by name and not listed.
type attrDir struct {
	fixedNames
	object *objectDir
}

func (d *attrDir) path(name string) string { return d.object.path("attr/" + name) }

func (d *attrDir) list(ctx context.Context, c caller) (entries, error) {
	i, err := d.object.describe(ctx, c, d.object.ref)
	if err != nil {
		return nil, err
	}
	var list few
	for _, a := range i.Attrs {
		if !i.Attrs.Secret(a.Type) {
			name := a.Type.Short()
			list = append(list, d.object.dirEntry(name, d.path(name), syscall.S_IFREG))
		}
	}
	return list, nil
}

func (d *attrDir) lookup(ctx context.Context, c caller, name string) (*entry, error) {
	t, err := p11.ParseAttributeType(name)
	if err != nil {
		return nil, errNoView
	}
	if _, err := d.object.describe(ctx, c, d.object.ref); err != nil {
		return nil, err
	}
	perm := uint32(0o660)
	if readOnlyAttribute(t) {
		perm = 0o440
	}
	return &entry{place: d.object.place, path: d.path(name), perm: perm, file: d.file(t, name), times: d.object.times(d.object.ref)}, nil
}

// readOnlyAttribute reports whether attributes of that type can never be changed
// (PKCS#11 v3.1 §4, notes 7 and 8 of the tables). Of the others the engine
// decides.
func readOnlyAttribute(t p11.AttributeType) bool {
	switch t {
	case p11.CKA_CLASS, p11.CKA_KEY_TYPE, p11.CKA_CERTIFICATE_TYPE, p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_MODIFIABLE,
		p11.CKA_UNIQUE_ID, p11.CKA_LOCAL, p11.CKA_KEY_GEN_MECHANISM, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE,
		p11.CKA_MODULUS, p11.CKA_MODULUS_BITS, p11.CKA_PUBLIC_EXPONENT, p11.CKA_EC_PARAMS, p11.CKA_EC_POINT,
		p11.CKA_VALUE_LEN, p11.CKA_ALLOWED_MECHANISMS, p11.CKA_ALWAYS_AUTHENTICATE:
		return true
	}
	return false
}

// file is one attribute. It is read and written as in a template, without quotes.
func (d *attrDir) file(t p11.AttributeType, name string) *file {
	text := func(ctx context.Context, c caller) ([]byte, error) {
		i, err := d.object.describe(ctx, c, d.object.ref)
		if err != nil {
			return nil, err
		}
		ok := i.Attrs.Has(t) || t == p11.CKA_VALUE && i.Length >= 0
		elsewhere := ok && t == p11.CKA_VALUE && i.Class == p11.CKO_SECRET_KEY
		switch hidden := i.Attrs.Secret(t); {
		case hidden && isKey(i.Class) && !elsewhere:
			return nil, p11.Errorf(p11.CKR_ATTRIBUTE_SENSITIVE, "%s is secret", name)
		case !ok:
			return nil, refuse(syscall.ENODATA, p11.CKR_ATTRIBUTE_TYPE_INVALID, "the object has no "+name+": ls shows what it has")
		case hidden:
			return nil, p11.Advise(p11.Errorf(p11.CKR_ATTRIBUTE_SENSITIVE, "%s is not shown as text", name), "the object's own file value has it")
		}
		return []byte(i.Attrs.FormatValue(t) + "\n"), nil
	}
	return (&command{
		place: d.object.place, path: d.path(name), text: text, empty: true,
		run: func(ctx context.Context, s *session, line []byte) ([]byte, error) {
			i, err := d.object.info(ctx, s.app.eng, d.object.ref)
			if err != nil {
				return nil, err
			}
			defer i.Wipe()
			v, err := p11.ParseValue(t, string(line))
			if err != nil {
				return nil, err
			}
			defer secret.Wipe(v)
			if t == p11.CKA_LABEL && (i.Class == p11.CKO_PRIVATE_KEY || i.Class == p11.CKO_SECRET_KEY) {
				same := ofClass(i.Class)
				same.SetBool(p11.CKA_PRIVATE, i.Private)
				same.Set(t, v)
				if err := s.nameTaken(ctx, same, i.Handle); err != nil {
					return nil, err
				}
			}
			return nil, s.eng.SetAttributeValue(ctx, i.Handle, p11.Attributes{{Type: t, Value: v}})
		},
	}).file()
}

// unlink does nothing: the file is a view of the object.
func (d *attrDir) unlink(ctx context.Context, c caller, name string) error {
	_, err := d.lookup(ctx, c, name)
	return err
}
