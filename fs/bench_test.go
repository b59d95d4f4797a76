package fs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// emptyNode is the least that a tree can do: it answers the same calls as
// digest/sha256, and does nothing.
type emptyNode struct {
	gofs.Inode
	dir bool
}

func (n *emptyNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	e := &emptyNode{dir: name != "sha256"}
	mode := uint32(syscall.S_IFREG)
	if e.dir {
		mode = syscall.S_IFDIR
	}
	out.Mode = mode | 0o770
	if e.dir {
		out.SetEntryTimeout(cacheTime)
	}
	out.SetAttrTimeout(cacheTime)
	return n.NewInode(ctx, e, gofs.StableAttr{Mode: mode}), 0
}

func (n *emptyNode) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return &emptyHandle{}, fuse.FOPEN_DIRECT_IO, 0
}

type emptyHandle struct{}

func (*emptyHandle) Write(_ context.Context, b []byte, _ int64) (uint32, syscall.Errno) {
	return uint32(len(b)), 0
}

func (*emptyHandle) Read(_ context.Context, b []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(b[:32]), 0
}

func (*emptyHandle) Flush(context.Context) syscall.Errno { return 0 }

func (*emptyHandle) Release(context.Context) syscall.Errno { return 0 }

// serveEmpty mounts the empty tree until standard input ends.
func serveEmpty(dir string) error {
	o := &gofs.Options{MountOptions: fuse.MountOptions{
		Options: []string{"default_permissions"}, FsName: "empty", Name: "empty", MaxWrite: maxWrite,
		DisableXAttrs: true, DisableReadDirPlus: true, DirectMount: os.Geteuid() == 0, ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC,
	}}
	s, err := gofs.Mount(dir, &emptyNode{dir: true}, o)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println("handles=0 panics=0 sessions=0 operations=0 applications=0")
	return s.Unmount()
}

// BenchmarkTransaction is one file transaction: open, write, read, close; and
// the same calls of a tree that does nothing.
func BenchmarkTransaction(b *testing.B) {
	msg, buf := make([]byte, 100), make([]byte, 4096)
	for _, c := range []struct{ name, env string }{{"digest", ""}, {"empty", "P11FS_TEST_EMPTY=1"}} {
		b.Run(c.name, func(b *testing.B) {
			m := mount(b, c.env)
			path := filepath.Join(m.dir, "tok/digest/sha256")
			for b.Loop() {
				fd, err := unix.Open(path, unix.O_RDWR, 0)
				if err == nil {
					_, err = unix.Write(fd, msg)
				}
				if err == nil {
					_, err = unix.Read(fd, buf)
				}
				if err != nil {
					b.Fatal(err)
				}
				if err := unix.Close(fd); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"-kept-open", func(b *testing.B) {
			m := mount(b, c.env)
			fd, err := unix.Open(filepath.Join(m.dir, "tok/digest/sha256"), unix.O_RDWR, 0)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := unix.Write(fd, msg); err != nil {
					b.Fatal(err)
				}
				if _, err := unix.Read(fd, buf); err != nil {
					b.Fatal(err)
				}
			}
			if err := unix.Close(fd); err != nil {
				b.Fatal(err)
			}
		})
	}
}
