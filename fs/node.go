package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"p11fs/p11"
)

// Every callback that the tree counts on: a misspelt one would silently be the
// library's default.
var (
	_ gofs.NodeGetattrer      = (*node)(nil)
	_ gofs.NodeSetattrer      = (*node)(nil)
	_ gofs.NodeStatfser       = (*node)(nil)
	_ gofs.NodeFsyncer        = (*node)(nil)
	_ gofs.NodeLookuper       = (*node)(nil)
	_ gofs.NodeOpendirHandler = (*node)(nil)
	_ gofs.NodeMkdirer        = (*node)(nil)
	_ gofs.NodeRmdirer        = (*node)(nil)
	_ gofs.NodeUnlinker       = (*node)(nil)
	_ gofs.NodeRenamer        = (*node)(nil)
	_ gofs.NodeCreater        = (*node)(nil)
	_ gofs.NodeOpener         = (*node)(nil)
	_ gofs.NodeReadlinker     = (*node)(nil)
)

// cacheTime is how long the kernel may keep what is the same for every caller.
const cacheTime = time.Hour

// maxName is the longest name of a directory entry, in bytes.
const maxName = 255

// An entry is what a name in a directory stands for.
type entry struct {
	place
	// path is the rest of the node's identity. Entries of one id are one node, so
	// all that the node's behaviour rests on is in it.
	path string
	perm uint32 // permission bits, before the rules of the place

	// One of these is set.
	dir  directory
	file *file
	link func(ctx context.Context, c caller) (target string, err error)

	// times are those of the object that the entry shows, for a caller who sees it. It is
	// nil for what shows none.
	times func(ctx context.Context, c caller) (times, error)
	// date sets the time of its content, as touch(1) does. It is nil where that is not kept.
	date func(ctx context.Context, c caller, at time.Time) error

	// own is set for a file of the caller's, which the place's uid and gid own.
	own bool
	// everyones is set where all callers find the same node under this name, always: not
	// for a file.
	everyones bool
}

// times are when an object was changed last, and the time of its content: the same, unless
// that was set.
type times struct{ changed, dated time.Time }

func (e *entry) id() string { return e.place.id() + e.path }

// failed is place.failed of what is at the entry.
func (e *entry) failed(c caller, err error) syscall.Errno { return e.place.failed(c, e.path, err) }

// done is failed for what changes something: after it went well the file error shows
// CKR_OK, if the caller has one.
func (e *entry) done(c caller, err error) syscall.Errno {
	if a := e.fs.callers.find(c); err == nil && e.slot != nil && a != nil {
		e.note(a, e.path, lastError{})
	}
	return e.failed(c, err)
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

// attrTime is how long the kernel may keep the attributes. Mode and owner never
// depend on the caller; the size of a text and the time of an object do, and so does
// whether a link leads anywhere.
func (e *entry) attrTime() time.Duration {
	if e.times != nil || e.link != nil || e.file != nil && e.file.text != nil {
		return 0
	}
	return cacheTime
}

// ino is the inode number of the entry's node. A file has one for each application:
// what the kernel keeps with an inode, which is pages, a lock and watches, is then not
// another's.
func (e *entry) ino(who owner) uint64 {
	n := e.fs.ino(e.id())
	if e.file != nil {
		n = e.fs.fileIno(n, who)
	}
	return n
}

// attr fills in what stat shows, but for the inode number.
func (e *entry) attr(ctx context.Context, c caller, out *fuse.Attr) {
	perm, owner := e.perm, fuse.Owner{Uid: e.fs.config.UID, Gid: e.fs.config.GID}
	if e.own || !e.ref.isDefault() {
		owner = fuse.Owner{Uid: e.uid, Gid: e.gid}
	}
	if e.fs.config.Private || !e.ref.isDefault() {
		perm &= 0o700
	}
	*out = fuse.Attr{Mode: e.kind() | perm, Nlink: 1, Owner: owner}
	if e.file != nil && e.file.text != nil {
		if n, err := e.file.size(ctx, c); err == nil {
			out.Size = uint64(n)
		}
	}
	at := times{e.fs.started, e.fs.started}
	if e.times != nil {
		if of, err := e.times(ctx, c); err == nil {
			at = of
		}
	}
	out.SetTimes(&at.dated, &at.dated, &at.changed)
}

// A node is an entry that the kernel knows.
type node struct {
	gofs.Inode
	*entry
	owner owner // for whom it is, if it is a file
}

// child makes e a child of n, and fills in the answer.
func (n *node) child(ctx context.Context, c caller, e *entry, out *fuse.EntryOut) *gofs.Inode {
	who := n.fs.callers.ownerOf(c)
	e.attr(ctx, c, &out.Attr)
	out.Ino = e.ino(who)
	if e.everyones {
		out.SetEntryTimeout(cacheTime)
	}
	out.SetAttrTimeout(e.attrTime())
	return n.NewInode(ctx, &node{entry: e, owner: who}, gofs.StableAttr{Mode: e.kind(), Ino: out.Ino})
}

// requestCost is the processor time of a request's way through the kernel and back: the
// wake-up of a thread of ours, what that takes from whom it interrupts, and the look at
// who calls.
const requestCost = 100 * time.Microsecond

// serve runs one request of the kernel's. An interrupted one has no effect.
func (n *node) serve(ctx context.Context, run func(ctx context.Context, c caller) syscall.Errno) syscall.Errno {
	ctx, end := n.fs.withGrace(ctx)
	defer end()
	if ctx.Err() != nil {
		return syscall.EINTR
	}
	c := callerOf(ctx)
	turn := n.fs.config.Engine.Account(c.uid).Turn(ctx)
	defer turn.End()
	turn.Charge(requestCost)
	return run(ctx, c)
}

// Getattr is stat. It opens no session.
func (n *node) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		if !n.isThere(c) {
			return syscall.ENOENT
		}
		n.attr(ctx, c, &out.Attr)
		out.Ino = n.StableAttr().Ino
		out.SetTimeout(n.attrTime())
		return 0
	})
}

