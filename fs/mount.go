package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Options are how a tree is mounted.
type Options struct {
	// AllowOther lets other users in, as far as modes and owners go. It needs
	// root, or user_allow_other in /etc/fuse.conf.
	AllowOther bool
}

// maxWrite is the longest WRITE that the kernel is to send, in bytes.
const maxWrite = 1 << 20

// Server is a mounted tree.
type Server struct{ done chan struct{} }

// Mount mounts the tree on dir, which must be a directory, and returns once it
// answers. ctx ends the attempt only. Who mounted it unmounts it: not go-fuse, which
// waits for the mount's end without bound, though a mount namespace that was made
// meanwhile has a copy of the mount, and nothing says when it lets go.
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
			Logger:             slog.NewLogLogger(f.config.Log.Handler(), slog.LevelDebug),
			PanicHandler:       f.panicked,
		},
		NullPermissions: true,
	}
	raw := noter{gofs.NewNodeFS(f.rootNode(), options), &f.requests}
	server, err := fuse.NewServer(raw, dir, &options.MountOptions)
	if err != nil {
		if strings.HasPrefix(err.Error(), "fusermount exited") {
			err = errors.New("fusermount3 refused, for the reason above: p11fs doctor looks for others")
		}
		return nil, fmt.Errorf("mounting on %s: %w", dir, err)
	}
	s := &Server{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting on %s: %w", dir, err), server.Unmount())
	}
	go f.names.drop(s.done)
	return s, nil
}

// panicked answers a request that panicked.
func (f *FS) panicked(what any) fuse.Status {
	f.panics.Add(1)
	f.config.Log.Error("a request panicked", "panic", what, "stack", string(debug.Stack()))
	return fuse.EIO
}

// Wait returns when the mount has ended, whoever ended it, and all requests are
// answered.
func (s *Server) Wait() { <-s.done }

// Done is closed when the mount has ended.
func (s *Server) Done() <-chan struct{} { return s.done }
