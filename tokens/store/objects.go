package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"time"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// seal returns the object file of attrs. previous is the file that it replaces, or
// nil. A private one needs a login of the user.
func (s *Store) seal(n format.Name, attrs p11.Attributes, previous []byte) ([]byte, error) {
	codec, err := s.objectFiles()
	if err != nil {
		return nil, err
	}
	return codec.Seal(n, attrs, previous)
}

// publish makes attrs, which are in the object's file, the object's newest
// version. If the user logged out meanwhile a private object is not known here
// any more, and what is returned is gone already.
func (s *Store) publish(n format.Name, st stamp, private bool, attrs p11.Attributes) *tokens.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fileLocked(n)
	f.stamp, f.private = st, private
	s.setSizeLocked(f, st.size)
	delete(s.bad, n)
	if private && s.logins.KeyLocked(p11.CKU_USER) == nil {
		o := s.object(tokens.NewHandle(), n, attrs)
		o.Drop()
		return o
	}
	return s.putLocked(n, f, attrs)
}

// object is an object of the file n.
func (s *Store) object(h p11.ObjectHandle, n format.Name, attrs p11.Attributes) *tokens.Object {
	return named(h, newNamer(s.nameKey), n, attrs)
}

func named(h p11.ObjectHandle, names namer, n format.Name, attrs p11.Attributes) *tokens.Object {
	stored := n.String()
	o := tokens.NewObject(h, names.shown(stored), attrs).Pack()
	o.Stored = stored
	return o
}

// ShownName is the name of the object that is in that file, for everybody but the
// store: the names of files are numbers one after the other, and so would count the
// objects between two that somebody sees. The key is random, and kept in a file of the
// token's directory: so names last over restarts.
func ShownName(key []byte, file string) string {
	return newNamer(key).shown(file)
}

// A namer makes ShownNames with one key, one at a time.
type namer struct{ hash.Hash }

func newNamer(key []byte) namer { return namer{hmac.New(sha256.New, key)} }

func (n namer) shown(file string) string {
	n.Reset()
	_, _ = io.WriteString(n, "names of objects:"+file) // a hash takes all
	return hex.EncodeToString(n.Sum(nil)[:8])
}

// Update is tokens.Objects.
func (s *Store) Update(ctx context.Context, h p11.ObjectHandle, change func(p11.Attributes) (p11.Attributes, error)) (*tokens.Object, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return s.Index.Update(h, change, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		n, _ := format.ParseName(old.Stored)
		previous, _, err := s.objs.read(n.String(), format.MaxObjectFile)
		if err != nil {
			previous = nil // the object serves from memory
		}
		defer secret.Wipe(previous)
		b, err := s.seal(n, attrs, previous)
		if err != nil {
			return nil, err
		}
		defer secret.Wipe(b)
		if err := s.roomFor([]int64{s.sizeOf(n)}, []int64{int64(len(b))}); err != nil {
			return nil, err
		}
		st, err := s.objs.write(n.String(), b)
		if err != nil {
			return nil, err
		}
		s.shareChange(n, old.Private)
		return s.publish(n, st, old.Private, attrs), nil
	})
}

// Date is tokens.Dater: the time is that of the object's file.
func (s *Store) Date(ctx context.Context, h p11.ObjectHandle, at time.Time) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	same := func(attrs p11.Attributes) (p11.Attributes, error) { return attrs.Clone(), nil }
	_, err = s.Index.Update(h, same, func(old *tokens.Object, attrs p11.Attributes) (*tokens.Object, error) {
		n, _ := format.ParseName(old.Stored)
		st, err := s.objs.date(n.String(), at)
		if err != nil {
			return nil, err
		}
		return s.publish(n, st, old.Private, attrs), nil
	})
	return err
}
