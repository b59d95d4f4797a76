package softhsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"p11fs/foreign"
	"p11fs/p11"
	"p11fs/secret"
)

// The attributes of the object that describes the token.
const (
	attrLabel  p11.AttributeType = 0x80005349
	attrSerial p11.AttributeType = 0x8000534a
	attrSOKey  p11.AttributeType = 0x8000534c
	attrKey    p11.AttributeType = 0x8000534d
)

// The files of a token's directory.
const (
	tokenFile    = "token.object"
	databaseFile = "sqlite3.db"
	objectSuffix = ".object"
)

// A Token is a directory that SoftHSM2 has made. It is only read.
type Token struct {
	Label, Serial string

	dir   string
	token p11.Attributes
	db    *database // nil of the file back end
}

// Is reports whether there is a token in the directory.
func Is(dir string) bool { return backend(dir) != "" }

func backend(dir string) string {
	for _, name := range []string{tokenFile, databaseFile} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// Find returns the tokens' directories: dir itself, or those in it.
func Find(dir string) ([]string, error) {
	if Is(dir) {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	var list []string
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); Is(path) {
			list = append(list, path)
		}
	}
	return list, err
}

// Open opens a token's directory. It is the caller's to close.
func Open(dir string) (*Token, error) {
	t := &Token{dir: dir}
	var err error
	switch backend(dir) {
	case tokenFile:
		var file []byte
		if file, err = readFile(filepath.Join(dir, tokenFile)); err != nil {
			return nil, err
		}
		var s stored
		if s, err = parseObject(file); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, tokenFile), err)
		}
		t.token = s.attrs
	case databaseFile:
		if t.db, err = openDatabase(filepath.Join(dir, databaseFile)); err != nil {
			return nil, err
		}
		var s stored
		if s, err = t.db.object(tokenObject); err != nil {
			return nil, errors.Join(fmt.Errorf("%s is damaged: %w", filepath.Join(dir, databaseFile), err), t.db.close())
		}
		t.token = s.attrs
	default:
		return nil, fmt.Errorf("%s has neither %s nor %s: name the directory of a token of SoftHSM2", dir, tokenFile, databaseFile)
	}
	label, _ := t.token.Get(attrLabel)
	serial, _ := t.token.Get(attrSerial)
	t.Label, t.Serial = strings.TrimRight(string(label), " "), string(serial)
	return t, nil
}

// Close closes the store.
func (t *Token) Close() error {
	if t.db != nil {
		return t.db.close()
	}
	return nil
}

// readFile reads a file of the store, which is neither a link nor endless.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	b, err := io.ReadAll(io.LimitReader(f, foreign.MaxObject+1))
	if err == nil && len(b) > foreign.MaxObject {
		err = fmt.Errorf("%s is longer than %d bytes", path, foreign.MaxObject)
	}
	return b, err
}

// Objects reads all objects, with the PIN of the user or, where so is true, that of the
// SO. What is wrong with one of them is its Err; a wrong PIN is CKR_PIN_INCORRECT.
// progress is told how many of how many are read.
func (t *Token) Objects(ctx context.Context, pin *secret.Bytes, so bool, progress func(done, total int)) (list []foreign.Object, err error) {
	which, who := attrKey, "user"
	if so {
		which, who = attrSOKey, "SO"
	}
	blob, ok := t.token.Get(which)
	if !ok || len(blob) == 0 {
		return nil, p11.Errorf(p11.CKR_USER_PIN_NOT_INITIALIZED, "the SoftHSM2 token has no PIN of the %s: softhsm2-util sets one", who)
	}
	key, err := openKey(blob, pin)
	if err != nil {
		return nil, err
	}
	defer key.Close()
	names, read, err := t.list()
	if err != nil {
		return nil, err
	}
	if len(names) > foreign.MaxObjects {
		return nil, fmt.Errorf("the token has more than %d objects", foreign.MaxObjects)
	}
	total := 0
	for i, name := range names {
		if ctx.Err() != nil {
			foreign.WipeAll(list)
			return nil, ctx.Err()
		}
		s, err := read(name)
		o := foreign.Object{Place: name, Attrs: s.attrs, Err: err}
		if err == nil {
			o.Attrs, o.Err = s.open(key)
		}
		for _, a := range o.Attrs {
			total += len(a.Value)
		}
		list = append(list, o)
		if total > foreign.MaxTotal {
			foreign.WipeAll(list)
			return nil, fmt.Errorf("the objects of the token have more than %d bytes", foreign.MaxTotal)
		}
		progress(i+1, len(names))
	}
	return list, nil
}

// list returns what the objects are called, and what reads one.
func (t *Token) list() ([]string, func(string) (stored, error), error) {
	if t.db != nil {
		names, err := t.db.objects()
		return names, t.db.named, err
	}
	entries, err := os.ReadDir(t.dir)
	var names []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, objectSuffix) && name != tokenFile {
			names = append(names, name)
		}
	}
	return names, func(name string) (stored, error) {
		file, err := readFile(filepath.Join(t.dir, name))
		if err != nil {
			return stored{}, err
		}
		defer secret.Wipe(file)
		return parseObject(file)
	}, err
}

// open decrypts the values of a private object, in place of those that it has. What fails
// leaves the object with the attributes that need no key.
func (s stored) open(key *secret.Bytes) (p11.Attributes, error) {
	if _, ok := s.attrs.Class(); !ok {
		s.attrs.Wipe()
		return nil, errors.New("it has no class")
	}
	// Each object has this one, and in a file it stands behind all that say what the
	// object is.
	if !s.attrs.Has(p11.CKA_MODIFIABLE) {
		s.attrs.Wipe()
		return nil, errCut
	}
	var failed error
	open := p11.Attributes{}
	for _, a := range s.attrs {
		// A date is shorter than anything encrypted: it stands in the clear.
		clear := len(a.Value) == 0 || p11.KindOf(a.Type) == p11.KindDate && len(a.Value) == 8
		if s.attrs.Bool(p11.CKA_PRIVATE) && s.bytes[a.Type] && !clear {
			var value []byte
			var err error
			key.Use(func(k []byte) { value, err = decrypt(k, a.Value) })
			if err != nil {
				failed = fmt.Errorf("%s: %w", a.Type.Short(), err)
				continue
			}
			a.Value = value
		}
		open = append(open, a)
	}
	if failed == nil {
		failed = open.Validate()
	}
	return open, failed
}
