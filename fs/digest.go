package fs

import (
	"context"
	"syscall"

	"p11fs/p11"
)

// digestDir is the directory digest: one data file a digest.
type digestDir struct {
	fixedNames
	place
}

func (d *digestDir) list(context.Context, caller) (entries, error) {
	var list few
	for _, m := range d.slot.Mechanisms() {
		if name := m.Type.Short(); m.Flags&p11.CKF_DIGEST != 0 {
			list = append(list, d.dirEntry(name, "digest/"+name, syscall.S_IFREG))
		}
	}
	return list, nil
}

func (d *digestDir) lookup(_ context.Context, _ caller, name string) (*entry, error) {
	m, err := p11.ParseMechanism(name)
	if err != nil {
		return nil, err
	}
	if i, err := d.slot.Mechanism(m.Type); err != nil {
		return nil, err
	} else if i.Flags&p11.CKF_DIGEST == 0 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s does not digest", m.Type.Short())
	}
	data := &stream{
		place: d.place, path: "digest/" + name,
		start: func(ctx context.Context, s *session) (start, error) {
			op, err := s.eng.Begin(ctx, p11.CKF_DIGEST, m, 0)
			return start{transform: &use{op: op}}, err
		},
	}
	return &entry{place: d.place, path: data.path, perm: 0o660, file: data.file()}, nil
}
