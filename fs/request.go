package fs

import (
	"context"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A request is what the kernel says of a read, a write or a close, beside what go-fuse
// passes on.
type request struct {
	// process has one value for all that a process does, by any thread and descriptor,
	// and another for each other process that has the file open. 0 is not known.
	process uint64
	// nonblock is set if the descriptor has O_NONBLOCK.
	nonblock bool
}

type requestKey struct{}

// requestOf returns the request under whose context something runs.
func requestOf(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(request)
	return r
}

// requests are those in progress, by the channel that says that one is interrupted.
type requests struct{ m sync.Map }

// with returns the context of a request, from which requestOf has it.
func (r *requests) with(ctx context.Context) context.Context {
	v, ok := r.m.Load(ctx.Done())
	if !ok { // of a test: who has no number closes a descriptor
		v = request{process: uint64(callerOf(ctx).pid)}
	}
	return context.WithValue(ctx, requestKey{}, v)
}

// note keeps what is known of a request, until end is called.
func (r *requests) note(cancel <-chan struct{}, process uint64, flags uint32) (end func()) {
	r.m.Store(cancel, request{process: process, nonblock: flags&syscall.O_NONBLOCK != 0})
	return func() { r.m.Delete(cancel) }
}

// A noter is the file system of go-fuse, and notes each request before it goes there.
// A process is known by the owner of its locks: so the kernel names it also in the
// closes of a process that has ended, which come from nobody.
type noter struct {
	fuse.RawFileSystem
	requests *requests
}

func (n noter) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	defer n.requests.note(cancel, in.LockOwner, in.Flags)()
	return n.RawFileSystem.Read(cancel, in, buf)
}

func (n noter) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer n.requests.note(cancel, in.LockOwner, in.Flags)()
	return n.RawFileSystem.Write(cancel, in, data)
}

func (n noter) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	defer n.requests.note(cancel, in.LockOwner, in.Flags)()
	return n.RawFileSystem.Writev(cancel, in, data)
}

func (n noter) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	defer n.requests.note(cancel, in.LockOwner, 0)()
	return n.RawFileSystem.Flush(cancel, in)
}
