package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// Open opens the token directory, and with cfg.Create makes the token if there
// is none. An absent token gives CKR_TOKEN_NOT_PRESENT, a directory in another
// format CKR_TOKEN_NOT_RECOGNIZED; neither is written to.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Lock == nil || cfg.Log == nil || cfg.Now == nil || cfg.Format == nil {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s: the store's configuration is incomplete", cfg.Dir)
	}
	if cfg.kernel == nil {
		cfg.kernel = linux{}
	}
	s := &Store{
		cfg:    cfg,
		Lookup: tokens.Lookup{Index: tokens.NewIndex()},
		trying: make(chan struct{}, 1),
		format: cfg.Format,
		files:  make(map[format.Name]*file),
		bad:    make(map[format.Name]error), spoiled: make(map[string]string),
		ample: ample{room: cmp.Or(cfg.Room, tokens.DefaultRoom)},
	}
	s.creators.waits, s.destroyers.waits = s.waits, s.waits
	s.logins = tokens.NewLogins(&s.mu, s.validLocked, s.logoutLocked)
	var fresh *newToken
	if _, err := os.Lstat(filepath.Join(cfg.Dir, dataFile)); cfg.Create && errors.Is(err, fs.ErrNotExist) {
		if fresh, err = s.prepareToken(ctx); err != nil {
			return nil, err
		}
	}
	unlock, err := cfg.Lock.Lock(ctx)
	if err != nil {
		return nil, ioError("lock", cfg.Dir, err)
	}
	// The lock is given back for a while in between.
	defer func() {
		if uerr := unlock(); uerr != nil {
			cfg.Log.Error("token lock", "dir", cfg.Dir, "err", uerr)
		}
	}()
	defer func() {
		if err != nil {
			s.leave()
			s.closeFolders()
		}
	}()
	if s.top, err = s.openTop(cfg.Create); err != nil {
		return nil, err
	}
	raw, st, err := s.top.read(dataFile, maxDataFile)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		raw, st, err = s.makeToken(ctx, fresh)
	}
	short := func() bool {
		_, err := s.recognize(raw)
		return errors.Is(err, format.ErrShort)
	}
	for deadline := time.Now().Add(shortWait); err == nil && short() && time.Now().Before(deadline); {
		if unlock, err = pause(ctx, cfg.Lock, unlock); err == nil {
			raw, st, err = s.top.read(dataFile, maxDataFile)
		}
	}
	if err != nil {
		return nil, notRecognized(cfg.Dir, err)
	}
	if err := s.attach(raw, made); err != nil {
		return nil, err
	}
	s.dataStamp = st
	if err := s.openFiles(); err != nil {
		return nil, err
	}
	s.pending = changes{all: true}
	if index, err := s.objs.stamp(indexFile); err == nil && index.size > s.cfg.later() {
		s.loadLater(unlock)
		unlock = func() error { return nil } // the lock is that of the reading now
		return s, nil
	}
	if err := s.sync(ctx, true); err != nil {
		return nil, err
	}
	s.inspectObjects()
	return s, nil
}

// laterSize is from how large an OBJ.IDX on the objects are read after the store is open.
const laterSize = loadLot * format.IndexLine

func (c *Config) later() int64 { return cmp.Or(c.laterSize, laterSize) }

// loadLater reads the objects while the store is in use already: a daemon with a token of very
// many is ready at once. Whoever wants to know of an object, or to change something, waits for
// the token's lock, which is given back when all are read: Refresh and begin see that
// something is pending. What cannot be read is pending still, and the next one has the error.
func (s *Store) loadLater(unlock func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopLoading, s.loading = cancel, true
	s.active.Add(1)
	go func() {
		defer s.active.Done()
		defer cancel()
		if err := s.sync(ctx, true); err == nil {
			s.inspectObjects()
		} else if ctx.Err() == nil {
			s.cfg.Log.Error("the objects are not read", "dir", s.cfg.Dir, "err", err)
		}
		s.mu.Lock()
		s.loading = false
		s.mu.Unlock()
		if err := unlock(); err != nil {
			s.cfg.Log.Error("token lock", "dir", s.cfg.Dir, "err", err)
		}
	}()
}

// openFiles opens the directory of the objects, removes what a process that was
// killed left behind, and reads MK_SO. The token's lock is held.
func (s *Store) openFiles() (err error) {
	if s.objs, s.w, err = s.openObjects(s.top); err != nil {
		return err
	}
	s.sweep(s.top)
	s.sweep(s.objs)
	if s.cfg.Keys != nil {
		if d, done, err := s.keyFolder(false); err == nil {
			s.sweep(d)
			done()
		}
	}
	if s.soKey, s.keyStamp, err = s.soKeyNow(); err != nil {
		return err
	}
	s.inspectKeys()
	if s.nameKey, _, err = s.top.read(nameKeyFile, nameKeySize); err == nil && len(s.nameKey) == nameKeySize {
		s.nameKept = true
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.spoil(nameKeyFile, "it is not what it must be: the names that objects are shown by are others now")
	}
	s.nameKey = make([]byte, nameKeySize)
	_, _ = rand.Read(s.nameKey) // which never fails
	return nil
}