// isThere reports whether the caller has the session that the node is in. The
// kernel asks for attributes also on behalf of nobody, when it drops an inode.
func (n *node) isThere(c caller) bool {
	return n.ref.isDefault() || c.pid == 0 || n.sessionIfOpen(c) != nil
}

// Setattr is truncate, chmod, chown and utimes. What copying programs set besides
// is accepted and has no effect: there is nowhere to keep it. A truncation may come with
// a time, which is that of the change.
func (n *node) Setattr(ctx context.Context, h gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		if size, ok := in.GetSize(); ok {
			if err := n.truncate(ctx, c, h, size); err != nil {
				return n.failed(c, err)
			}
		} else if at, ok := in.GetMTime(); ok && n.date != nil {
			if err := n.date(ctx, c, at); err != nil {
				return n.failed(c, err)
			}
		}
		n.attr(ctx, c, &out.Attr)
		out.Ino = n.StableAttr().Ino
		out.SetTimeout(n.attrTime())
		uid, chown := in.GetUID()
		gid, chgrp := in.GetGID()
		mode, chmod := in.GetMode()
		// cp -p sets the mode of what it has written.
		if chown && uid != out.Uid || chgrp && gid != out.Gid || chmod && mode != out.Mode&0o7777 && n.perm&0o200 == 0 {
			return n.failed(c, errKept)
		}
		return 0
	})
}

func (n *node) truncate(ctx context.Context, c caller, fh gofs.FileHandle, size uint64) error {
	switch h, _ := fh.(*handle); {
	case n.file == nil:
		return errDir
	case n.file.truncate == nil || size != 0 && !n.file.anySize:
		return errTruncate
	case h != nil && h.truncate != nil:
		return h.exclusive(ctx, func() error { return h.truncate(ctx, size) })
	}
	return n.file.truncate(ctx, c, size)
}

// Statfs is that of the file system where the tokens are. It tells nothing of what is in
// them.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize = 4096, 4096
	var under syscall.Statfs_t
	if dir := n.fs.config.Store; dir != "" && syscall.Statfs(dir, &under) == nil {
		out.FromStatfsT(&under)
	}
	out.NameLen = maxName
	return 0
}

// Fsync has nothing to do where what was answered is stored.
func (n *node) Fsync(ctx context.Context, fh gofs.FileHandle, _ uint32) syscall.Errno {
	if h, ok := fh.(*handle); ok && h.sync != nil {
		return h.serve(ctx, h.sync)
	}
	return 0
}

