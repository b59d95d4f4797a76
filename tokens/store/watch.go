package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"p11fs/tokens/store/format"
)

// changes is what may have changed in the token's directory.
type changes struct {
	all   bool // anything
	moved bool // the directory itself is another one
	data  bool // NVTOK.DAT or a master key file
	index bool // OBJ.IDX
	room  bool // there may be room for objects that had none
	names map[format.Name]struct{}
}

func (c *changes) any() bool {
	return c.all || c.moved || c.data || c.index || c.room || len(c.names) > 0
}

func (c *changes) add(n format.Name) {
	if c.names == nil {
		c.names = make(map[format.Name]struct{})
	}
	c.names[n] = struct{}{}
}

func (c *changes) merge(o changes) {
	c.all = c.all || o.all
	c.moved = c.moved || o.moved
	c.data = c.data || o.data
	c.index = c.index || o.index
	c.room = c.room || o.room
	for n := range o.names {
		c.add(n)
	}
}

// A watch hears from the kernel what changes in the two directories, whoever
// changes it, before the changing system call returns.
type watch struct {
	fd        int
	top, objs int32
	buf       []byte
	waiting   int32 // bytes of news that were there at the last look
}

const watchMask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// newWatch fails where the user has no watches left; the store then looks at
// every file instead.
func newWatch(top, objs *folder) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watch{fd: fd, buf: make([]byte, 16<<10)}
	for wd, d := range map[*int32]*folder{&w.top: top, &w.objs: objs} {
		n, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", d.fd), watchMask)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("inotify: %s: %w", d.path, err)
		}
		*wd = int32(n)
	}
	return w, nil
}

func (w *watch) close() {
	if w != nil {
		_ = unix.Close(w.fd)
	}
}

// drain adds to c what has changed since the last call.
func (w *watch) drain(c *changes) {
	if w == nil {
		c.all = true
		return
	}
	// FIONREAD tells in less time than a read that there is nothing, and never waits.
	_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(w.fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&w.waiting)))
	if e == 0 && w.waiting == 0 {
		return
	}
	for {
		n, err := unix.Read(w.fd, w.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil || n <= 0:
			c.all = true
			return
		}
		w.read(w.buf[:n], c)
	}
}

func (w *watch) read(b []byte, c *changes) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		file := b[unix.SizeofInotifyEvent:]
		if size > len(file) {
			break
		}
		b = file[size:]
		file = bytes.TrimRight(file[:size], "\x00")
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			c.all = true
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
			c.moved = true
		case wd == w.top:
			switch string(file) {
			case dataFile, soKeyFile, userKeyFile:
				c.data = true
			case objectsDir:
				c.moved = mask&(unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO) != 0 || c.moved
			}
		case wd == w.objs:
			if string(file) == indexFile {
				c.index = true
			} else if n, ok := format.ParseName(file); ok {
				c.add(n)
			}
		}
	}
}
