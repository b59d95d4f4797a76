package fs

import (
	"context"
	"errors"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// maxName is the longest name of a directory entry, in bytes.
const maxName = 255

// Lookup finds one name. A name that is there in another form, such as an
// operation that the key's attributes forbid, has an errno of its own.
func (n *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	e, errno := n.find(ctx, c, name)
	if errno != 0 {
		return nil, errno
	}
	n.fs.entryOut(ctx, c, e, out)
	return n.inode(ctx, e), 0
}

func (n *dirNode) find(ctx context.Context, c caller, name string) (*entry, syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	e, err := n.dir.lookup(ctx, c, name)
	if err != nil {
		errno := errnoFor(err)
		switch {
		case errno != syscall.ENOENT:
			_ = n.fs.done(c, n.place, err)
		case errors.Is(err, p11.CKR_OBJECT_HANDLE_INVALID):
			_ = n.fs.hint(c, n.place, err)
		}
		return nil, errno
	}
	return e, 0
}

// OpendirHandle opens a listing. It is made at the first read, and stays as it
// is until the directory is rewound.
func (n *dirNode) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if errno := n.standing(callerOf(ctx)); errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{node: n}, 0, 0
}

// dirHandle is an open directory. The kernel sends one request at a time.
type dirHandle struct {
	node   *dirNode
	names  []listed
	loaded bool
	next   int
}

// Readdirent returns the next entry, or nil at the end.
func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	ctx, end := h.node.fs.patience(ctx)
	defer end()
	if !h.loaded {
		if errno := h.load(ctx); errno != 0 {
			return nil, errno
		}
	}
	if h.next >= len(h.names) {
		return nil, 0
	}
	l := h.names[h.next]
	h.next++
	return &fuse.DirEntry{Name: l.name, Mode: l.kind, Ino: h.node.fs.ino(l.id), Off: uint64(h.next)}, 0
}

func (h *dirHandle) load(ctx context.Context) syscall.Errno {
	if ctx.Err() != nil {
		return syscall.EINTR
	}
	names, err := h.node.dir.list(ctx, callerOf(ctx))
	if err != nil {
		return h.node.fs.done(callerOf(ctx), h.node.place, err)
	}
	h.names, h.loaded = names, true
	return 0
}

// Seekdir continues at an offset that was given out; 0 makes the listing anew.
func (h *dirHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if off == 0 {
		h.names, h.loaded, h.next = nil, false, 0
		return 0
	}
	if off > uint64(len(h.names)) {
		return syscall.EINVAL
	}
	h.next = int(off)
	return 0
}

// Mkdir makes a session directory where there can be one.
func (n *dirNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	m, ok := n.dir.(dirMaker)
	if !ok {
		return nil, n.fs.done(c, n.place, errFixed)
	}
	e, err := m.mkdir(ctx, c, name)
	if errno := n.fs.done(c, n.place, err); errno != 0 {
		return nil, errno
	}
	n.fs.entryOut(ctx, c, e, out)
	return n.inode(ctx, e), 0
}

// Rmdir destroys an object or closes a session.
func (n *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	r, ok := n.dir.(dirRemover)
	if !ok {
		return n.fs.done(c, n.place, errFixed)
	}
	return n.fs.done(c, n.place, r.rmdir(ctx, c, name))
}

// Unlink removes a file where it is one of its own, and takes no notice where
// it is a view of its directory, so that rm -r of the directory comes to the
// end.
func (n *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	u, ok := n.dir.(unlinker)
	if !ok {
		return n.fs.done(c, n.place, errFixed)
	}
	return n.fs.done(c, n.place, u.unlink(ctx, c, name))
}

// Rename sets a label.
func (n *dirNode) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	r, ok := n.dir.(renamer)
	if !ok {
		return n.fs.done(c, n.place, errFixed)
	}
	if to, ok := newParent.(*dirNode); !ok || to.id != n.id {
		return n.fs.done(c, n.place, errElsewhere)
	}
	if flags&^unix.RENAME_NOREPLACE != 0 || len(newName) > maxName {
		return n.fs.done(c, n.place, errRename)
	}
	return n.fs.done(c, n.place, r.rename(ctx, c, name, newName, flags))
}

// Create makes a file where there can be one.
func (n *dirNode) Create(ctx context.Context, name string, flags, _ uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	if len(name) > maxName {
		return nil, nil, 0, syscall.ENAMETOOLONG
	}
	m, ok := n.dir.(creator)
	if !ok {
		err := errFixed
		// A view of an object that went away between the kernel's look at it
		// and its open.
		if _, gone := n.dir.lookup(ctx, c, name); errors.Is(gone, p11.CKR_OBJECT_HANDLE_INVALID) {
			err = gone
		}
		return nil, nil, 0, n.fs.done(c, n.place, err)
	}
	e, h, err := m.create(ctx, c, name, flags)
	if err != nil {
		return nil, nil, 0, n.fs.done(c, n.place, err)
	}
	n.fs.entryOut(ctx, c, e, out)
	return n.inode(ctx, e), h, fuse.FOPEN_DIRECT_IO, 0
}
