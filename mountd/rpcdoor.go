package mountd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"p11fs/locks"
	"p11fs/mountd/rpc"
	"p11fs/p11"
)

// rpcSocketName is the name of the RPC socket in p11fs's directory below the
// runtime directory, and what a socket unit calls its descriptor.
const rpcSocketName = "rpc.sock"

// rpcDoor is the socket for PKCS#11 programs.
type rpcDoor struct {
	server   *rpc.Server
	listener *net.UnixListener
	path     string
	done     chan struct{} // closed when the server has stopped accepting
	err      error         // why there is no door
}

// openRPC listens for PKCS#11 programs. The doors fail apart: without the
// socket the tree is still served, and the list of resources says so.
func (d *Daemon) openRPC(context.Context) error {
	door := &rpcDoor{path: d.conf.Paths.RPC}
	d.rpc = door
	if door.path == "" {
		door.err = errors.New("no path is set for it")
		return nil
	}
	l, activated, err := d.rpcListener(door.path)
	if err != nil {
		door.err = err
		d.log.Error("no socket for PKCS#11 programs", "socket", door.path, "err", err)
		return nil
	}
	door.listener = l
	if activated {
		door.path = l.Addr().String()
	}
	door.server = rpc.New(rpc.Config{Engine: d.engine, Log: d.log, Version: rpcVersion(), Allow: d.allowPeer, Processors: d.conf.Processors})
	door.done = make(chan struct{})
	go func() {
		defer close(door.done)
		if err := door.server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Error("the socket for PKCS#11 programs is lost", "err", err)
		}
	}()
	d.later(func() error {
		// A socket that the service manager holds stays: clients that connect
		// while the daemon is restarted wait there.
		l.SetUnlinkOnClose(!activated)
		err := l.Close()
		door.server.Close()
		<-door.done
		return err
	})
	return nil
}

// rpcListener returns the socket that the service manager passed, or one of
// our own at path.
func (d *Daemon) rpcListener(path string) (l *net.UnixListener, activated bool, err error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, false, fmt.Errorf("socket activation: %w", err)
	}
	for _, l := range passed[rpcSocketName] {
		if u, ok := l.(*net.UnixListener); ok {
			return u, true, nil
		}
	}
	dir := filepath.Dir(path)
	group, mode := d.group(), os.FileMode(0o600)
	if group >= 0 {
		mode = 0o660
	}
	// In system mode the directory is open to all, and the socket decides who may
	// connect: who may not is told so, instead of finding no socket.
	dirMode := os.FileMode(0o700)
	if d.conf.Mode == System {
		dirMode = 0o755
	}
	if err := locks.MakeDirectory(dir, dirMode, locks.NoGroup); err != nil {
		return nil, false, err
	}
	// A daemon with other tokens may have it. Asking does it no harm.
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, false, errors.Join(fmt.Errorf("another p11fs listens on %s: %w", path, ErrBusy), c.Close())
	}
	// Made under another name and moved into place, so that the path never
	// lacks a socket that a client can wait on.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, false, err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, mode)
	if err == nil && group >= 0 {
		err = os.Chown(fresh, -1, group)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, false, errors.Join(err, l.Close(), os.Remove(fresh))
	}
	ours, err := os.Lstat(path)
	if err != nil {
		return nil, false, errors.Join(err, l.Close())
	}
	d.later(func() error {
		if now, err := os.Lstat(path); err != nil || !os.SameFile(ours, now) {
			return nil // removed or taken over: no longer ours
		}
		return os.Remove(path)
	})
	return l, false, nil
}

// allowPeer lets a user's own programs in, and root's. In system mode the
// socket's mode lets in root and the group, which the kernel knows better.
func (d *Daemon) allowPeer(p rpc.Peer) error {
	if d.conf.Mode == System || p.UID == 0 || p.UID == uint32(os.Geteuid()) {
		return nil
	}
	return p11.Errorf(p11.CKR_FUNCTION_REJECTED, "the tokens are those of another user")
}

func rpcVersion() p11.Version {
	var major, minor uint8
	_, _ = fmt.Sscanf(Version, "%d.%d", &major, &minor) // a constant of ours
	return p11.Version{Major: major, Minor: minor}
}

// rpcSocket is the socket's line in the list of resources.
func (d *Daemon) rpcSocket() resource {
	r := resource{name: "socket/rpc", size: unknown, state: stateOff}
	if d.rpc == nil {
		return r
	}
	if d.rpc.err != nil {
		r.state = stateFailed
		return r
	}
	r.count, r.users, r.state = 1, d.rpcStats().Connections, stateOn
	return r
}

// rpcStats is what the door has counted; zeros without it.
func (d *Daemon) rpcStats() rpc.Stats {
	if d.rpc == nil || d.rpc.server == nil {
		return rpc.Stats{}
	}
	return d.rpc.server.Stats()
}
