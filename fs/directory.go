package fs

import (
	"context"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A directory is what is behind a node that is one.
type directory interface {
	// list returns the names that the caller may see.
	list(ctx context.Context, c caller) (entries, error)
	// lookup returns the entry of that name, or an error of ENOENT.
	lookup(ctx context.Context, c caller, name string) (*entry, error)

	mkdir(ctx context.Context, c caller, name string) (*entry, error)
	rmdir(ctx context.Context, c caller, name string) error
	unlink(ctx context.Context, c caller, name string) error
	// create makes a file and opens it.
	create(ctx context.Context, c caller, name string, flags uint32) (*entry, *handle, error)
}

// A renamer is a directory whose entries can be renamed, within it. What has the new
// name goes, if replace is set.
type renamer interface {
	rename(ctx context.Context, c caller, name, newName string, replace bool) error
}

var (
	_ renamer = (*objectsDir)(nil)
	_ renamer = (*contentDir)(nil)
)

// fixedNames is a directory's part in which nothing can be made or removed.
type fixedNames struct{}

func (fixedNames) mkdir(context.Context, caller, string) (*entry, error) { return nil, errFixed }
func (fixedNames) rmdir(context.Context, caller, string) error           { return errFixed }
func (fixedNames) unlink(context.Context, caller, string) error          { return errFixed }
func (fixedNames) create(context.Context, caller, string, uint32) (*entry, *handle, error) {
	return nil, nil, errFixed
}

var (
	_ gofs.FileReaddirenter = (*listing)(nil)
	_ gofs.FileSeekdirer    = (*listing)(nil)
	_ gofs.FileReleasedirer = (*listing)(nil)
)

// entries are what a directory had when its listing began.
type entries interface {
	// from returns some of them from a place on, each with the place behind it as its Off;
	// none at the end.
	from(ctx context.Context, place int) ([]fuse.DirEntry, error)
	// len is the place of the end.
	len() int
	// size is what so many places hold, in bytes.
	size(places int) int
}

// few are entries that are few enough to be held.
type few []fuse.DirEntry

func (e few) len() int { return len(e) }

func (e few) size(places int) int { return places * nameSize }

func (e few) from(_ context.Context, place int) ([]fuse.DirEntry, error) {
	for i := range e {
		e[i].Off = uint64(i + 1)
	}
	return e[place:], nil
}

// A listing is an open directory. What is in it is decided at the first read, and stays as it
// is until the directory is rewound; but what has gone meanwhile may be left out. The kernel
// sends one request at a time.
type listing struct {
	node  *node
	all   entries         // nil before the first read
	piece []fuse.DirEntry // that have been made, and not yet been asked for
	place int             // behind what was given
	held  int             // bytes in the account of uid, beside opened
	uid   uint32

	opener uint32
	opened int  // bytes in the account of opener until the end
	free   bool // one of the first of opener
	ended  bool
}

// openDirs are how many directories each uid has open.
type openDirs struct {
	mu   sync.Mutex // guards all below; nothing is locked under it
	open map[uint32]int
}

// freeDirs is how many open directories of a uid count little: who has no room left can still
// list what there is to be removed.
const freeDirs = 32

// add counts one more, or less, and returns how many there were.
func (d *openDirs) add(uid uint32, n int) (was int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[uint32]int{}
	}
	was = d.open[uid]
	if d.open[uid] += n; d.open[uid] == 0 {
		delete(d.open, uid)
	}
	return was
}

// newListing opens the directory n for the caller.
func (n *node) newListing(c caller) (*listing, error) {
	l := &listing{node: n, opener: c.uid, free: n.fs.dirs.add(c.uid, 1) < freeDirs}
	if l.free {
		return l, nil
	}
	if err := n.fs.config.Engine.Account(c.uid).Take(openSize); err != nil {
		n.fs.dirs.add(c.uid, -1)
		return nil, err
	}
	l.opened = openSize
	return l, nil
}

// Readdirent returns the next entry, or nil at the end.
func (l *listing) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	if len(l.piece) == 0 {
		errno := l.node.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
			return l.node.failed(c, l.read(ctx, c))
		})
		if errno != 0 || len(l.piece) == 0 {
			return nil, errno
		}
	}
	next := &l.piece[0]
	l.piece, l.place = l.piece[1:], int(next.Off)
	return next, 0
}

