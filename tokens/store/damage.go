package store

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

var _ tokens.Inspector = (*Store)(nil)

// Damaged is tokens.Inspector: files that hold no object, no key or no name, and object
// files that OBJ.IDX does not list, as when a line was lost.
func (s *Store) Damaged() (all []tokens.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for file, why := range s.spoiled {
		all = append(all, tokens.Damage{File: file, Why: why})
	}
	noRoom, more := s.ample.unnamed, 0
	for n, err := range s.bad {
		switch {
		case errors.Is(err, errNoRoom):
			noRoom++
		case len(all) < maxTold:
			all = append(all, tokens.Damage{File: objectPath(n), Why: err.Error()})
		default:
			more++
		}
	}
	if noRoom > 0 {
		all = append(all, s.noRoomLocked(noRoom))
	}
	if more > 0 {
		all = append(all, tokens.Damage{File: objectsDir, Why: fmt.Sprintf("%d object files more are damaged", more)})
	}
	for _, n := range s.unlisted {
		if s.files[n] == nil {
			all = append(all, tokens.Damage{File: objectPath(n), Why: "there is no line for it in " + indexFile + ", so it is no object"})
		}
	}
	slices.SortFunc(all, func(a, b tokens.Damage) int { return cmp.Compare(a.File, b.File) })
	return all
}

func objectPath(n format.Name) string { return filepath.Join(objectsDir, n.String()) }

// spoil notes that a file, of another kind than objects, cannot be used, and why; or
// that it can, if why is empty.
func (s *Store) spoil(file, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.spoiled[file]
	if s.spoiled[file] = why; why == "" {
		delete(s.spoiled, file)
	}
	if why != "" && why != was && s.saysLocked(s.cfg.Now()) {
		s.cfg.Log.Warn("a file of the token is damaged", "dir", s.cfg.Dir, "file", file, "why", why)
	}
}

// inspectKeys looks whether the master key files can be what they are. Whether they are,
// only a right PIN shows. It is called once, when no other process can be half done
// with a change of a PIN for long.
func (s *Store) inspectKeys() {
	if s.cfg.Keys != nil {
		return
	}
	f, d := s.snapshot()
	for u, must := range map[p11.UserType]bool{p11.CKU_SO: true, p11.CKU_USER: f.UserPINSet(d)} {
		key, err := s.readKeyFile(u)
		why := ""
		switch {
		case err != nil:
			why = err.Error()
		case key == nil && must:
			why = "it is absent"
		case key != nil && len(key) != f.KeyFileSize():
			why = fmt.Sprintf("it has %d bytes, not %d", len(key), f.KeyFileSize())
		}
		s.spoil(keyFileFor(u), why)
	}
}

// maxTold bounds how many damaged files, and files that no line names, are told one by one:
// there may be any number.
const maxTold = 1000

// inspectObjects looks for files of objects that the index does not list. The token's
// lock is held.
func (s *Store) inspectObjects() {
	if s.ample.unnamed > 0 {
		return // names that have lines are not known
	}
	files := 0
	var unlisted []format.Name
	err := s.objs.each(func(text string) error {
		n, ok := format.ParseName(text)
		s.mu.Lock()
		known := s.files[n] != nil
		s.mu.Unlock()
		if ok && !known {
			if files++; files <= maxTold {
				unlisted = append(unlisted, n)
			}
		}
		return nil
	})
	if err != nil {
		s.cfg.Log.Warn("no look at the object files", "dir", s.cfg.Dir, "err", err)
	}
	if files > 0 {
		s.cfg.Log.Warn("object files without a line in "+indexFile+" are no objects", "dir", s.cfg.Dir, "files", files, "first", unlisted[:min(files, saidLines)])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unlisted = unlisted
}

// noteKey notes what a right PIN shows of a role's key file.
func (s *Store) noteKey(r tokens.Role, key bool) {
	why := ""
	if !key {
		why = "the right PIN does not open it"
	}
	s.spoil(s.keyFileOf(r), why)
}
