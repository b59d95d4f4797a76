package rpc

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// apart keeps workers on different processors. Threads that yield to each other instead of
// sleeping never leave a processor idle, so that the kernel sees no reason to part two
// workers which it has put on one, while a client's threads yield to each other on another.
type apart struct {
	// at is how many workers were on each processor when they last looked.
	at [processorsKnown]atomic.Int32
}

// processorsKnown is how many a unix.CPUSet has.
const processorsKnown = len(unix.CPUSet{}) * int(unsafe.Sizeof(unix.CPUSet{}[0])) * 8

// apartTime is how often a worker moves at most. To do so takes some 20 µs.
const apartTime = 2 * time.Millisecond

// A place is where a worker is.
type place struct {
	processor atomic.Int32 // and one more; 0 if it is not counted
	moved     time.Time    // when it was last to move
}

// enter notes where the worker of p runs, and moves it to a processor without a worker if it
// is not alone there.
func (a *apart) enter(p *place) {
	if a.note(p) <= 1 || time.Since(p.moved) < apartTime {
		return
	}
	p.moved = time.Now()
	a.move()
	a.note(p)
}

// note returns how many workers are where that of p is.
func (a *apart) note(p *place) int32 {
	var processor uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&processor)), 0, 0); errno != 0 || int(processor) >= len(a.at) {
		a.leave(p)
		return 0
	}
	here := &a.at[processor]
	if is := int32(processor) + 1; p.processor.Load() != is {
		a.leave(p)
		p.processor.Store(is)
		here.Add(1)
	}
	return here.Load()
}

// leave has the worker of p count no more. Another may call it while that is in a call.
func (a *apart) leave(p *place) {
	if was := p.processor.Swap(0); was != 0 {
		a.at[was-1].Add(-1)
	}
}

// move moves the thread to a processor where no worker is, if there is one. Only for a
// moment it may run nowhere else.
func (a *apart) move() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var may unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil { // more than fit
		return
	}
	free := may
	for i := range a.at {
		if a.at[i].Load() != 0 {
			free.Clear(i)
		}
	}
	if free.Count() != 0 && unix.SchedSetaffinity(0, &free) == nil {
		_ = unix.SchedSetaffinity(0, &may) // it was so before
	}
}
