package rpc

import (
	"math"
	"sync/atomic"
	"time"
)

// A watch sees when a call takes long, which somebody answers one after the other: what
// else he has to do is another's then.
type watch struct {
	// calls is twice the number of calls that were answered, and one more while one is;
	// handedOver once the rest is another's.
	calls    atomic.Uint64
	timer    *time.Timer   // calls look
	watching atomic.Bool   // timer runs, as it does until it finds nothing new
	seen     atomic.Uint64 // calls, when look last looked

	may   func() bool // whether another may go on, who is counted then
	count func()      // undoes that
	goOn  func()      // goes on, in a goroutine of its own
}

const handedOver = math.MaxUint64

// watchTime is how often the watch looks: a call that it sees twice takes long. To set
// a timer for each call would cost more than some of them.
const watchTime = 2 * time.Millisecond

func (w *watch) init(may func() bool, count, goOn func()) {
	w.may, w.count, w.goOn = may, count, goOn
	w.timer = time.AfterFunc(math.MaxInt64, w.look)
}

func (w *watch) stop() { w.timer.Stop() }

// begin counts a call, and has it watched. It returns the count.
func (w *watch) begin() uint64 {
	n := w.calls.Add(1)
	if !w.watching.Load() {
		w.watching.Store(true)
		w.timer.Reset(watchTime)
	}
	return n
}

// end says that the call has ended. It returns whether the rest is not another's.
func (w *watch) end(n uint64) bool { return w.calls.CompareAndSwap(n, n+1) }

// again begins anew after a call that took long.
func (w *watch) again(n uint64) { w.calls.Store(n + 1) }

// look has another go on if the call in progress takes long.
func (w *watch) look() {
	n := w.calls.Load()
	switch {
	case n == handedOver:
		return
	case n != w.seen.Load():
		w.seen.Store(n)
	case n%2 == 0: // nothing to watch
		w.watching.Store(false)
		if w.calls.Load() == n {
			return
		}
		w.watching.Store(true) // a call that was begun meanwhile may count on it
	case w.may():
		w.watching.Store(false)
		if w.calls.CompareAndSwap(n, handedOver) {
			w.goOn()
			return
		}
		w.watching.Store(true)
		w.count() // the call has come back
	}
	w.timer.Reset(watchTime)
}
