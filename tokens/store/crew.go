package store

import (
	"context"
	"slices"
	"sync"
)

// A crew is the calls of one kind that go on. One of them, the leader, does the work of all
// that wait by the time that it can; those that come meanwhile wait, and the next leader does
// theirs together: for the disk many take hardly longer than one.
type crew[C any] struct {
	mu      sync.Mutex
	waiting []*member[C] // the leader first, until it takes them
	leads   bool         // there is a leader

	waits func(ctx context.Context) (ended func()) // notes that one waits; may be nil
}

// maxTogether bounds what is done at once.
const maxTogether = 256

// A member is one call. Who waits for another's to end is told by one of the two channels.
type member[C any] struct {
	call *C
	lead chan struct{} // closed: it is to do what waits, with its own
	done chan struct{} // closed: another has done it
}

// do returns when somebody has worked on call, or false where ctx ended before that began.
// work has the ctx of a leader, and gets from take, which it calls once, what waits: at most
// that many calls, the leader's among them.
func (w *crew[C]) do(ctx context.Context, call *C, work func(ctx context.Context, take func(most int) []*C)) bool {
	m := &member[C]{call: call, lead: make(chan struct{}), done: make(chan struct{})}
	if !w.join(m) {
		if w.waits != nil {
			defer w.waits(ctx)()
		}
		select {
		case <-m.lead:
		case <-m.done:
			return true
		case <-ctx.Done():
			if w.leave(m) {
				return false
			}
			select { // what is begun is finished
			case <-m.lead:
			case <-m.done:
				return true
			}
		}
	}
	defer w.handOver()
	var batch []*member[C]
	defer func() {
		if batch == nil { // a panic
			batch = w.take(1)
		}
		for _, m := range batch {
			close(m.done)
		}
	}()
	work(ctx, func(most int) (calls []*C) {
		batch = w.take(most)
		for _, m := range batch {
			calls = append(calls, m.call)
		}
		return calls
	})
	return true
}

// join has m wait, and reports whether it is the leader.
func (w *crew[C]) join(m *member[C]) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, m)
	if w.leads {
		return false
	}
	w.leads = true
	close(m.lead)
	return true
}

// leave takes m back, unless it is a leader or already worked on.
func (w *crew[C]) leave(m *member[C]) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := slices.Index(w.waiting, m)
	select {
	case <-m.lead:
		return false
	default:
	}
	if at < 0 {
		return false
	}
	w.waiting = slices.Delete(w.waiting, at, at+1)
	return true
}

// take returns those that the leader works on: of those that wait, the first.
func (w *crew[C]) take(most int) []*member[C] {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting), most)
	batch := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return batch
}

// handOver has the first that waits be the leader.
func (w *crew[C]) handOver() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leads = len(w.waiting) > 0; w.leads {
		close(w.waiting[0].lead)
	}
}
