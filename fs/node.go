package fs

import (
	"context"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// lasting is how long the kernel may keep what no caller sees otherwise.
const lasting = time.Hour

// An entry is one name in a directory: what it is and who it is.
type entry struct {
	// id is the node's identity: the same id is the same node, so all that
	// the node's behaviour rests on is in it.
	id string
	// One of these is set.
	dir  directory
	file file
	link link

	place place
	perm  uint32 // permission bits, before the place's rules
	fixed bool   // every caller finds the same node under this name, always
	moody bool   // the size depends on the caller or the moment
}

func (e *entry) kind() uint32 {
	switch {
	case e.dir != nil:
		return syscall.S_IFDIR
	case e.link != nil:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// A directory is what a directory node does.
type directory interface {
	// list returns the names that the caller may see.
	list(ctx context.Context, c caller) ([]listed, error)
	// lookup returns the entry of that name, or an error of ENOENT.
	lookup(ctx context.Context, c caller, name string) (*entry, error)
}

// listed is one line of a listing.
type listed struct {
	name string
	id   string
	kind uint32 // S_IFREG …
}

// What some directories do besides.
type (
	dirMaker interface {
		mkdir(ctx context.Context, c caller, name string) (*entry, error)
	}
	dirRemover interface {
		rmdir(ctx context.Context, c caller, name string) error
	}
	unlinker interface {
		unlink(ctx context.Context, c caller, name string) error
	}
	renamer interface {
		rename(ctx context.Context, c caller, name, newName string, flags uint32) error
	}
	creator interface {
		create(ctx context.Context, c caller, name string, flags uint32) (*entry, gofs.FileHandle, error)
	}
)

// A file is what a file node does.
type file interface {
	// size is the length of what would be read, 0 where that is not known.
	size(ctx context.Context, c caller) uint64
	// open opens the file: rights are decided here.
	open(ctx context.Context, c caller, flags uint32) (h gofs.FileHandle, fuseFlags uint32, err error)
}

// A cutter is a file that has something to cut.
type cutter interface {
	// truncate sets the length, through h or, if that is nil, by name.
	truncate(ctx context.Context, c caller, h gofs.FileHandle, size uint64) error
}

// A link is what a symbolic link does.
type link interface {
	target(ctx context.Context, c caller) (string, error)
}

// node is what all nodes have.
type node struct {
	gofs.Inode
	fs *FS
	entry
}

type (
	dirNode  struct{ node }
	fileNode struct{ node }
	linkNode struct{ node }
)

// inode makes e a child of n.
func (n *node) inode(ctx context.Context, e *entry) *gofs.Inode {
	var child gofs.InodeEmbedder
	switch base := (node{fs: n.fs, entry: *e}); {
	case e.dir != nil:
		child = &dirNode{node: node{fs: base.fs, entry: base.entry}}
	case e.link != nil:
		child = &linkNode{node: node{fs: base.fs, entry: base.entry}}
	default:
		child = &fileNode{node: node{fs: base.fs, entry: base.entry}}
	}
	return n.NewInode(ctx, child, gofs.StableAttr{Mode: e.kind(), Ino: n.fs.ino(e.id)})
}

// attr fills in what stat shows of e.
func (f *FS) attr(ctx context.Context, c caller, e *entry, out *fuse.Attr) {
	perm, uid, gid := e.perm, f.config.UID, f.config.GID
	if !e.place.ref.self() {
		uid, gid = e.place.uid, e.place.gid
		perm &= 0o700
	} else if f.config.Private {
		perm &= 0o700
	}
	*out = fuse.Attr{
		Ino:     f.ino(e.id),
		Mode:    e.kind() | perm,
		Nlink:   1,
		Owner:   fuse.Owner{Uid: uid, Gid: gid},
		Blksize: 4096,
	}
	if e.file != nil {
		out.Size = e.file.size(ctx, c)
		out.Blocks = (out.Size + 511) / 512
	}
	out.SetTimes(&f.started, &f.started, &f.started)
}

// entryOut fills in the answer to a lookup.
func (f *FS) entryOut(ctx context.Context, c caller, e *entry, out *fuse.EntryOut) {
	f.attr(ctx, c, e, &out.Attr)
	if e.fixed {
		out.SetEntryTimeout(lasting)
	}
	if !e.moody {
		out.SetAttrTimeout(lasting)
	}
}

// Getattr is stat. It makes nothing.
func (n *node) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	if errno := n.standing(c); errno != 0 {
		return errno
	}
	n.fs.attr(ctx, c, &n.entry, &out.Attr)
	if !n.moody {
		out.SetTimeout(lasting)
	}
	return 0
}

// standing says whether the node's session is there for the caller. The kernel
// asks for attributes also on behalf of nobody, when it drops an inode.
func (n *node) standing(c caller) syscall.Errno {
	if n.place.ref.self() || c.pid == 0 || n.fs.present(c, n.place) != nil {
		return 0
	}
	return syscall.ENOENT
}

// Setattr is truncate, chmod, chown and utimes. What copying programs set
// besides is taken and not kept: there is nowhere to keep it.
func (n *node) Setattr(ctx context.Context, h gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	if size, ok := in.GetSize(); ok {
		if errno := n.truncate(ctx, c, h, size); errno != 0 {
			return errno
		}
	}
	n.fs.attr(ctx, c, &n.entry, &out.Attr)
	if uid, ok := in.GetUID(); ok && uid != out.Uid {
		return n.fs.done(c, n.place, errKept)
	}
	if gid, ok := in.GetGID(); ok && gid != out.Gid {
		return n.fs.done(c, n.place, errKept)
	}
	// cp -p sets the mode of what it has written: that is taken, not kept.
	if mode, ok := in.GetMode(); ok && mode != out.Mode&0o7777 && n.perm&0o200 == 0 {
		return n.fs.done(c, n.place, errKept)
	}
	if !n.moody {
		out.SetTimeout(lasting)
	}
	return 0
}

func (n *node) truncate(ctx context.Context, c caller, h gofs.FileHandle, size uint64) syscall.Errno {
	if n.file == nil {
		return syscall.EISDIR
	}
	if ctx.Err() != nil {
		return syscall.EINTR
	}
	t, ok := n.file.(cutter)
	if !ok {
		return n.fs.done(c, n.place, errTruncate)
	}
	if err := t.truncate(ctx, c, h, size); err != nil {
		return n.fs.done(c, n.place, err)
	}
	return 0
}

// Statfs tells no numbers: counts would show what others have.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, maxName
	return 0
}

// Fsync has nothing to do: what was answered is stored.
func (n *node) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

// Open is open(2) of a file.
func (n *fileNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	if ctx.Err() != nil {
		return nil, 0, syscall.EINTR
	}
	h, fuseFlags, err := n.file.open(ctx, c, flags)
	if err != nil {
		return nil, 0, n.fs.done(c, n.place, err)
	}
	return h, fuseFlags | fuse.FOPEN_DIRECT_IO, 0
}

// Readlink is readlink(2).
func (n *linkNode) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	ctx, end := n.fs.patience(ctx)
	defer end()
	c := callerOf(ctx)
	t, err := n.link.target(ctx, c)
	if err != nil {
		return nil, n.fs.done(c, n.place, err)
	}
	return []byte(t), 0
}

// How a file is opened.

func wants(flags uint32) (read, write bool) {
	switch flags & syscall.O_ACCMODE {
	case syscall.O_WRONLY:
		return false, true
	case syscall.O_RDWR:
		return true, true
	}
	return true, false
}