// keepNames puts the key of the names into the directory, unless another process has.
// That is done when the token is initialised, or with the first new object: opening a
// directory writes nothing. The token's lock is held.
func (s *Store) keepNames() {
	if s.nameKept {
		return
	}
	s.nameKept = true
	st, err := s.top.stamp(nameKeyFile)
	if err == nil && st.size != nameKeySize {
		_, err = s.top.write(nameKeyFile, s.nameKey)
	}
	if err == nil {
		s.spoil(nameKeyFile, "")
	} else {
		s.cfg.Log.Warn("the names that objects have now last until the daemon ends", "dir", s.cfg.Dir, "err", err)
	}
}

// notRecognized is the error of a directory that is not used.
func notRecognized(dir string, err error) error {
	if errors.Is(err, errUnfit) || errors.Is(err, format.ErrShort) {
		return p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s: %w", dir, err)
	}
	return p11.Errorf(ioRV(err), "%s: %w", dir, err)
}

// How long to wait for a stock process that truncated NVTOK.DAT to write it, and
// how often to look.
const (
	shortWait  = 1500 * time.Millisecond
	shortPause = 5 * time.Millisecond
)

// pause gives the lock back for a moment. If it cannot be had again, the unlock
// that it returns does nothing.
func pause(ctx context.Context, l Locker, unlock func() error) (func() error, error) {
	none := func() error { return nil }
	if err := unlock(); err != nil {
		return none, ioError("unlock", "token", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(shortPause):
	}
	unlock, err := l.Lock(ctx)
	if err != nil {
		return none, ioError("lock", "token", err)
	}
	return unlock, nil
}

// A newToken is the contents of the files of a token that is to be made.
type newToken struct{ data, soKey []byte }

// prepareToken makes the contents of a new token's files. It may take long, and is
// called without the token's lock where that can be known.
func (s *Store) prepareToken(ctx context.Context) (*newToken, error) {
	d, soKey, err := s.format.NewToken(ctx)
	if err != nil {
		return nil, err
	}
	return &newToken{s.format.PrintFile(d), soKey}, nil
}

// makeToken makes the token of a directory without NVTOK.DAT, whose arrival makes
// it whole, and returns what is in it. fresh is nil if NVTOK.DAT was there a moment
// ago.
func (s *Store) makeToken(ctx context.Context, fresh *newToken) (raw []byte, st stamp, err error) {
	if !s.cfg.Create {
		return nil, st, p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "there is no token: %w", fs.ErrNotExist)
	}
	// What MK_USER or an object index opened must not become unreadable because
	// NVTOK.DAT was lost.
	for _, left := range []string{userKeyFile, objectsDir + "/" + indexFile} {
		var fi unix.Stat_t
		if err := unix.Fstatat(s.top.fd, left, &fi, unix.AT_SYMLINK_NOFOLLOW); err == nil && fi.Size > 0 {
			return nil, st, p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "there is %s but no %s", left, dataFile)
		}
	}
	if fresh == nil {
		if fresh, err = s.prepareToken(ctx); err != nil {
			return nil, st, err
		}
	}
	if err := s.top.makeFolder(objectsDir); err != nil {
		return nil, st, err
	}
	if err := s.saveKey(p11.CKU_SO, fresh.soKey); err != nil {
		return nil, st, err
	}
	st, err = s.top.write(dataFile, fresh.data)
	return fresh.data, st, err
}

// openTop opens the token directory, making it with create.
func (s *Store) openTop(create bool) (*folder, error) {
	dir := filepath.Clean(s.cfg.Dir)
	if err := settle(s.cfg); err != nil {
		return nil, err
	}
	if create {
		return s.openMade(dir, "")
	}
	top, err := openFolder(unix.AT_FDCWD, dir, s.cfg.kernel, s.cfg.Group)
	if errors.Is(err, fs.ErrNotExist) {
		err = p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "no token in %s: %w", dir, fs.ErrNotExist)
	}
	return top, err
}

// openMade opens a directory, making it and those above that are absent, each
// durably. follow is "/." if it may be a symbolic link.
func (s *Store) openMade(dir, follow string) (*folder, error) {
	d, err := openFolder(unix.AT_FDCWD, dir+follow, s.cfg.kernel, s.cfg.Group)
	above := filepath.Dir(dir)
	if !errors.Is(err, fs.ErrNotExist) || above == dir {
		return d, err
	}
	parent, err := s.openMade(above, "/.")
	if err != nil {
		return nil, err
	}
	defer parent.close()
	if err := parent.makeFolder(filepath.Base(dir)); err != nil {
		return nil, err
	}
	return openFolder(unix.AT_FDCWD, dir+follow, s.cfg.kernel, s.cfg.Group)
}

// openObjects opens the directory of the objects, making it if it is absent.
func (s *Store) openObjects(top *folder) (objs *folder, w *watch, err error) {
	objs, err = openFolder(top.fd, objectsDir, s.cfg.kernel, s.cfg.Group)
	if errors.Is(err, fs.ErrNotExist) {
		if err := top.makeFolder(objectsDir); err != nil {
			return nil, nil, err
		}
		objs, err = openFolder(top.fd, objectsDir, s.cfg.kernel, s.cfg.Group)
	}
	if err != nil || s.cfg.noWatch {
		return objs, nil, err
	}
	// What changes from here on is heard of, so nothing is missed.
	if w, err = newWatch(top, objs); err != nil {
		s.cfg.Log.Warn("no watch on the token directory: every file is looked at before each use", "dir", s.cfg.Dir, "err", err)
	}
	return objs, w, nil
}

// closeFolders closes what is open of the two directories.
func (s *Store) closeFolders() {
	s.w.close()
	s.w = nil
	for _, f := range []*folder{s.objs, s.top} {
		if f != nil {
			f.close()
		}
	}
}
