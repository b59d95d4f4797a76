package store

import (
	"errors"
	"io/fs"

	"p11fs/p11"
	"p11fs/tokens"
)

// Keys are the files of the PINs of a token that has them for one user of the machine:
// nobody else reads them. Where they are absent nothing is wrong.
type Keys struct {
	Dir      string // one component, below the token directory
	SO, User string
}

// keyFileOf is the file that has the master key under a role's PIN.
func (s *Store) keyFileOf(r tokens.Role) string { return s.keyFileFor(r.User) }

func (s *Store) keyFileFor(u p11.UserType) string {
	if k := s.cfg.Keys; k != nil {
		if u == p11.CKU_SO {
			return k.SO
		}
		return k.User
	}
	return keyFileFor(u)
}

func keyFileFor(u p11.UserType) string {
	if u == p11.CKU_SO {
		return soKeyFile
	}
	return userKeyFile
}

// keyFolder opens the directory of the files of the PINs, and makes it where it is absent
// and make says so. done gives it back.
func (s *Store) keyFolder(make bool) (d *folder, done func(), err error) {
	if s.cfg.Keys == nil {
		return s.top, func() {}, nil
	}
	dir := s.cfg.Keys.Dir
	d, err = openFolder(s.top.fd, dir, s.cfg.kernel, NoGroup)
	if make && errors.Is(err, fs.ErrNotExist) {
		own := *s.top
		own.group = NoGroup
		if err = own.makeFolder(dir); err == nil {
			d, err = openFolder(s.top.fd, dir, s.cfg.kernel, NoGroup)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return d, d.close, nil
}

// readKeyFile returns the contents of a role's master key file, nil if it is absent or
// cannot be one.
func (s *Store) readKeyFile(u p11.UserType) ([]byte, error) {
	d, done, err := s.keyFolder(false)
	if err == nil {
		defer done()
		var b []byte
		if b, _, err = d.read(s.keyFileFor(u), maxKeyFile); err == nil {
			return b, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnfit) {
		return nil, nil
	}
	return nil, err
}

// soKeyNow is the contents of MK_SO and its stamp; nothing of a token that has Keys, whose
// C_InitToken is known by its objects and flags.
func (s *Store) soKeyNow() (key []byte, st stamp, err error) {
	if s.cfg.Keys != nil {
		return nil, st, nil
	}
	if st, err = s.top.stamp(soKeyFile); err == nil {
		key, err = s.readKeyFile(p11.CKU_SO)
	}
	return key, st, err
}

// A preparedKey is the next version of a role's key file, in the directory where it is.
type preparedKey struct {
	*prepared
	key  []byte
	done func()
}

// drop gives back what prepareKey has taken. nil has nothing.
func (p *preparedKey) drop() {
	if p != nil {
		p.prepared.drop()
		p.done()
	}
}

// prepareKey writes the next version of a role's key file, which the caller commits, and
// drops. For no key it is nil.
func (s *Store) prepareKey(u p11.UserType, key []byte) (*preparedKey, error) {
	if key == nil {
		return nil, nil
	}
	d, done, err := s.keyFolder(true)
	if err != nil {
		return nil, err
	}
	p, err := d.prepare(s.keyFileFor(u), key)
	if err != nil {
		done()
		return nil, err
	}
	return &preparedKey{p, key, done}, nil
}

// commitKey puts what prepareKey wrote in its place.
func (s *Store) commitKey(p *preparedKey) error {
	if p == nil {
		return nil
	}
	st, err := p.commit()
	if err != nil {
		return err
	}
	s.spoil(p.name, "")
	if p.name == soKeyFile {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.soKey, s.keyStamp = p.key, st
	}
	return nil
}

// saveKey replaces a role's key file.
func (s *Store) saveKey(u p11.UserType, key []byte) error {
	p, err := s.prepareKey(u, key)
	defer p.drop()
	if err != nil {
		return err
	}
	return s.commitKey(p)
}
