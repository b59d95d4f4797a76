package fs

import (
	"context"

	"p11fs/p11"
)

// copyFile takes what is to be different in a copy, such as a label, makes it, and gives its
// name: C_CopyObject (PKCS#11 v3.1 §5.7.2). A copy of a key is a key, and so has a label of
// its own, or an id.
func (d *objectDir) copyFile() *file {
	return (&command{
		place: d.place, path: d.path("copy"), replies: true, empty: true,
		run: func(ctx context.Context, s *session, line []byte) ([]byte, error) {
			template, err := p11.ParseTemplate(string(line))
			if err != nil {
				return nil, err
			}
			defer template.Wipe()
			i, err := d.outline(ctx, s.app.eng, d.ref)
			if err != nil {
				return nil, err
			}
			create := func() ([]p11.ObjectHandle, error) { return one(s.eng.CopyObject(ctx, i.Handle, template)) }
			var made []p11.ObjectHandle
			if i.Class == p11.CKO_PRIVATE_KEY || i.Class == p11.CKO_SECRET_KEY {
				named := ofClass(i.Class)
				named.Set(p11.CKA_LABEL, []byte(i.Label))
				named.SetBool(p11.CKA_PRIVATE, i.Private)
				named = named.Merge(template)
				made, err = s.makeNamed(ctx, named, create)
			} else {
				made, err = create()
			}
			if err != nil {
				return nil, err
			}
			return d.namesOf(ctx, s.app.eng, made...)
		},
	}).file()
}
