package fs

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"p11fs/engine"
	"p11fs/p11"
	"p11fs/p11/pkix"
)

// lookupImport finds the files that take keys and certificates in:
//
//	import  import:auto       whatever it is
//	import:pem  import:der  import:pkcs8  import:pkcs12  import:cert  import:pub
//	import:template   a template for each object, one a line
//	import:aes  import:generic  and other types of secret key: the bytes of one
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

// A fileKind is what a file is to be that comes.
type fileKind struct {
	pkix.Kind
	// secret is set of a secret key's bytes, as they are; keyType is its type.
	secret  bool
	keyType p11.KeyType
}

// parseImport reads what comes after import:
func parseImport(spec string) (kind fileKind, template p11.Attributes, err error) {
	first, rest := "", spec
	if n := strings.IndexAny(spec+" ", ",= "); !strings.HasPrefix(spec[n:], "=") {
		first, rest = spec[:n], strings.TrimLeft(spec[n:], ", ")
	}
	if kind.keyType, kind.secret = secretWord(first); !kind.secret {
		if kind.Kind, err = pkix.ParseKind(first); err != nil {
			return fileKind{}, nil, p11.Advise(p11.Errorf(p11.CKR_ARGUMENTS_BAD, "unknown kind of file %q", clip(first)),
				"name "+pkix.KindNames()+", or a type of secret key, such as aes or generic, for its bytes")
		}
	}
	template, err = p11.ParseTemplate(rest)
	return kind, template, err
}

// secretWord is the type of secret key that a word of generate stands for.
func secretWord(word string) (p11.KeyType, bool) {
	k, known := keyKinds()[word]
	if !known || k.size != p11.CKA_VALUE_LEN {
		return 0, false
	}
	f, _ := p11.MechanismFacts(k.mechanism)
	return f.KeyTypes[0], true
}

func (p place) importFile(path string, kind fileKind, template p11.Attributes) *file {
	return (&stream{place: p, path: path, creates: true, start: func(_ context.Context, s *session) (start, error) {
		data := &collection{s: s, limit: pkix.MaxSize, do: func(ctx context.Context, data []byte) ([]byte, error) {
			return importData(ctx, s, p, kind, data, template)
		}}
		return start{transform: data, guarded: true}, nil
	}}).file()
}

// importData makes the objects that data holds: all of them or none. It returns a line
// for each of them, and for each thing in the file that is no object.
func importData(ctx context.Context, s *session, p place, kind fileKind, data []byte, template p11.Attributes) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	pass := s.takeSecret(importSecret)
	defer pass.Close()
	var lines bytes.Buffer
	objs, err := parseFile(ctx, s, kind, data, pkix.Options{
		Passphrase: pass, Arithmetic: s.slot.Arithmetic(),
		Skipped: func(what string) { fmt.Fprintf(&lines, "# left out: %s\n", what) },
	})
	if err != nil {
		return nil, badFile(err)
	}
	defer wipeAll(objs)
	skipped := lines.String()
	lines.Reset()
	placed, err := placeAll(ctx, s, newFileObjects(s, objs, template, kind.Kind == pkix.Template), objs)
	if err != nil {
		return nil, err
	}
	for _, o := range placed {
		name, err := objects{p}.namesOf(ctx, s.app.eng, o.handle)
		if err != nil {
			return nil, err
		}
		if o.there {
			lines.WriteString("# already there as ")
		}
		lines.Write(name)
	}
	lines.WriteString(skipped)
	return lines.Bytes(), nil
}

// parseFile is pkix.Parse, whom an encrypted file may ask for seconds of work.
func parseFile(ctx context.Context, s *session, kind fileKind, data []byte, o pkix.Options) ([]p11.Attributes, error) {
	if kind.secret {
		key := ofClass(p11.CKO_SECRET_KEY)
		key.Set(p11.CKA_KEY_TYPE, p11.Ulong(kind.keyType))
		key.Set(p11.CKA_VALUE, bytes.Clone(data)) // which is wiped with the template
		return []p11.Attributes{key}, nil
	}
	end, err := s.app.account.Long(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return pkix.Parse(kind.Kind, data, o)
}

func wipeAll(list []p11.Attributes) {
	for _, o := range list {
		o.Wipe()
	}
}

// badFile adds to an error of pkix what to do about it.
func badFile(err error) error { return p11.Advise(err, pkix.Advice(p11.RVOf(err))) }

// A placed is an object of a file that is in the token now.
type placed struct {
	handle p11.ObjectHandle
	there  bool // and was before
}

// An importer is a uid on a slot.
type importer struct {
	slot    *engine.Slot
	account *engine.Account
}

// placeAll makes those of the objects that are not there: all of them, or none. One
// such thing of a uid is done at a time on a slot, so that what comes twice at once is made
// once.
func placeAll(ctx context.Context, s *session, f *fileObjects, objs []p11.Attributes) ([]placed, error) {
	turn, _ := s.fs.imports.LoadOrStore(importer{s.slot, s.app.account}, make(chan struct{}, 1))
	select {
	case turn.(chan struct{}) <- struct{}{}:
		defer func() { <-turn.(chan struct{}) }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	list, full := make([]placed, len(objs)), make([]p11.Attributes, len(objs))
	defer func() { wipeAll(full) }()
	for _, keys := range []bool{true, false} { // certificates go by their keys
		for i, o := range objs {
			if class, _ := o.Class(); isKey(class) == keys {
				full[i], list[i] = f.look(ctx, o)
			}
		}
	}
	var lacking []p11.Attributes
	var at []int
	for i := range objs {
		if !list[i].there {
			lacking, at = append(lacking, full[i]), append(at, i)
		}
	}
	if lacking == nil {
		return list, ctx.Err()
	}
	made, err := s.eng.CreateObjects(ctx, lacking)
	for n, h := range made {
		list[at[n]].handle = h
	}
	return list, err
}