// Open is open(2) of a file. By its name everybody comes to a node of his own, but
// /proc/PID/fd leads to that of another: it is not his to fill the pages of.
func (n *node) Open(ctx context.Context, flags uint32) (fh gofs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	errno = n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		if n.owner != n.fs.callers.ownerOf(c) {
			return syscall.ESTALE
		}
		var err error
		fh, fuseFlags, err = n.opening(c, func() (*handle, error) { return n.openFile(ctx, c, n.file, flags) })
		return n.failed(c, err)
	})
	return fh, fuseFlags, errno
}

// Readlink is readlink(2).
func (n *node) Readlink(ctx context.Context) (target []byte, errno syscall.Errno) {
	errno = n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		t, err := n.link(ctx, c)
		target = []byte(t)
		return n.failed(c, err)
	})
	return target, errno
}

// Lookup finds one name. A name that is there in another form, such as an
// operation that the key's attributes forbid, has an errno of its own.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (child *gofs.Inode, errno syscall.Errno) {
	if len(name) > maxName {
		return nil, syscall.ENAMETOOLONG
	}
	errno = n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		e, err := n.dir.lookup(ctx, c, name)
		if err == nil && e.dir == nil && !e.everyones {
			err = n.fs.names.add(&n.Inode, name)
		}
		switch errno := errnoFor(err); errno {
		case 0:
			child = n.child(ctx, c, e, out)
			return 0
		case syscall.ENOENT:
			return n.notFound(c, n.path+"/"+name, err)
		}
		return n.failed(c, err)
	})
	return child, errno
}

// OpendirHandle opens a listing.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	c := callerOf(ctx)
	if !n.isThere(c) {
		return nil, 0, syscall.ENOENT
	}
	l, err := n.newListing(c)
	if err != nil {
		return nil, 0, n.failed(c, err)
	}
	return l, 0, 0
}

// Mkdir opens a session where there can be one.
func (n *node) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (child *gofs.Inode, errno syscall.Errno) {
	errno = n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		e, err := n.dir.mkdir(ctx, c, name)
		if err == nil {
			child = n.child(ctx, c, e, out)
		}
		return n.done(c, err)
	})
	return child, errno
}

// Rmdir destroys an object or closes a session.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno { return n.done(c, n.dir.rmdir(ctx, c, name)) })
}

// Unlink removes a file where it is one of its own. Where it is a view of its
// directory it does nothing, so that rm -r of the directory comes to the end.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno { return n.done(c, n.dir.unlink(ctx, c, name)) })
}

// Rename sets a label.
func (n *node) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		to, ours := newParent.(*node)
		dir, ok := n.dir.(renamer)
		switch {
		case !ok:
			return n.failed(c, errFixed)
		case !ours || to.id() != n.id():
			return n.failed(c, errElsewhere)
		case flags&^unix.RENAME_NOREPLACE != 0 || len(newName) > maxName:
			return n.failed(c, errRename)
		}
		return n.done(c, dir.rename(ctx, c, name, newName, flags&unix.RENAME_NOREPLACE == 0))
	})
}

// Create makes a file where there can be one.
func (n *node) Create(ctx context.Context, name string, flags, _ uint32, out *fuse.EntryOut) (child *gofs.Inode, fh gofs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	if len(name) > maxName {
		return nil, nil, 0, syscall.ENAMETOOLONG
	}
	errno = n.serve(ctx, func(ctx context.Context, c caller) syscall.Errno {
		var e *entry
		var err error
		fh, fuseFlags, err = n.opening(c, func() (h *handle, err error) {
			if e, h, err = n.dir.create(ctx, c, name, flags); err == nil {
				h.path = e.path
			}
			return h, err
		})
		if errors.Is(err, errFixed) {
			// A view of an object that went away between the kernel's look at it
			// and its open.
			if _, gone := n.dir.lookup(ctx, c, name); errors.Is(gone, p11.CKR_OBJECT_HANDLE_INVALID) {
				err = gone
			}
		}
		if err != nil {
			return n.failed(c, err)
		}
		child = n.child(ctx, c, e, out)
		return 0
	})
	return child, fh, fuseFlags, errno
}
