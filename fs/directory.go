package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A directory is what is behind a node that is one.
type directory interface {
	// list returns the names that the caller may see.
	list(ctx context.Context, c caller) ([]fuse.DirEntry, error)
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
)

// A listing is an open directory. It is made at the first read, and stays as it is
// until the directory is rewound. The kernel sends one request at a time.
type listing struct {
	node    *node
	entries []fuse.DirEntry
	loaded  bool
	next    int
}

// Readdirent returns the next entry, or nil at the end.
func (l *listing) Readdirent(ctx context.Context) (next *fuse.DirEntry, errno syscall.Errno) {
	if !l.loaded {
		errno = l.node.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
			entries, err := l.node.dir.list(ctx, c)
			if err == nil {
				l.entries, l.loaded = entries, true
				who := l.node.fs.callers.ownerOf(c)
				for i, e := range entries {
					if e.Mode == syscall.S_IFREG {
						entries[i].Ino = l.node.fs.fileIno(e.Ino, who)
					}
				}
			}
			return l.node.failed(c, err)
		})
	}
	if l.next >= len(l.entries) {
		return nil, errno
	}
	e := l.entries[l.next]
	l.next++
	e.Off = uint64(l.next)
	return &e, 0
}

// Seekdir continues at an offset that was given out. 0 makes the listing anew.
func (l *listing) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off > uint64(len(l.entries)) {
		return syscall.EINVAL
	}
	l.next = int(off)
	if off == 0 {
		l.entries, l.loaded = nil, false
	}
	return 0
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

func (d *staticDir) list(context.Context, caller) ([]fuse.DirEntry, error) {
	var list []fuse.DirEntry
	for _, e := range d.entries {
		if e.unlisted {
			continue
		}
		list = append(list, e.dirEntry(e.name, e.path, e.kind()))
	}
	return list, nil
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
