package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"p11fs/p11"
	"p11fs/secret"
	"p11fs/shm"
	"p11fs/tokens"
)

// The files of a token directory.
const (
	dataFile    = "NVTOK.DAT"
	soKeyFile   = "MK_SO"
	userKeyFile = "MK_USER"
	objectsDir  = "TOK_OBJ"
	indexFile   = "OBJ.IDX" // in objectsDir
	// objectTemp is the temporary name of any object file.
	objectTemp = ".p11fs.object"
)

// NoGroup says that files belong to their maker alone.
const NoGroup = -1

// A Locker is the token's lock: it keeps out the other goroutines that use it
// and, through a lock file, other processes. *locks.Lock is one.
type Locker interface {
	Lock(ctx context.Context) (unlock func() error, err error)
}

// Config says which directory a Store keeps, and how. All fields but Create and
// Group must be set.
type Config struct {
	// Dir is the token directory. Its last component is no symbolic link.
	Dir string
	// Kind is the kind of token that the directory belongs to.
	Kind Kind
	// Lock is the token's lock. The store does not close it.
	Lock Locker
	// Create says that a token is made if there is none.
	Create bool
	// Group owns the files, with modes 0660 and 0770. With NoGroup they have
	// the modes 0600 and 0700.
	Group int
	// Shared is the segment of shared memory that the token's stock processes
	// use; nil says that there are none.
	Shared *Shared

	Log  *slog.Logger
	Now  func() time.Time
	Rand io.Reader

	kernel  kernel // linux{} but in tests
	segment func(*shm.TokenSegment) segment
	noWatch bool // look at every file, as if inotify were used up
}

// A Store is one open token directory. It implements tokens.Admin and
// tokens.Objects.
type Store struct {
	cfg   Config
	index *tokens.Index

	// The token's lock, cfg.Lock, guards the directory, what seg points to and,
	// in memory, top, objs, seg, names, unknown and destroyed: only its holder changes them. mu is
	// locked under it and nothing is locked under mu but the index and objects;
	// no I/O is done under mu but for reading w and looking for seg's file.
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // lock sections; Add under mu while not closed
	busy   bool           // a lock section is past its sync and still runs

	top, objs *folder
	w         *watch
	pending   changes // heard of and not yet read

	seg      segment          // shared with stock processes; nil: none
	seen     []byte           // seg's State as it was last read; empty: not at all
	findings map[name]finding // what does not fit together in seg and directory

	data       tokenData
	dataStamp  stamp
	shortSince time.Time // since when NVTOK.DAT has no data beside the segment
	soKey      []byte    // contents of MK_SO, to know another's C_InitToken by
	keyStamp   stamp     // of MK_SO
	idx        indexState
	unknown    []string        // lines of OBJ.IDX that are no names, as they were logged
	files      map[name]*file  // what the index lists
	count      [2]int          // objects in the index: public, private
	roles      [2]role         // by roleOf: SO, user
	names      reservation     // names that are ours to give out
	destroyed  recentNames     // names of which a stock process may bring something back
	bad        map[name]Damage // files that give no object
}

// A file is what is known of one object file.
type file struct {
	stamp   stamp
	handle  p11.ObjectHandle // 0: not in the index
	private bool
	failing time.Time // since when it cannot be read; the old version serves on
	// rewritten says that another process has changed the file, and mend has
	// not yet seen to its entry.
	rewritten bool
}

// A role is the logins of the SO or of the user.
type role struct {
	key        *secret.Bytes // the opened master key; nil without logins
	logins     int
	generation uint64 // logins of other eras are no longer valid
}

// A Damage is an object file that gives no object.
type Damage struct {
	Name string
	Err  error
}

// Open opens the token directory, and with cfg.Create makes the token if there
// is none. An absent token gives CKR_TOKEN_NOT_PRESENT, a directory in another
// format CKR_TOKEN_NOT_RECOGNIZED; neither is written to.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Lock == nil || cfg.Log == nil || cfg.Now == nil || cfg.Rand == nil || cfg.Kind.MasterKeyLen < dataKeyLen {
		return nil, p11.Errorf(p11.CKR_ARGUMENTS_BAD, "%s: the store's configuration is incomplete", cfg.Dir)
	}
	if cfg.kernel == nil {
		cfg.kernel = linux{}
	}
	unlock, err := cfg.Lock.Lock(ctx)
	if err != nil {
		return nil, ioError("lock", cfg.Dir, err)
	}
	// waitForData gives the lock back for a while.
	defer func() {
		if uerr := unlock(); uerr != nil {
			cfg.Log.Error("token lock", "dir", cfg.Dir, "err", uerr)
		}
	}()
	s := &Store{
		cfg:   cfg,
		index: tokens.NewIndex(),
		files: make(map[name]*file),
		bad:   make(map[name]Damage),
	}
	defer func() {
		if err != nil {
			s.leave()
			s.w.close()
			if s.objs != nil {
				s.objs.close()
			}
			if s.top != nil {
				s.top.close()
			}
		}
	}()
	if s.top, err = s.openTop(cfg.Create); err != nil {
		return nil, err
	}
	raw, st, err := s.top.read(dataFile, dataSize)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		if !cfg.Create {
			return nil, p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "no token in %s: %w", cfg.Dir, fs.ErrNotExist)
		}
		err = s.format()
		raw, st = bytes.Clone(s.data[:]), s.dataStamp
	}
	for deadline := time.Now().Add(shortWait); err == nil && len(raw) < dataSize && time.Now().Before(deadline); {
		if unlock, err = pause(ctx, cfg.Lock, unlock); err == nil {
			raw, st, err = s.top.read(dataFile, dataSize)
		}
	}
	if err != nil {
		return nil, notRecognized(cfg.Dir, err)
	}
	if err := s.attach(raw, made); err != nil {
		return nil, err
	}
	s.dataStamp = st
	if s.objs, s.w, err = s.openObjects(s.top); err != nil {
		return nil, err
	}
	for _, temp := range []string{tempName(dataFile), tempName(soKeyFile), tempName(userKeyFile)} {
		_ = s.top.remove(temp)
	}
	for _, temp := range []string{objectTemp, tempName(indexFile)} {
		_ = s.objs.remove(temp)
	}
	if s.keyStamp, err = s.top.stamp(soKeyFile); err != nil {
		return nil, err
	}
	if s.soKey, err = s.readKeyFile(soKeyFile); err != nil {
		return nil, err
	}
	s.pending = changes{all: true}
	if err := s.sync(ctx, true); err != nil {
		return nil, err
	}
	return s, nil
}

