package mountd

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"p11fs/fs"
	"p11fs/locks"
	"p11fs/mountd/mountpoint"
)

// How the end of a mount is waited for: stopTimeout is the longest, while requests
// run. Without any, a mount that does not end is only held by somebody's working
// directory, or by an open file that its owner does nothing with, and stopIdle is enough.
const (
	stopTimeout = time.Second
	stopIdle    = 300 * time.Millisecond
	stopPoll    = 20 * time.Millisecond
)

// mount makes the tree and mounts it.
func (d *Daemon) mount(ctx context.Context) error {
	c := fs.Config{
		Engine: d.engine, Log: d.log, Now: d.now,
		Control: d.control,
		Status:  d.status, Resources: d.resources, Store: d.conf.Paths.Data,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Private: d.conf.Mode == User && !d.conf.AllowOther, OpenToken: d.conf.OpenToken,
	}
	if d.rpc.err == nil {
		socket, err := filepath.Abs(d.rpc.path)
		if err != nil {
			return err
		}
		c.Socket = socket
	}
	if group := d.group(); group != locks.NoGroup {
		c.GID = uint32(group)
	}
	var err error
	if c.Metrics, err = d.metrics(); err != nil {
		return err
	}
	if d.tree, err = fs.New(c); err != nil {
		return err
	}
	d.later(d.tree.Close)
	// Only root may let others in without being asked.
	others := d.conf.AllowOther || d.conf.Mode == System && os.Geteuid() == 0
	if d.server, err = d.tree.Mount(ctx, d.conf.Paths.Mount, fs.Options{AllowOther: others}); err != nil {
		return err
	}
	d.later(d.unmount)
	if d.watch, err = mountpoint.NewWatch(d.conf.Paths.Mount); err != nil {
		d.log.Warn("the mount's end shows late where another mount namespace has a copy of it", "err", err)
		return nil
	}
	d.later(d.watch.Close)
	return nil
}

// unmount takes the tree out of the way, so that nothing new is opened, and
// waits for what runs.
func (d *Daemon) unmount() error {
	switch {
	case d.mountGone():
	case d.watch != nil && !d.watch.OnTop():
		// Unmounting would take away another's.
		d.log.Warn("the mount was moved, or something is mounted over it: it is left; unmount it by hand", "mount", d.conf.Paths.Mount)
	default:
		if err := mountpoint.Detach(context.Background(), d.conf.Paths.Mount); err != nil {
			return err
		}
	}
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	var idle time.Duration
	for before := d.tree.Stats().Requests; ; {
		select {
		case <-d.server.Done():
			return nil
		case <-deadline.C:
		case <-tick.C:
			now := d.tree.Stats()
			if idle += stopPoll; now.Running > 0 || now.Requests != before {
				idle = 0
			}
			if before = now.Requests; idle < stopIdle {
				continue
			}
		}
		if n := d.tree.Stats().Handles; n > 0 {
			d.log.Warn("files in the tree are still open; their operations end here", "handles", n)
		}
		return nil
	}
}

// mountGone reports whether somebody took the mount away, so that what is in its
// place now is another's.
func (d *Daemon) mountGone() bool {
	select {
	case <-d.server.Done():
		return true
	case <-d.watch.Gone():
		return true
	default:
		return false
	}
}
