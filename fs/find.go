package fs

import (
	"context"

	"p11fs/p11"
)

// findFile is written a template, and reads the names of the objects that
// match, one a line, as they stand in objects. An empty template matches all.
func (f *FS) findFile(p place) *commandFile {
	return &commandFile{
		fs: f, p: p, key: "find", replies: true, empty: true,
		run: func(ctx context.Context, o *opened, line []byte) ([]byte, error) {
			template, err := p11.ParseTemplate(string(line))
			if err != nil {
				return nil, err
			}
			defer template.Wipe()
			names, err := f.objects(p).all(ctx, o.app.eng, template)
			if err != nil {
				return nil, err
			}
			var b []byte
			for _, n := range names {
				b = append(append(b, n.name...), '\n')
			}
			return b, nil
		},
	}
}
