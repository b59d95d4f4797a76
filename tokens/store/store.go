package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"p11fs/p11"
	"p11fs/shm"
	"p11fs/tokens"
	"p11fs/tokens/store/format"
)

// The files of a token directory.
const (
	dataFile    = "NVTOK.DAT"
	soKeyFile   = "MK_SO"
	userKeyFile = "MK_USER"
	nameKeyFile = ".p11fs.names"   // random bytes, for ShownName
	countFile   = ".p11fs.counter" // see counter
	objectsDir  = "TOK_OBJ"
	indexFile   = "OBJ.IDX" // in objectsDir
)

// Bounds of what is read of these files, whatever their format is.
const (
	maxDataFile = 1 << 20
	maxKeyFile  = 1 << 16
	nameKeySize = 32
)

// NoGroup leaves files to their maker alone.
const NoGroup = -1

// A Locker is the token's lock: it keeps out the other goroutines that use it
// and, through a lock file, other processes. *locks.Lock is one.
type Locker interface {
	Lock(ctx context.Context) (unlock func() error, err error)
}

// Config says which directory a Store keeps, and how. All fields but Other, Create,
// Group, Keys, Room and Shared must be set.
type Config struct {
	// Dir is the token directory. Its last component is no symbolic link.
	Dir string
	// Format is the format of the directory, as new ones have it.
	Format format.Format
	// Other is a format that the directory may have instead, also one that takes its
	// place while the store is open; nil for none.
	Other format.Format
	// Lock is the token's lock. The store does not close it.
	Lock Locker
	// Create makes a token if there is none.
	Create bool
	// Group owns the files, with modes 0660 and 0770. With NoGroup they have
	// the modes 0600 and 0700.
	Group int
	// Keys says where the files of the PINs are; nil is MK_SO and MK_USER in Dir.
	Keys *Keys
	// Shared is the segment of shared memory that the token's stock processes
	// use; nil says that there are none.
	Shared *Shared

	// Room bounds the object files that are loaded, in bytes: 0 is tokens.DefaultRoom, a negative
	// number no bound.
	Room int64
	// Ended is told when nobody is logged in any more in a role. It may be nil, and does not
	// call the store.
	Ended func(p11.UserType)

	Log *slog.Logger
	Now func() time.Time

	kernel  kernel // linux{} but in tests
	segment func(*shm.TokenSegment) segment
	noWatch bool // look at every file, as if inotify were used up

	laterSize int64 // 0 but in tests: see loadLater
}

// A Store is one open token directory.
type Store struct {
	tokens.Lookup // of the objects that are known

	cfg    Config
	trying chan struct{} // has room for one: who tries a PIN, and sets trial

	// The token's lock, cfg.Lock, guards the directory, what seg points to and, in
	// memory, top, objs, seg, format, names, destroyed and counter: only its
	// holder changes them. mu is locked under it and nothing is locked under mu
	// but the index and objects; no I/O is done under mu but for reading w and
	// looking for seg's file.
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // lock sections; Add under mu while not closed
	busy   bool           // a lock section is past its sync and still runs
	// loading is set while loadLater reads the objects.
	loading bool

	stopLoading func() // set by Open, or nil; see loadLater

	top, objs *folder
	w         *watch
	pending   changes // heard of and not yet read
	syncing   bool    // what was pending is being read

	seg      segment                 // shared with stock processes; nil: none
	seen     []byte                  // seg's State as it was last read; empty: not at all
	findings map[format.Name]finding // what does not fit together in seg and directory

	format     format.Format // with the directory's byte order
	data       format.TokenData
	dataStamp  stamp
	shortSince time.Time // since when NVTOK.DAT has no data beside the segment
	soKey      []byte    // contents of MK_SO, to know another's C_InitToken by
	nameKey    []byte    // for ShownName; never changes
	nameKept   bool      // nameKey is in its file
	keyStamp   stamp     // of MK_SO
	idx        indexState
	files      map[format.Name]*file // what the index lists
	logins     *tokens.Logins
	trial      *trial      // of the PIN that is being looked at
	names      reservation // names that are ours to give out
	creators   crew[creation]
	destroyers crew[destruction]
	destroyed  recentNames           // names of which a stock process may bring something back
	bad        map[format.Name]error // files that give no object, and why
	spoiled    map[string]string     // other files that cannot be used, and why
	counter    counter
	unlisted   []format.Name // files of objects that had no line when the store was opened
	ample      ample
	said       said // of them in the log
}

var _ tokens.Storage = (*Store)(nil)

// A file is what is known of one object file.
type file struct {
	stamp   stamp
	size    int64            // what it takes of the room; 0 if it is not loaded
	handle  p11.ObjectHandle // 0: not in the index
	private bool
	failing time.Time // since when it cannot be read; the old version serves on
	// rewritten is set when another process has changed the file, and mend has
	// not yet seen to its entry.
	rewritten bool
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
	if s.stopLoading != nil {
		s.stopLoading()
	}
	s.active.Wait()
	s.detach()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.EndInvalidLocked()
	for _, o := range s.Index.RemoveAll(true) {
		o.Drop()
	}
	clear(s.files)
	s.closeFolders()
	return nil
}

// Info is tokens.Storage. The token's data was read before its objects: who asks for it does
// not wait while loadLater reads them, under the lock that keeps others from changing it.
func (s *Store) Info(ctx context.Context) (p11.TokenInfo, error) {
	s.mu.Lock()
	loading := s.loading && !s.closed
	s.mu.Unlock()
	if !loading {
		if err := s.Refresh(ctx); err != nil {
			return p11.TokenInfo{}, err
		}
	}
	_, d := s.snapshot()
	d = s.confirmed(d)
	return d.Info(s.cfg.Now()), nil
}
