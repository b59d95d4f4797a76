package fs

import (
	"context"
	"slices"
	"strings"
	"syscall"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// lookupImport finds the files that take keys and certificates in:
//
//	import  import:auto       whatever it is
//	import:pem  import:der  import:pkcs8  import:pkcs12  import:cert  import:pub
//
// and, with or without the kind, attributes: import:pkcs8,label=web,id=0x01. The
// objects are made at the close or at the read, and the read gives their names.
// The pass phrase of an encrypted file is written to passphrase before.
func (p place) lookupImport(name string) (*entry, error) {
	spec, ok := strings.CutPrefix(name, "import:")
	if !ok {
		return nil, errNoEntry
	}
	kind, template, err := parseImport(spec)
	if err != nil {
		return nil, err
	}
	return &entry{place: p, path: name, perm: 0o660, file: p.importFile(name, kind, template)}, nil
}

// parseImport reads what comes after import:
func parseImport(spec string) (pkix.Kind, p11.Attributes, error) {
	first, rest := "", spec
	if n := strings.IndexAny(spec+" ", ",= "); !strings.HasPrefix(spec[n:], "=") {
		first, rest = spec[:n], strings.TrimLeft(spec[n:], ", ")
	}
	kind, err := pkix.ParseKind(first)
	if err != nil {
		return 0, nil, err
	}
	template, err := p11.ParseTemplate(rest)
	return kind, template, err
}

func (p place) importFile(path string, kind pkix.Kind, template p11.Attributes) *file {
	return (&stream{place: p, path: path, creates: true, start: func(_ context.Context, s *session) (start, error) {
		data := &collection{s: s, limit: pkix.MaxSize, do: func(ctx context.Context, data []byte) ([]byte, error) {
			handles, err := importData(ctx, s, kind, data, template)
			if err != nil {
				return nil, err
			}
			return objects{p}.namesOf(ctx, s.app.eng, handles...)
		}}
		return start{transform: data, guarded: true}, nil
	}}).file()
}

// importData makes the objects that data holds: all of them or none.
func importData(ctx context.Context, s *session, kind pkix.Kind, data []byte, template p11.Attributes) ([]p11.ObjectHandle, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	pass := s.takeSecret(importSecret)
	defer pass.Close()
	objects, err := pkix.Parse(kind, data, pkix.Options{Passphrase: pass})
	if err != nil {
		return nil, badFile(err)
	}
	defer wipeAll(objects)
	return createAll(ctx, s, objects, template)
}

func wipeAll(list []p11.Attributes) {
	for _, o := range list {
		o.Wipe()
	}
}

// badFile adds to an error of pkix what to do about it.
func badFile(err error) error { return p11.Advise(err, pkix.Advice(p11.RVOf(err))) }

// createAll makes all of the objects, or none of them.
func createAll(ctx context.Context, s *session, objects []p11.Attributes, template p11.Attributes) ([]p11.ObjectHandle, error) {
	var list []p11.Attributes
	defer func() { wipeAll(list) }()
	for _, o := range objects {
		if err := usable(s.slot, o); err != nil {
			return nil, err
		}
		list = append(list, imported(o, template))
	}
	return s.eng.CreateObjects(ctx, list)
}

// usable refuses a key that no mechanism of the token could use.
func usable(slot *engine.Slot, o p11.Attributes) error {
	class, _ := o.Class()
	if !isKey(class) {
		return nil
	}
	kt, _ := o.Ulong(p11.CKA_KEY_TYPE)
	keyType := p11.KeyType(kt)
	for _, m := range slot.Mechanisms() {
		if facts, known := p11.MechanismFacts(m.Type); known && m.Flags&(p11.CKF_GENERATE|p11.CKF_GENERATE_KEY_PAIR) == 0 && slices.Contains(facts.KeyTypes, keyType) {
			return nil
		}
	}
	return refuse(syscall.EOPNOTSUPP, p11.CKR_MECHANISM_INVALID, "the token has no mechanism for keys of type "+keyType.Short()+": the file mechanisms lists what it has")
}

// imported is the template of an object from a file, with what the caller asked for.
func imported(o, template p11.Attributes) p11.Attributes {
	class, _ := o.Class()
	full := o.Merge(forClass(template, class))
	setDefaults(&full)
	return full
}