// read makes the next piece.
func (l *listing) read(ctx context.Context, c caller) (err error) {
	if l.all == nil {
		all, err := l.node.dir.list(ctx, c)
		if err != nil {
			return err
		}
		size := l.size(all)
		if err := l.node.fs.config.Engine.Account(c.uid).Take(size); err != nil {
			return err
		}
		l.all, l.held, l.uid = all, size, c.uid
	}
	if l.piece, err = l.all.from(ctx, l.place); err != nil {
		return err
	}
	who := l.node.fs.callers.ownerOf(c)
	for i, e := range l.piece {
		if e.Mode == syscall.S_IFREG {
			l.piece[i].Ino = l.node.fs.fileIno(e.Ino, who)
		}
	}
	return nil
}

// Seekdir continues at an offset that was given out. 0 makes the listing anew.
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off != 0 && (l.all == nil || off > uint64(l.all.len())) {
		return syscall.EINVAL
	}
	if off == 0 {
		l.drop()
	}
	l.place, l.piece = int(off), nil
	return 0
}

// size is what the listing of all counts.
func (l *listing) size(all entries) int {
	if l.free {
		return all.size(heldPlaces(all.len()))
	}
	return all.size(all.len()) + min(pieceLen, all.len())*nameSize
}

// Releasedir is closedir(3).
func (l *listing) Releasedir(context.Context, uint32) {
	l.drop()
	if l.ended {
		return
	}
	l.ended = true
	l.node.fs.config.Engine.Account(l.opener).Give(l.opened)
	l.node.fs.dirs.add(l.opener, -1)
}

// drop lets go of what was listed.
func (l *listing) drop() {
	if l.held > 0 {
		l.node.fs.config.Engine.Account(l.uid).Give(l.held)
	}
	l.all, l.piece, l.held = nil, nil, 0
}

// A staticDir is a directory whose names are always the same.
type staticDir struct {
	fixedNames
	place
	entries []named // in the order of the listing
	// other, if set, finds names that are not listed.
	other func(name string) (*entry, error)
	// views is set where the entries are views of the directory: removing them does
	// nothing, so that rm -r comes to the rmdir of the directory.
	views bool
}

type named struct {
	name string
	*entry
	unlisted bool // found by name alone
}

// add adds a name, which every caller finds, always.
func (d *staticDir) add(name string, e *entry) {
	e.everyones = e.file == nil
	d.entries = append(d.entries, named{name, e, false})
}

func (d *staticDir) addFile(name string, perm uint32, f *file) {
	d.add(name, &entry{place: d.place, path: name, perm: perm, file: f})
}

// addUnlisted adds a file that a listing does not have: a read of it may wait without end, and
// programs that read a whole tree are to come to one.
func (d *staticDir) addUnlisted(name string, perm uint32, f *file) {
	d.addFile(name, perm, f)
	d.entries[len(d.entries)-1].unlisted = true
}

func (d *staticDir) addText(name string, text func(ctx context.Context, c caller) ([]byte, error)) {
	d.addFile(name, 0o440, &file{text: text})
}

func (d *staticDir) addDir(name string, dir directory) {
	d.add(name, &entry{place: d.place, path: name, perm: 0o770, dir: dir})
}

func (d *staticDir) list(context.Context, caller) (entries, error) { return d.names(), nil }

func (d *staticDir) names() (list few) {
	for _, e := range d.entries {
		if e.unlisted {
			continue
		}
		list = append(list, e.dirEntry(e.name, e.path, e.kind()))
	}
	return list
}

func (d *staticDir) lookup(_ context.Context, _ caller, name string) (*entry, error) {
	for _, e := range d.entries {
		if e.name == name {
			return e.entry, nil
		}
	}
	if d.other != nil {
		return d.other(name)
	}
	return nil, errNoEntry
}

func (d *staticDir) unlink(_ context.Context, _ caller, name string) error {
	return d.remove(name, false)
}

func (d *staticDir) rmdir(_ context.Context, _ caller, name string) error {
	return d.remove(name, true)
}

func (d *staticDir) remove(name string, isDir bool) error {
	for _, e := range d.entries {
		if d.views && e.name == name && (e.dir != nil) == isDir {
			return nil
		}
	}
	return errFixed
}