// notRecognized is the error of a directory that is not used.
func notRecognized(dir string, err error) error {
	if errors.Is(err, errUnfit) || errors.Is(err, errShort) {
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
	t := time.NewTimer(shortPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	unlock, err := l.Lock(ctx)
	if err != nil {
		return none, ioError("lock", "token", err)
	}
	return unlock, nil
}

// openTop opens the token directory, making it with create.
func (s *Store) openTop(create bool) (*folder, error) {
	dir := filepath.Clean(s.cfg.Dir)
	top, err := openFolder(unix.AT_FDCWD, dir, s.cfg.kernel, s.cfg.Group)
	if !errors.Is(err, fs.ErrNotExist) {
		return top, err
	}
	if !create {
		return nil, p11.Errorf(p11.CKR_TOKEN_NOT_PRESENT, "no token in %s: %w", dir, fs.ErrNotExist)
	}
	if err := s.makePath(dir); err != nil {
		return nil, err
	}
	return openFolder(unix.AT_FDCWD, dir, s.cfg.kernel, s.cfg.Group)
}

// makePath makes a directory and those above it that are absent, each durably.
func (s *Store) makePath(dir string) error {
	above := filepath.Dir(dir) // which may be a symbolic link
	parent, err := openFolder(unix.AT_FDCWD, above+"/.", s.cfg.kernel, s.cfg.Group)
	if errors.Is(err, fs.ErrNotExist) && above != dir {
		if err := s.makePath(above); err != nil {
			return err
		}
		parent, err = openFolder(unix.AT_FDCWD, above+"/.", s.cfg.kernel, s.cfg.Group)
	}
	if err != nil {
		return err
	}
	defer parent.close()
	if err := s.makeFolder(parent.fd, filepath.Base(dir)); err != nil {
		return err
	}
	return parent.sync()
}

// openObjects opens the directory of the objects, making it if it is absent.
func (s *Store) openObjects(top *folder) (objs *folder, w *watch, err error) {
	objs, err = openFolder(top.fd, objectsDir, s.cfg.kernel, s.cfg.Group)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeFolder(top.fd, objectsDir); err != nil {
			return nil, nil, err
		}
		if err := top.sync(); err != nil {
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

func (s *Store) makeFolder(at int, path string) error {
	err := s.cfg.kernel.Mkdir(at, path, dirMode(s.cfg.Group), s.cfg.Group)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return ioError("create", path, err)
	}
	return nil
}

// format makes the token of a directory without NVTOK.DAT, whose arrival
// makes it whole.
func (s *Store) format() error {
	// What MK_USER or an object index opened must not become unreadable because
	// NVTOK.DAT was lost.
	for _, left := range []string{userKeyFile, objectsDir + "/" + indexFile} {
		var st unix.Stat_t
		if err := unix.Fstatat(s.top.fd, left, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Size > 0 {
			return p11.Errorf(p11.CKR_TOKEN_NOT_RECOGNIZED, "%s has %s but no %s", s.cfg.Dir, left, dataFile)
		}
	}
	if err := s.makeFolder(s.top.fd, objectsDir); err != nil {
		return err
	}
	master, err := s.cfg.Kind.newMasterKey(s.cfg.Rand)
	if err != nil {
		return err
	}
	defer master.Close()
	pin, err := secret.New([]byte(defaultSOPIN))
	if err != nil {
		return err
	}
	defer pin.Close()
	wrapped, err := s.cfg.Kind.wrap(master, pin)
	if err != nil {
		return err
	}
	if _, err := s.top.write(soKeyFile, tempName(soKeyFile), wrapped); err != nil {
		return err
	}
	s.data = newTokenData(s.cfg.Kind)
	s.dataStamp, err = s.top.write(dataFile, tempName(dataFile), s.data[:])
	return err
}

// readKeyFile returns the contents of a master key file, nil if it is absent or
// cannot be one.
func (s *Store) readKeyFile(file string) ([]byte, error) {
	b, _, err := s.top.read(file, int64(s.cfg.Kind.wrappedLen()))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnfit) {
		return nil, nil
	}
	return b, err
}

// Close ends all logins, wipes the objects and gives the directory back. It
// waits for what still runs, and may be called again.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.active.Wait()
	s.detach()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.roles {
		s.endLoginsLocked(&s.roles[i])
	}
	for n := range s.files {
		s.forgetLocked(n)
	}
	s.w.close()
	s.w = nil
	s.objs.close()
	s.top.close()
	return nil
}

// Info returns the token's data. The session counts are not the store's.
func (s *Store) Info() p11.TokenInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.info(s.cfg.Now())
}

// Damaged returns the object files that give no object, in the order of their
// names.
func (s *Store) Damaged() []Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedDamage(s.bad)
}
