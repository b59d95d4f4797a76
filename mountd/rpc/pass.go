package rpc

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A pass lets a goroutine that never waits wait for nothing: whatever else can run does, and
// the runtime looks at the sockets, which it does when a processor has nothing to do, and
// otherwise every 10 ms only. The zero value has nothing open.
type pass struct {
	mu     sync.Mutex // guards all below, and is held by who passes
	event  *os.File   // an eventfd; nil if none could be had
	raw    syscall.RawConn
	opened bool
}

func (p *pass) openLocked() {
	p.opened = true
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	if p.raw, err = event.SyscallConn(); err != nil {
		_ = event.Close() // nothing was written
		return
	}
	p.event = event
}

// pass waits until the runtime has looked. While another does that it only lets others run.
func (p *pass) pass() {
	if !p.mu.TryLock() {
		runtime.Gosched()
		return
	}
	defer p.mu.Unlock()
	if !p.opened {
		p.openLocked()
	}
	if p.event == nil {
		runtime.Gosched()
		return
	}
	var told bool
	// It fails once it is closed, when nobody needs it.
	_ = p.raw.Read(func(fd uintptr) bool {
		var one [8]byte
		if !told {
			told = true
			one[0] = 1 // in either order of bytes not 0
			_, err := unix.Write(int(fd), one[:])
			return err != nil
		}
		_, _ = unix.Read(int(fd), one[:]) // there is something, or the next one ends at once
		return true
	})
}

func (p *pass) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event != nil {
		_ = p.event.Close() // nothing is kept there
	}
	p.event, p.opened = nil, true
}
