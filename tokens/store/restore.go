package store

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// Restore is tokens.Upkeep. The token is unpacked beside the one in its place, and then the
// two are exchanged under the token's lock.
func (u *Upkeep) Restore(ctx context.Context, r io.Reader, replace bool, before func() error) error {
	// Before anything is read, and again when the lock is held.
	if err := u.locked(ctx, func(s site) error { _, err := u.mayReplace(s, replace); return err }); err != nil {
		return err
	}
	s, err := u.site()
	if err != nil {
		return err
	}
	defer s.close()
	top, err := u.unpack(s, r)
	if err != nil {
		return err
	}
	defer top.close() // until then nobody else restores
	return u.locked(ctx, func(s site) error {
		used, err := u.mayReplace(s, replace)
		if err != nil {
			return err
		}
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		// An empty directory gives way to the new one.
		rerr := s.k.Rename(s.fd, s.beside(restoringDir), s.name)
		if rerr == nil {
			return s.sync()
		}
		if !errors.Is(rerr, unix.ENOTEMPTY) && !errors.Is(rerr, unix.EEXIST) {
			return ioError("rename", s.name, rerr)
		}
		if err := s.swap(restoringDir); err != nil {
			return err
		}
		if !used {
			return s.discard(restoringDir)
		}
		return u.keepReplaced(s)
	})
}

// mayReplace returns an error if there is a token that must stay, and whether there is one
// that anybody has used.
func (u *Upkeep) mayReplace(s site, replace bool) (used bool, err error) {
	now, err := u.look(s, s.name)
	if err != nil || now.present && now.data.Flags()&p11.CKF_TOKEN_INITIALIZED != 0 {
		used = true
	}
	for _, left := range []string{userKeyFile, objectsDir + "/" + indexFile} {
		if st, err := s.stamp(s.name + "/" + left); err != nil || st.size > 0 {
			used = true
		}
	}
	if !used {
		return false, nil
	}
	if !replace {
		return true, tokens.ErrInitialized
	}
	return true, u.noneReplaced(s)
}

// noneReplaced returns an error if a token that was replaced stands beside.
func (u *Upkeep) noneReplaced(s site) error {
	if other := beside(s, replacedDir); other != "" {
		return p11.Advise(p11.Errorf(p11.CKR_FUNCTION_REJECTED, "%s has what an earlier restore replaced", other), "move it away, or remove it")
	}
	return nil
}

// keepReplaced puts what a restored token has replaced where it stays.
func (u *Upkeep) keepReplaced(s site) error {
	if err := s.k.Rename(s.fd, s.beside(restoringDir), s.beside(replacedDir)); err != nil {
		return ioError("rename", s.beside(restoringDir), err)
	}
	return s.sync()
}

// unpack unpacks a backup beside the token, and returns its open directory.
func (u *Upkeep) unpack(s site, r io.Reader) (top *folder, err error) {
	// A restore that was killed right after the exchange has left the replaced token there.
	if old, oerr := s.open(s.beside(restoringDir)); oerr == nil {
		finished := old.absent(unfinishedMark)
		empty := true
		lerr := old.each(func(string) error { empty = false; return io.EOF })
		old.close()
		if (lerr == nil || errors.Is(lerr, io.EOF)) && finished && !empty {
			if err = u.noneReplaced(s); err == nil {
				err = u.keepReplaced(s)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if top, err = s.work(restoringDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.discard(restoringDir)
			top.close()
			top = nil
		}
	}()
	if err = top.empty(dataFile, soKeyFile, userKeyFile); err != nil {
		return top, err
	}
	if _, err = top.write(unfinishedMark, nil); err != nil {
		return top, err
	}
	if err = top.makeFolder(objectsDir); err != nil {
		return top, err
	}
	objs, err := openFolder(top.fd, objectsDir, s.k, s.group)
	if err != nil {
		return top, err
	}
	defer objs.close()
	err = ReadBackup(r, func(name string, b []byte, changed time.Time) error {
		object, ok := strings.CutPrefix(name, objectsDir+"/")
		if !ok {
			return top.putAside(name, b)
		}
		err := objs.putAside(object, b)
		if err == nil {
			_, err = objs.date(object, changed)
		}
		return err
	})
	if err == nil {
		err = u.fits(top, objs)
	}
	if err == nil {
		err = top.syncAll()
	}
	if err == nil {
		if err = top.remove(unfinishedMark); err == nil {
			err = top.sync()
		}
	}
	return top, err
}

// fits checks that what was unpacked is a token of the format that the configuration says,
// and removes the objects that were destroyed while the backup was made.
func (u *Upkeep) fits(top, objs *folder) error {
	raw, _, err := top.read(dataFile, maxDataFile)
	if err != nil {
		return err
	}
	if u.declared != nil {
		if _, err := u.declared.Recognize(raw); err != nil {
			return err
		}
	}
	if w, err := u.lookIn(top); err != nil || !w.present {
		return errors.Join(err, errNoBackup("its %s is none", dataFile))
	}
	index, _, err := objs.read(indexFile, maxIndexFile)
	if err != nil {
		return errNoBackup("it has no %s", indexFile)
	}
	listed := make(map[string]bool)
	for _, n := range format.ParseIndex(index).Names {
		listed[n.String()] = true
	}
	return objs.each(func(file string) error {
		if file == indexFile || listed[file] {
			return nil
		}
		return objs.remove(file)
	})
}
