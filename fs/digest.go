package fs

import (
	"context"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
)

// digestDir is the directory digest: one data file a digest.
type digestDir struct {
	fs *FS
	p  place
}

func (d *digestDir) list(context.Context, caller) ([]listed, error) {
	var list []listed
	for _, m := range d.p.slot.Mechanisms() {
		if m.Flags&p11.CKF_DIGEST != 0 {
			name := m.Type.Short()
			list = append(list, listed{name: name, id: d.id(name), kind: syscall.S_IFREG})
		}
	}
	return list, nil
}

func (d *digestDir) id(name string) string { return d.p.id() + "digest/" + name }

func (d *digestDir) lookup(_ context.Context, _ caller, name string) (*entry, error) {
	m, err := p11.ParseMechanism(name)
	if err != nil {
		return nil, err
	}
	if i, err := d.p.slot.Mechanism(m.Type); err != nil {
		return nil, err
	} else if i.Flags&p11.CKF_DIGEST == 0 {
		return nil, p11.Errorf(p11.CKR_MECHANISM_INVALID, "mechanism %s does not digest", m.Type.Short())
	}
	f := &streamFile{
		fs: d.fs, p: d.p, key: d.p.key(d.id(name)),
		guarded: func(context.Context, caller) bool { return false },
		start: func(ctx context.Context, s *session) (transform, error) {
			op, err := s.eng.Begin(ctx, p11.CKF_DIGEST, m, 0)
			if err != nil {
				return nil, err
			}
			return &digesting{op}, nil
		},
	}
	return &entry{id: d.id(name), place: d.p, perm: 0o660, fixed: true, file: f}, nil
}

type digesting struct{ op *engine.Operation }

func (t *digesting) update(ctx context.Context, part []byte) ([]byte, error) {
	return t.op.Update(ctx, part)
}

func (t *digesting) result(ctx context.Context) ([]byte, error) { return t.op.Result(ctx, nil) }

func (t *digesting) once() bool { return false }

func (t *digesting) close() { t.op.Close() }
