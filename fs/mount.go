package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Options are how a tree is mounted.
type Options struct {
	// AllowOther lets other users in, as far as modes and owners go. It needs
	// root, or user_allow_other in /etc/fuse.conf.
	AllowOther bool
	// Debug logs every request and reply, PINs too.
	Debug bool
}

// maxWrite is the longest WRITE that the kernel is to send, in bytes.
const maxWrite = 256 << 10

// Server is a mounted tree.
type Server struct {
	server *fuse.Server
	dir    string
	done   chan struct{} // closed when the mount has ended

	mu        sync.Mutex // guards unmounted
	unmounted bool
}

// Mount mounts the tree on dir, which must be a directory, and returns once it
// answers. ctx ends the attempt only.
func (f *FS) Mount(ctx context.Context, dir string, o Options) (*Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	options := &gofs.Options{
		MountOptions: fuse.MountOptions{
			AllowOther:         o.AllowOther,
			Options:            []string{"default_permissions", "nosuid", "nodev", "noexec"},
			FsName:             "p11fs",
			Name:               "p11fs",
			MaxWrite:           maxWrite,
			DisableXAttrs:      true,
			DisableReadDirPlus: true,
			DirectMount:        os.Geteuid() == 0,
			ExtraCapabilities:  fuse.CAP_ATOMIC_O_TRUNC,
			Debug:              o.Debug,
			Logger:             log.New(logWriter{f.log}, "", 0),
			PanicHandler:       f.panicked,
		},
		NullPermissions: true,
	}
	raw := gofs.NewNodeFS(f.rootNode(), options)
	server, err := fuse.NewServer(raw, dir, &options.MountOptions)
	if err != nil {
		if strings.HasPrefix(err.Error(), "fusermount exited") {
			err = errors.New("fusermount3 refused, for the reason above; p11fs doctor looks for others")
		}
		return nil, fmt.Errorf("mounting on %s: %w", dir, err)
	}
	s := &Server{server: server, dir: dir, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting on %s: %w", dir, err), s.Unmount())
	}
	return s, nil
}

// panicked answers a request that panicked.
func (f *FS) panicked(what any) fuse.Status {
	f.panics.Add(1)
	f.log.Error("a request panicked", "panic", what, "stack", string(debug.Stack()))
	return fuse.EIO
}

// logWriter makes log lines of what go-fuse prints.
type logWriter struct{ log *slog.Logger }

var _ io.Writer = logWriter{}

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug("fuse", "text", clean(string(b)))
	return len(b), nil
}

// Unmount takes the tree away from its directory, which is free at once. The
// tree ends with the last open file in it: Wait and Done tell. It may be called
// again.
func (s *Server) Unmount() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return nil
	default:
	}
	if s.unmounted {
		return nil
	}
	// Not by go-fuse, which then waits for the mount's end without bound: a
	// mount namespace that was made meanwhile has a copy of the mount, and
	// nothing says when it lets go.
	err := Detach(s.dir)
	s.unmounted = err == nil
	return err
}

// Wait returns when the mount has ended, whoever ended it, and all requests are
// answered.
func (s *Server) Wait() { <-s.done }

// Done is closed when the mount has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Detach takes whatever is mounted on dir away, at once, though it is in use or
// its daemon is gone.
func Detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	return fusermountDetach(dir)
}
